"""Grids of what you give: levels, times of a schedule, padding; and the checks of every grid."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import arrays
from jaxdiff.arrays import check_range
from jaxdiff.typing import CLEAN, Grid, NoiseLevel, Schedule

__all__ = ["count_levels", "from_levels", "from_steps", "make_grid", "pad"]


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
    return make_grid(NoiseLevel(*fields), None, end, prior_std)


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
    given, steps = steps, jnp.asarray(steps, arrays.float_dtype())
    if steps.ndim != 1 or steps.size == 0:
        raise ValueError(f"steps must have shape [K] with K >= 1, got {list(steps.shape)}")
    _check_falling("steps", given)
    low, high = (arrays.concrete(v) for v in (schedule.t_min, schedule.t_max))
    if low is not None and high is not None:
        slack = 1e-6 * float(np.max(high))  # the float32 image of an end of the clock
        check_range("steps", given, min(0.0, float(np.min(low))), float(np.max(high)) + slack)
    return make_grid(schedule(steps), schedule, end, schedule.prior_std)


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


def make_grid(
    levels: NoiseLevel, schedule: Schedule | None, end: NoiseLevel | None, prior_std
) -> Grid:
    """Appends the end and checks what is concrete."""
    if schedule is not None and not arrays.is_pytree(schedule):
        raise TypeError(
            "schedule must be a pytree, so that it passes through jit: decorate"
            f" {type(schedule).__name__} with jaxdiff.arrays.pytree"
        )
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


def count_levels(num_steps: int, end: NoiseLevel | None) -> int:
    """How many noisy levels make `num_steps` steps."""
    if isinstance(num_steps, bool) or int(num_steps) != num_steps or num_steps < 1:
        raise ValueError(f"num_steps must be a whole number >= 1, got {num_steps}")
    return int(num_steps) + (end is None)
