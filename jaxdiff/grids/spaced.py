"""Grids evenly spaced in a coordinate of the path: t, log SNR, or a root of sigma / alpha."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import arrays
from jaxdiff.arrays import check_range
from jaxdiff.grids.build import count_levels, make_grid
from jaxdiff.schedules import cleanest_time
from jaxdiff.typing import CLEAN, Grid, NoiseLevel, Schedule

__all__ = ["karras", "uniform", "uniform_log_snr"]


def uniform(
    schedule: Schedule, num_steps: int, *, t_first=None, end: NoiseLevel | None = CLEAN
) -> Grid:
    """Evenly spaced in the schedule's own clock t.

        t_k = t_first + (t_min - t_first) k / K,    the last level being `end`

    Args:
        schedule: the schedule.
        num_steps: K >= 1.
        t_first: where it begins; t_max if None. Below t_max it leaves out zero terminal SNR.
        end: the last level; None keeps the schedule's own level at t_min, if it is noisy, and
            else stops at the cleanest noisy time.

    Returns:
        A Grid of K steps.

    Raises:
        ValueError: num_steps < 1, or a t_first that the schedule does not reach.
    """
    count = count_levels(num_steps, end)
    last = cleanest_time(schedule) if end is None else schedule.t_min
    nodes = num_steps + 1
    first = schedule.t_max if t_first is None else t_first
    _check_span(schedule, first, last)
    t = jnp.linspace(first, last, nodes, dtype=arrays.float_dtype())
    return make_grid(schedule(t[:count]), schedule, end, schedule.prior_std)


def uniform_log_snr(
    schedule: Schedule, num_steps: int, *, t_first=None, t_last=None, end: NoiseLevel | None = CLEAN
) -> Grid:
    """Evenly spaced in log SNR, the natural clock of DPM-Solver.

    Args:
        schedule: the schedule; if alpha(t_first) = 0 the first level is t_first itself
            and the spacing begins at 0.999 t_first.
        num_steps: K >= 1.
        t_first: where it begins; t_max if None. Below t_max it leaves out zero terminal SNR.
        t_last: the cleanest noisy time; `cleanest_time(schedule)` if None.
        end: the level appended; None to stop at t_last.

    Returns:
        A Grid of K steps.

    Raises:
        ValueError: num_steps < 1, or times that the schedule does not reach.

    Source: Lu et al. 2022, arXiv:2206.00927, section 3.4.
    """
    count = count_levels(num_steps, end)
    t_first = schedule.t_max if t_first is None else t_first
    t_last = cleanest_time(schedule) if t_last is None else t_last
    t = _spaced(schedule, count, t_first, t_last, lambda log_snr: log_snr, lambda y: y)
    return make_grid(schedule(t), schedule, end, schedule.prior_std)


def karras(
    schedule: Schedule,
    num_steps: int,
    *,
    rho=7.0,
    t_first=None,
    t_last=None,
    end: NoiseLevel | None = CLEAN,
) -> Grid:
    """Evenly spaced in a root of the noise-to-signal ratio, EDM's choice.

        (sigma / alpha)_k**(1 / rho)  is linear in k

    Args:
        schedule: the schedule, as for `uniform_log_snr`.
        num_steps: K >= 1.
        rho: > 0; larger spends more steps at low noise.
        t_first: where it begins; t_max if None. Below t_max it leaves out zero terminal SNR.
        t_last: the cleanest noisy time; `cleanest_time(schedule)` if None.
        end: the level appended; None to stop at t_last.

    Returns:
        A Grid of K steps.

    Raises:
        ValueError: num_steps < 1, rho <= 0, or times that the schedule does not reach.

    Source: Karras et al. 2022, arXiv:2206.00364, eq. 5.
    """
    check_range("rho", rho, 0, np.inf, "()")
    count = count_levels(num_steps, end)
    t_first = schedule.t_max if t_first is None else t_first
    t_last = cleanest_time(schedule) if t_last is None else t_last
    t = _spaced(
        schedule,
        count,
        t_first,
        t_last,
        lambda log_snr: jnp.exp(-0.5 * log_snr / rho),
        lambda y: -2 * rho * jnp.log(y),
    )
    return make_grid(schedule(t), schedule, end, schedule.prior_std)


def _spaced(schedule: Schedule, count: int, t_first, t_last, forward, inverse) -> jax.Array:
    """`count` times from t_first to t_last, even in forward(log_snr); the ends exact."""
    _check_span(schedule, t_first, t_last)
    dtype = arrays.float_dtype()
    t_first, t_last = (jnp.asarray(t, dtype) for t in (t_first, t_last))
    if count == 1:
        return t_first[None]
    silent = schedule(t_first).alpha <= 0  # log SNR is -inf there: space from just inside
    start = jnp.where(silent, 0.999 * t_first, t_first)
    first, last = (forward(schedule(t).log_snr) for t in (start, t_last))
    t = schedule.time(inverse(jnp.linspace(first, last, count, dtype=dtype)))
    return jnp.concatenate([t_first[None], t[1:-1], t_last[None]])


def _check_span(schedule: Schedule, t_first, t_last) -> None:
    """Raises where a concrete end lies off the clock, or the two are the wrong way round."""
    low, high = (arrays.concrete(t) for t in (schedule.t_min, schedule.t_max))
    if low is None or high is None:
        return
    slack = 1e-6 * float(np.max(high))  # the float32 image of an end of the clock
    check_range("t_first", t_first, float(np.min(low)), float(np.max(high)) + slack)
    first = arrays.concrete(t_first)
    if first is not None:
        check_range("t_last", t_last, float(np.min(low)) - slack, float(np.max(first)) + slack)
