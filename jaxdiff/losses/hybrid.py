"""Training a reverse variance on the variational bound of a chain, alone or beside the mean.

    L_n = KL(q(x_{n-1} | x_n, x_0) || p(x_{n-1} | x_n))  for n > 1,    -log p(x_0 | x_1)  for n = 1

Each step of a chain is one term; the sum over the chain is its length times the mean over it.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxdiff.arrays import check_count, check_range, event_mean, expand_to
from jaxdiff.denoiser import Denoiser
from jaxdiff.gaussian import discretized_log_prob, normal_kl, q_posterior
from jaxdiff.losses.asking import Asked, ask
from jaxdiff.losses.denoising import mean_error
from jaxdiff.losses.times import Times, uniform
from jaxdiff.losses.weights import Weight, simple
from jaxdiff.reverse import learned_range, p_reverse
from jaxdiff.schedules import whole_steps
from jaxdiff.typing import Denoised, NoiseLevel, Normal, ReverseVariance, Schedule

__all__ = ["chain_bound", "hybrid"]


def chain_bound(
    key: Array,
    denoiser: Denoiser,
    x0: Array,
    schedule: Schedule,
    *,
    variance: ReverseVariance | None = None,
    bins: int | None = 256,
    cond: Any = None,
    cond_dropout: Any = 0.0,
    times: Times = uniform,
    train: bool = True,
) -> tuple[Array, dict[str, Array]]:
    """The variational bound of a chain, in bits a dimension: full VLB training.

        mean_i importance_i N L_{n_i} / (d log 2)

    without the prior term, on which nothing depends that is trained. Its gradient is noisy at
    uniform times: `losses.importance` draws those whose terms vary most more often.

    Args:
        key, denoiser, x0, cond, cond_dropout, times, train: as for `denoising`.
        schedule: a chain.
        variance: a ReverseVariance; `learned_range()` if None.
        bins: how many values a number of the data takes, evenly over [-1, 1], which x0 hold as
            floats; None for data of a continuum, whose last term is a density.

    Returns:
        (loss [], {"per_example": [B] with importance, "weighted": [B] without, "t": [B]}).

    Raises:
        ValueError: a schedule that is no chain, or bins below 2; and as `denoising`.
        TypeError: a denoiser that has no `raw`.

    Source: Nichol and Dhariwal 2021, arXiv:2102.09672, section 3.1 and 3.3.
    """
    steps = _steps(schedule)
    how = {"cond": cond, "cond_dropout": cond_dropout, "times": times, "train": train}
    asked = ask(key, denoiser, x0, schedule, **how)
    return asked.total(steps * _bits(asked, asked.denoised, schedule, variance, bins))


def hybrid(
    key: Array,
    denoiser: Denoiser,
    x0: Array,
    schedule: Schedule,
    *,
    variance: ReverseVariance | None = None,
    bins: int | None = 256,
    bound_weight: Any = 0.001,
    cond: Any = None,
    cond_dropout: Any = 0.0,
    times: Times = uniform,
    weight: Weight = simple,
    train: bool = True,
) -> tuple[Array, dict[str, Array]]:
    """L_simple + bound_weight L_vlb: the mean by its error, the variance by the bound.

    The bound sees the mean with its gradient stopped, so that it moves the variance alone.

    Args:
        key, denoiser, x0, cond, cond_dropout, times, weight, train: as for `denoising`.
        schedule, variance, bins: as for `chain_bound`.
        bound_weight: [], >= 0, of the bound of the whole chain in bits a dimension, as in the
            paper's code; in nats it is bound_weight / log 2.

    Returns:
        (loss [], {"per_example", "weighted", "mean", "bound", "t": [B]}), the bound in bits a
        dimension of the whole chain.

    Raises:
        ValueError: a schedule that is no chain, bins below 2, or a negative bound_weight; and as
            `denoising`.
        TypeError: a denoiser that has no `raw`.

    Source: Nichol and Dhariwal 2021, arXiv:2102.09672, eq. 16.
    """
    steps = _steps(schedule)
    how = {"cond": cond, "cond_dropout": cond_dropout, "times": times, "train": train}
    check_range("bound_weight", bound_weight, 0, math.inf, "[)")
    asked = ask(key, denoiser, x0, schedule, **how)
    d = asked.denoised
    fixed = Denoised(jax.lax.stop_gradient(d.x0), jax.lax.stop_gradient(d.eps), d.heads)
    mean = mean_error(asked, weight)
    bound = steps * _bits(asked, fixed, schedule, variance, bins)
    return asked.total(mean + bound_weight * bound, mean=mean, bound=bound)


def _bits(
    asked: Asked,
    d: Denoised,
    schedule: Schedule,
    variance: ReverseVariance | None,
    bins: int | None,
) -> Array:
    """Each example's own term of the bound, in bits a dimension, [B]."""
    if bins is not None:
        check_count("bins", bins, 2)
    x0, x_t, t = asked.x0, asked.x_t, asked.level
    s = schedule(asked.t - 1)  # a chain's clock counts its steps
    variance = learned_range() if variance is None else variance
    model = p_reverse(d, x_t, t=t, s=s, variance=variance)
    last = expand_to(s.sigma, x0) == 0
    # q(x_0 | x_1, x_0) is a point: there, any other step stands in for it
    known = q_posterior(x0, x_t, t=t, s=_noisy(s, t))
    kl = normal_kl(known, Normal(jnp.where(last, known.mean, model.mean), model.var))
    density = bins is None
    decoded = _log_density(x0, model) if density else discretized_log_prob(x0, model, bins=bins)
    nats = jnp.where(last, -decoded, kl)
    return event_mean(nats) / math.log(2)


def _noisy(s: NoiseLevel, t: NoiseLevel) -> NoiseLevel:
    """`s` where it has noise, halfway to `t` elsewhere."""
    clean = s.sigma == 0
    return NoiseLevel(*(jnp.where(clean, (a + b) / 2, a) for a, b in zip(s, t, strict=True)))


def _log_density(x: Array, normal: Normal) -> Array:
    return -0.5 * ((x - normal.mean) ** 2 / normal.var + jnp.log(2 * math.pi * normal.var))


def _steps(schedule: Schedule) -> int:
    steps = whole_steps(schedule)
    if not steps:
        raise ValueError(
            "schedule must be a chain, whose bound is a sum over its steps, got a continuous clock:"
            " see continuous_bound"
        )
    return steps
