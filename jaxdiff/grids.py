"""Grids: which levels a sampler visits, noisiest first. Each names the coordinate it spaces.

    uniform          t, down to the clean end of the clock
    uniform_log_snr  log SNR
    karras           (sigma / alpha)**(1 / rho), never t
    quadratic        sqrt(t)
    leading, trailing, linspace    whole steps of a chain, as the literature rounds them
    from_steps, from_levels        what you give

K steps are K+1 levels. The last is `end`, the level of data itself, unless `end=None`, where the
grid stops at its cleanest noisy level. A step of N-step DDPM is the pair (n, n - 1) and respacing
is a shorter grid: samplers only ever see pairs.

`pad` repeats the clean end, which samplers pass over, so that grids of different lengths stack.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import arrays
from jaxdiff.arrays import check_range
from jaxdiff.schedules import cleanest_time, whole_steps
from jaxdiff.typing import CLEAN, Grid, NoiseLevel, Schedule

__all__ = [
    "from_levels",
    "from_steps",
    "karras",
    "leading",
    "linspace",
    "pad",
    "quadratic",
    "trailing",
    "uniform",
    "uniform_log_snr",
]


def from_levels(levels: NoiseLevel, *, end: NoiseLevel | None = CLEAN, prior_std=1.0) -> Grid:
    """A grid of levels given as numbers, on no schedule.

    Args:
        levels: fields [K] (or [K+1] if they hold their own clean end), noisiest first.
        end: the level appended, unless the last one given is already clean (under tracing it
            always is appended); None to append none.
        prior_std: the deviation of x_T.

    Returns:
        A Grid without a schedule.

    Raises:
        ValueError: fields of unequal shape or wrong rank, levels that do not get cleaner,
            negative or NaN scales.
    """
    fields = [jnp.atleast_1d(jnp.asarray(field, arrays.float_dtype())) for field in levels]
    if len({field.shape for field in fields}) != 1 or fields[0].ndim != 1 or not fields[0].size:
        shapes = [list(field.shape) for field in fields]
        raise ValueError(f"levels must have equal shapes [K], K >= 1, got t, alpha, sigma {shapes}")
    return _grid(NoiseLevel(*fields), None, end, prior_std)


def from_steps(schedule: Schedule, steps, *, end: NoiseLevel | None = CLEAN) -> Grid:
    """A grid of given times of a schedule.

    Args:
        schedule: the schedule.
        steps: [K], times on its clock, noisiest first (for a chain, n = 1..N: the literature's
            zero-based index plus 1).
        end: the level appended, unless the last step is already clean; None to append none.

    Returns:
        A Grid.

    Raises:
        ValueError: no steps, wrong rank, a time off the clock, or times that do not fall.
    """
    steps = jnp.asarray(steps, arrays.float_dtype())
    if steps.ndim != 1 or steps.size == 0:
        raise ValueError(f"steps must have shape [K] with K >= 1, got {list(steps.shape)}")
    _check_falling("steps", steps)
    low, high = (arrays.concrete(v) for v in (schedule.t_min, schedule.t_max))
    if low is not None and high is not None:
        slack = 1e-6 * float(np.max(high))  # the float32 image of an end of the clock
        check_range("steps", steps, min(0.0, float(np.min(low))), float(np.max(high)) + slack)
    return _grid(schedule(steps), schedule, end, schedule.prior_std)


def _grid(levels: NoiseLevel, schedule: Schedule | None, end: NoiseLevel | None, prior_std) -> Grid:
    """Appends the end and checks what is concrete."""
    sigma = arrays.concrete(levels.sigma)
    if end is not None and (sigma is None or sigma[-1] > 0):
        levels = jax.tree.map(lambda a, b: jnp.append(a, jnp.asarray(b, a.dtype)), levels, end)
    if levels.t.shape[0] < 2:
        raise ValueError("a grid needs at least one step: two levels, got one")
    _check_levels(levels)
    return Grid(levels, schedule, prior_std)


def _check_levels(levels: NoiseLevel) -> None:
    for name, field in (("levels.alpha", levels.alpha), ("levels.sigma", levels.sigma)):
        check_range(name, field, 0, np.inf, "[)")
    alpha, sigma = arrays.concrete(levels.alpha), arrays.concrete(levels.sigma)
    if alpha is None or sigma is None:
        return
    if np.any(sigma[:-1] <= 0):
        raise ValueError(f"only the last level may be clean, got sigma = 0 at {sigma.argmin()}")
    if np.any((alpha <= 0) & (sigma <= 0)):
        raise ValueError("levels must hold signal or noise, got alpha = sigma = 0")
    with np.errstate(divide="ignore"):
        ratio = np.log(sigma.astype(np.float64)) - np.log(alpha.astype(np.float64))
    _check_falling("levels (as log(sigma / alpha))", ratio)


def _check_falling(name: str, values: Any) -> None:
    numbers = arrays.concrete(values)
    if numbers is None:
        return
    wrong = np.flatnonzero(~(numbers[1:] < numbers[:-1]))
    if wrong.size:
        k = int(wrong[0])
        raise ValueError(
            f"{name} must fall, noisiest first, got [{k + 1}] = {numbers[k + 1]:g}"
            f" after [{k}] = {numbers[k]:g}"
        )


def _count(num_steps: int, end: NoiseLevel | None) -> int:
    """How many noisy levels make `num_steps` steps."""
    if isinstance(num_steps, bool) or int(num_steps) != num_steps or num_steps < 1:
        raise ValueError(f"num_steps must be a whole number >= 1, got {num_steps}")
    return int(num_steps) + (end is None)


def uniform(schedule: Schedule, num_steps: int, *, end: NoiseLevel | None = CLEAN) -> Grid:
    """Evenly spaced in the schedule's own clock t.

        t_k = t_max + (t_min - t_max) k / K,    the last level being `end`

    Args:
        schedule: the schedule.
        num_steps: K >= 1.
        end: the last level; None keeps the schedule's own level at t_min, if it is noisy, and
            else stops at the cleanest noisy time.

    Returns:
        A Grid of K steps.

    Raises:
        ValueError: num_steps < 1.
    """
    count = _count(num_steps, end)
    last = cleanest_time(schedule) if end is None else schedule.t_min
    nodes = num_steps + 1
    t = jnp.linspace(schedule.t_max, last, nodes, dtype=arrays.float_dtype())
    return _grid(schedule(t[:count]), schedule, end, schedule.prior_std)


def uniform_log_snr(
    schedule: Schedule, num_steps: int, *, t_last=None, end: NoiseLevel | None = CLEAN
) -> Grid:
    """Evenly spaced in log SNR, the natural clock of DPM-Solver.

    Args:
        schedule: the schedule; if alpha(t_max) = 0 the first level is t_max itself and the
            spacing begins at 0.999 t_max.
        num_steps: K >= 1.
        t_last: the cleanest noisy time; `cleanest_time(schedule)` if None.
        end: the level appended; None to stop at t_last.

    Returns:
        A Grid of K steps.

    Raises:
        ValueError: num_steps < 1.

    Source: Lu et al. 2022, arXiv:2206.00927, section 3.4.
    """
    count = _count(num_steps, end)
    t_last = cleanest_time(schedule) if t_last is None else t_last
    t = _spaced(schedule, count, t_last, lambda log_snr: log_snr, lambda y: y)
    return _grid(schedule(t), schedule, end, schedule.prior_std)


def karras(
    schedule: Schedule, num_steps: int, *, rho=7.0, t_last=None, end: NoiseLevel | None = CLEAN
) -> Grid:
    """Evenly spaced in a root of the noise-to-signal ratio, EDM's choice.

        (sigma / alpha)_k**(1 / rho)  is linear in k

    Args:
        schedule: the schedule, as for `uniform_log_snr`.
        num_steps: K >= 1.
        rho: > 0; larger spends more steps at low noise.
        t_last: the cleanest noisy time; `cleanest_time(schedule)` if None.
        end: the level appended; None to stop at t_last.

    Returns:
        A Grid of K steps.

    Raises:
        ValueError: num_steps < 1 or rho <= 0.

    Source: Karras et al. 2022, arXiv:2206.00364, eq. 5.
    """
    check_range("rho", rho, 0, np.inf, "()")
    count = _count(num_steps, end)
    t_last = cleanest_time(schedule) if t_last is None else t_last
    t = _spaced(
        schedule,
        count,
        t_last,
        lambda log_snr: jnp.exp(-0.5 * log_snr / rho),
        lambda y: -2 * rho * jnp.log(y),
    )
    return _grid(schedule(t), schedule, end, schedule.prior_std)


def _spaced(schedule: Schedule, count: int, t_last, forward, inverse) -> jax.Array:
    """`count` times from t_max to t_last, even in forward(log_snr); the ends exact."""
    dtype = arrays.float_dtype()
    t_max, t_last = (jnp.asarray(t, dtype) for t in (schedule.t_max, t_last))
    if count == 1:
        return t_max[None]
    silent = schedule(t_max).alpha <= 0  # log SNR is -inf there: space from just inside
    start = jnp.where(silent, 0.999 * t_max, t_max)
    first, last = (forward(schedule(t).log_snr) for t in (start, t_last))
    t = schedule.time(inverse(jnp.linspace(first, last, count, dtype=dtype)))
    return jnp.concatenate([t_max[None], t[1:-1], t_last[None]])


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
    count = _count(num_steps, end)
    total = _chain(schedule, count, "leading")
    steps = np.arange(count)[::-1] * (total // count) + 1 + offset
    return from_steps(schedule, steps, end=end)


def trailing(schedule: Schedule, num_steps: int, *, end: NoiseLevel | None = CLEAN) -> Grid:
    """Even steps counted from the noisy side; the noisiest step is always visited.

        n = round(N - k N / K),    k = 0, ..., K-1

    Args, Returns and Raises as for `leading`.

    Source: Lin et al. 2023, arXiv:2305.08891, table 2.
    """
    count = _count(num_steps, end)
    total = _chain(schedule, count, "trailing")
    return from_steps(schedule, np.round(total - np.arange(count) * total / count), end=end)


def linspace(schedule: Schedule, num_steps: int, *, end: NoiseLevel | None = CLEAN) -> Grid:
    """Even steps with both ends of the chain, rounded, halves to even.

        n = round(1 + (N - 1) (K - 1 - k) / (K - 1)),    k = 0, ..., K-1

    Args, Returns and Raises as for `leading`. A single step is the noisiest one.

    Source: Bao et al. 2022, arXiv:2201.06503, section 4 and its code; Nichol and Dhariwal 2021,
        arXiv:2102.09672, round the zero-based index, which differs by one at exact halves.
    """
    count = _count(num_steps, end)
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
    count = _count(num_steps, end)
    if whole_steps(schedule):
        total = _chain(schedule, count, "quadratic")
        roots = np.linspace(0, np.sqrt(fraction * total), count)[::-1] if count > 1 else [total]
        steps = np.unique(np.minimum(np.floor(np.square(roots)) + 1, total))
        return from_steps(schedule, steps[::-1], end=end)
    first = cleanest_time(schedule)
    roots = jnp.linspace(1, 0, count, dtype=arrays.float_dtype())
    span = jnp.minimum(fraction * schedule.t_max, schedule.t_max - first)
    return _grid(schedule(first + roots**2 * span), schedule, end, schedule.prior_std)


def pad(grid: Grid, num_steps: int) -> Grid:
    """Lengthens a grid by repeating its clean end, over which samplers pass.

    Args:
        grid: a grid with a clean end.
        num_steps: K of the result, at least the grid's.

    Returns:
        A Grid of `num_steps` steps; padded grids of one length stack with
        `jax.tree.map(lambda *a: jnp.stack(a), *grids)` and `vmap` together.

    Raises:
        ValueError: num_steps below the grid's, or a grid that ends in noise.
    """
    more = num_steps - grid.num_steps
    if more < 0:
        raise ValueError(f"num_steps must be at least the grid's {grid.num_steps}, got {num_steps}")
    sigma = arrays.concrete(grid.levels.sigma)
    if sigma is not None and sigma[-1] > 0:
        raise ValueError(
            f"only a clean end can be repeated, the grid ends at sigma = {sigma[-1]:g}"
        )
    repeat = lambda a: jnp.concatenate([a, jnp.repeat(a[-1:], more)])  # noqa: E731
    return Grid(jax.tree.map(repeat, grid.levels), grid.schedule, grid.prior_std)
