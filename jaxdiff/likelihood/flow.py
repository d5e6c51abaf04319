"""log p(x) by the probability flow: change of variables along dx/dt.

    log p(x) = log N(x_T; 0, prior_std**2 I) + integral of div(dx/dt) dt + D log alpha_start

from x_start = alpha_start x at a time with noise to x_T at the noisy end. It is the log-density of
what the flow generates when it stops at `start` and is divided by alpha there: exact for that,
and the data's own as sigma_start falls far below the detail of the data.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy import stats

from jaxdiff import arrays, sde
from jaxdiff.arrays import event_sum
from jaxdiff.denoiser import Checked
from jaxdiff.divergence import Divergence, exact, is_random, resolve
from jaxdiff.keys import example_keys
from jaxdiff.likelihood.estimate import Estimate
from jaxdiff.likelihood.quantisation import Quantisation, model_units, warn_of_little_noise
from jaxdiff.samplers import spans
from jaxdiff.samplers.adaptive import Integrator, Solution, integrate, integrator
from jaxdiff.schedules import cleanest_time
from jaxdiff.typing import Denoise, Schedule

__all__ = ["log_prob"]

_HOW = integrator("tsit5")
_EXACT = exact()


@arrays.pytree
class WithDivergence:
    """The flow of x together with the integral of its divergence."""

    flow: sde.Flow
    divergence: Divergence
    probes: Any

    def __call__(self, t: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        """(dx/dt [B, ...], div [B, P])."""
        return self.divergence(functools.partial(self.flow, t), state[0], self.probes)


def log_prob(
    key: Array | None,
    denoise: Denoise,
    x: Array,
    schedule: Schedule,
    *,
    divergence: Divergence | str = _EXACT,
    quantisation: Quantisation | None = None,
    draws: int = 1,
    start: Any = None,
    how: Integrator = _HOW,
) -> Estimate:
    """The log-likelihood of examples by the probability-flow ODE.

    Args:
        key: a PRNG key, or [B] keys, one an example, so that a large set in chunks gives the same
            numbers; None where nothing is random.
        denoise: the model.
        x: [B, ...], float in the model's units, or whole numbers with a quantisation.
        schedule: the schedule; `sde.in_sigma_clock` gives another clock.
        divergence: how the trace is taken, an estimator or its name: `exact()`, D Jacobian products
            a call of the solver; `hutchinson(n)`, n; `hutchpp(n)`, 3 n. Of one random probe the
            error has no split.
        quantisation: what x is where it holds whole numbers; None for a density.
        draws: static, of dequantisation; each is a solve of its own.
        start: [], a time with noise; the schedule's `cleanest_time` if None. Networks know only
            times they were trained on; smaller ones are nearer to the data's own density.
        how: the integrator.

    Returns:
        An Estimate with terms "prior" (log-density of x_T) and "volume" (what the flow, alpha and
        the width of bins add).

    Raises:
        ValueError: data or times that cannot be, no key where something is random, or draws
            without a quantisation.
        FloatingPointError: the solve failed, by its status' name; while it is being traced the
            result is NaN instead.

    Warns:
        UserWarning: the prior is narrower than what is left of these data at t_max.

    Source: Chen et al. 2018, arXiv:1806.07366, eq. 8; Song et al. 2021, arXiv:2011.13456, eq. 39.
        Their code counts 8-bit images in [-1, 1] with an offset of 7 bits; ours follows the
        quantisation.
    """
    x, divergence = model_units(x, quantisation), resolve(divergence)
    start, end = spans.ends(how, start, None)
    start = cleanest_time(schedule) if start is None else start
    end = schedule.t_max if end is None else end
    start, end = spans.check(denoise, schedule, x, start, end, noisy=True, rising=True)
    _check(schedule, x, end, draws, quantisation)
    probed = is_random(divergence)
    drawn = probed or quantisation is not None
    keys = example_keys(key if drawn else jax.random.key(0), x.shape[0])
    flow = sde.probability_flow(Checked(arrays.as_pytree(denoise)), schedule)
    one = functools.partial(_one_draw, flow, divergence, quantisation, x, keys, start, end, how)
    prior, volume = zip(*(one(d) for d in range(int(draws))), strict=True)
    terms = {"prior": jnp.stack(prior, axis=1), "volume": jnp.stack(volume, axis=1)}
    return Estimate(terms, x[0].size, quantisation is not None, probed)


def _check(
    schedule: Schedule, x: Array, end: Any, draws: Any, quantisation: Quantisation | None
) -> None:
    arrays.check_count("draws", draws)
    if draws > 1 and quantisation is None:
        raise ValueError(f"draws must be 1 without a quantisation to draw from, got {draws}")
    if not arrays.is_traced((schedule, end)) and not np.isclose(end, schedule.t_max, rtol=1e-6):
        raise ValueError(
            f"steps must end at t_max = {float(schedule.t_max):g}, where the prior stands, got"
            f" {float(end):g}"
        )
    warn_of_little_noise(schedule, x)


def _one_draw(flow, divergence, quantisation, x, keys, start, end, how, d) -> tuple[Array, Array]:
    """(log-density of x_T, what the volume adds), [B, P] each, of one dequantisation."""
    begin = _begin(flow.schedule, divergence, quantisation, x, keys, start, jnp.asarray(d))
    state, probes, offset = begin
    field = WithDivergence(flow, divergence, probes)
    solution: Solution = integrate(field, state, start=start, end=end, how=how)
    x_T, integral = solution.x
    prior = event_sum(stats.norm.logpdf(x_T, scale=jnp.asarray(flow.schedule.prior_std, x.dtype)))
    return jnp.broadcast_to(prior[:, None], integral.shape), integral + offset


@jax.jit
def _begin(schedule, divergence, quantisation, x, keys, start, d):
    """The augmented state at start, the probes, and what units add to the log-density."""
    draw_keys = jax.vmap(lambda key: jax.random.fold_in(key, d))(keys)
    noise_keys, probe_keys = jax.vmap(jax.random.split, out_axes=1)(draw_keys)
    alpha = schedule(jnp.asarray(start, x.dtype)).alpha
    offset = x[0].size * jnp.log(alpha)
    if quantisation is not None:
        x = quantisation.dequantise(noise_keys, x)
        offset = offset + x[0].size * jnp.log(jnp.asarray(quantisation.width, x.dtype))
    probes = divergence.draw(probe_keys, x.shape, x.dtype)
    state = alpha * x, jnp.zeros((x.shape[0], divergence.values), x.dtype)
    return state, probes, offset
