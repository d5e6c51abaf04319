"""Grids of the whole steps of a chain, as the literature rounds them."""

import jax.numpy as jnp
import numpy as np

from jaxdiff import arrays
from jaxdiff.arrays import check_range
from jaxdiff.grids.build import count_levels, from_steps, make_grid
from jaxdiff.schedules import cleanest_time, whole_steps
from jaxdiff.typing import CLEAN, Grid, NoiseLevel, Schedule

__all__ = ["leading", "linspace", "quadratic", "trailing"]


def leading(schedule: Schedule, num_steps: int, *, offset: int = 0, end=CLEAN) -> Grid:
    """Every (N // K)-th step counted from the clean side; the noisiest step is left out.

        n = 1 + offset + (N // K) k,    k = K-1, ..., 0

    Args:
        schedule: a `from_betas` schedule of N steps.
        num_steps: K in 1..N.
        offset: whole steps added to each (Stable Diffusion uses 1).
        end: the level appended, or None.

    Returns:
        A Grid.

    Raises:
        ValueError: another schedule, K outside 1..N, or an offset that leads off the chain.

    Source: Song et al. 2021 (DDIM), arXiv:2010.02502, and its code.
    """
    count = count_levels(num_steps, end)
    total = _chain(schedule, count, "leading")
    steps = np.arange(count)[::-1] * (total // count) + 1 + offset
    return from_steps(schedule, steps, end=end)


def trailing(schedule: Schedule, num_steps: int, *, end: NoiseLevel | None = CLEAN) -> Grid:
    """Even steps counted from the noisy side; the noisiest step is always visited.

        n = round(N - k N / K),    k = 0, ..., K-1

    Args, Returns and Raises as for `leading`.

    Source: Lin et al. 2023, arXiv:2305.08891, table 2.
    """
    count = count_levels(num_steps, end)
    total = _chain(schedule, count, "trailing")
    return from_steps(schedule, np.round(total - np.arange(count) * total / count), end=end)


def linspace(schedule: Schedule, num_steps: int, *, end: NoiseLevel | None = CLEAN) -> Grid:
    """Even steps with both ends of the chain, rounded, halves to even.

        n = round(1 + (N - 1) (K - 1 - k) / (K - 1)),    k = 0, ..., K-1

    Args, Returns and Raises as for `leading`. A single step is the noisiest one.

    Source: Bao et al. 2022, arXiv:2201.06503, section 4 and its code; Nichol and Dhariwal 2021,
        arXiv:2102.09672, round the zero-based index, which differs by one at exact halves.
    """
    count = count_levels(num_steps, end)
    total = _chain(schedule, count, "linspace")
    if count == 1:
        return from_steps(schedule, [total], end=end)
    # their very floats, so that exact halves round as theirs do
    steps = np.round(1 + (total - 1) / (count - 1) * np.arange(count))
    return from_steps(schedule, steps[::-1], end=end)


def quadratic(
    schedule: Schedule, num_steps: int, *, fraction: float = 0.8, end: NoiseLevel | None = CLEAN
) -> Grid:
    """Evenly spaced in sqrt(t): more steps at low noise, DDIM's "quad".

        t_k = t_0 + (k / (K - 1))**2 fraction t_max,    floored to whole steps on a chain

    The noisiest level is about `fraction` of the clock, as in the authors' code. Floored steps
    that coincide are visited once: the authors' repeats change nothing, so fewer steps remain.

    Args:
        schedule: the schedule; t_0 is its `cleanest_time`.
        num_steps: K >= 1.
        fraction: in (0, 1].
        end: the level appended, or None.

    Returns:
        A Grid.

    Raises:
        ValueError: num_steps < 1, fraction outside (0, 1].

    Source: Song et al. 2021 (DDIM), arXiv:2010.02502, appendix D.2, and its code.
    """
    check_range("fraction", fraction, 0, 1, "(]")
    count = count_levels(num_steps, end)
    if whole_steps(schedule):
        total = _chain(schedule, count, "quadratic")
        roots = np.linspace(0, np.sqrt(fraction * total), count)[::-1] if count > 1 else [total]
        steps = np.unique(np.minimum(np.floor(np.square(roots)) + 1, total))
        return from_steps(schedule, steps[::-1], end=end)
    first = cleanest_time(schedule)
    roots = jnp.linspace(1, 0, count, dtype=arrays.float_dtype())
    span = jnp.minimum(fraction * schedule.t_max, schedule.t_max - first)
    return make_grid(schedule(first + roots**2 * span), schedule, end, schedule.prior_std)


def _chain(schedule: Schedule, num_steps: int, name: str) -> int:
    """N of a chain, which the whole-step grids need."""
    total = whole_steps(schedule)
    if total is None:
        raise ValueError(
            f"{name} spaces the whole steps of a chain and needs a from_betas schedule, got"
            f" {type(schedule).__name__}; use uniform, uniform_log_snr or karras"
        )
    if num_steps > total:
        raise ValueError(f"num_steps must be at most the chain's {total}, got {num_steps}")
    return total
