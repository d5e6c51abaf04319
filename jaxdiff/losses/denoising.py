"""The loss that trains a denoiser: noise the data, ask the network, weight its squared error."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxdiff.arrays import check_range, event_mean
from jaxdiff.denoiser import Denoiser, null_cond
from jaxdiff.gaussian import q_sample
from jaxdiff.losses.times import Times, log_snr_rate, uniform
from jaxdiff.losses.weights import Weight, on_output, simple
from jaxdiff.parametrization import target
from jaxdiff.typing import Schedule

__all__ = ["denoising", "drop_cond"]


def denoising(
    key: Array,
    denoiser: Denoiser,
    x0: Array,
    schedule: Schedule,
    *,
    cond: Any = None,
    cond_dropout: Any = 0.0,
    times: Times = uniform,
    weight: Weight = simple,
    train: bool = True,
) -> tuple[Array, dict[str, Array]]:
    """The weighted denoising loss of a batch.

        mean_i importance_i w(t_i) mean over pixels of (y(x_t, t_i) - (a x_0 + b eps))**2

    This is denoising score matching: with score = -eps / sigma, the error of eps is sigma times
    that of the score against the score -eps / sigma of q(x_t | x_0), so weight `simple` is Song
    et al.'s default sigma**2, and `vlb` half their likelihood weight g**2, since
    g**2 / sigma**2 = -d log_snr / dt. What it differs by from the Fisher divergence does not
    depend on the model.

    Args:
        key: for times, noise, conditioning dropout and dropout in the network.
        denoiser: a `Denoiser`; gradients flow to its params.
        x0: [B, ...], float, the data.
        schedule: the schedule.
        cond: labels [B] (int) or vectors [B, D] (float), or a pytree of such; None keeps the
            denoiser's own.
        cond_dropout: [], in [0, 1], the probability with which an example trains without its
            condition: labels become -1 and vectors 0, which networks take as none. Or a pytree
            like `cond` of a probability for each part; parts of equal ones are hidden together.
        times: the time sampler.
        weight: the weight, on whichever error it states.
        train: whether dropout in the network is active.

    Returns:
        (loss [], {"per_example": [B] weighted losses with importance, "weighted": [B] without,
        "t": [B]}).

    Raises:
        ValueError: integer or half-precision data, an empty batch or one without an event axis,
            cond_dropout outside [0, 1], a condition of another length or that the network does
            not take.
        TypeError: a denoiser that has no `raw`.

    Source: Ho et al. 2020, arXiv:2006.11239, algorithm 1; weights by Kingma and Gao 2023,
        arXiv:2303.00848; Vincent 2011, doi:10.1162/NECO_a_00142, and Song et al. 2021,
        arXiv:2011.13456, eq. 7, for the score.
    """
    _check(denoiser, x0, cond, cond_dropout)
    key_t, key_noise, key_net, key_cond = jax.random.split(key, 4)
    if cond is not None:
        denoiser = denoiser.with_cond(drop_cond(key_cond, cond, cond_dropout))
    t, importance = times(key_t, x0.shape[0], schedule)
    level, rate = schedule(t), log_snr_rate(schedule, t)
    noise = jax.random.normal(key_noise, x0.shape, x0.dtype)
    y = denoiser.raw(q_sample(x0, noise, level), level, key=key_net, train=train)
    y = y[..., : x0.shape[-1]].astype(x0.dtype)
    error = y - target(denoiser.parametrization, x0, noise, level)
    scale = on_output(weight(level, rate), denoiser.parametrization, level).astype(x0.dtype)
    weighted = scale * event_mean(error**2)
    per_example = importance.astype(x0.dtype) * weighted
    return jnp.mean(per_example), {"per_example": per_example, "weighted": weighted, "t": t}


def drop_cond(key: Array, cond: Any, rate: Any) -> Any:
    """Hides the condition of each example with probability `rate`.

    Args:
        key: a PRNG key.
        cond: a pytree of [B, ...] arrays; hidden ones become their `denoiser.null_cond`.
        rate: [], in [0, 1]; or a pytree like `cond` of such.

    Returns:
        cond with some examples hidden, parts of equal rates together.

    Source: Ho and Salimans 2022, arXiv:2207.12598, algorithm 1.
    """
    leaves = jax.tree.leaves(cond)
    chance = jax.random.uniform(key, leaves[0].shape[:1])
    if jax.tree.structure(rate).num_leaves == 1:
        rate = jax.tree.map(lambda _: jax.tree.leaves(rate)[0], cond)

    def hide(leaf: Array, null: Array, rate: Any) -> Array:
        hidden = (chance < rate).reshape(-1, *[1] * (null.ndim - 1))
        return jnp.where(hidden, null, leaf.astype(null.dtype))

    return jax.tree.map(hide, cond, null_cond(cond), rate)


def _check(denoiser: Any, x0: Array, cond: Any, cond_dropout: Any) -> None:
    if not hasattr(denoiser, "raw"):
        raise TypeError(f"denoiser must come from make_denoiser, got {type(denoiser).__name__}")
    if x0.dtype not in (jnp.float32, jnp.float64):
        raise ValueError(
            "x0 must be float32 or float64, scaled to the range the model shall draw (networks"
            f" have a compute dtype of their own), got {x0.dtype}"
        )
    if x0.ndim < 2 or x0.size == 0:
        raise ValueError(f"x0 must have shape [B, ...] with B >= 1, got {list(x0.shape)}")
    for rate in jax.tree.leaves(cond_dropout):
        check_range("cond_dropout", rate, 0, 1)
    for leaf in jax.tree.leaves(cond):
        if jnp.shape(leaf)[:1] != x0.shape[:1]:
            raise ValueError(
                f"cond must have one entry an example, {x0.shape[0]}, got shape {jnp.shape(leaf)}"
            )
