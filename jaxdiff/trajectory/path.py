"""The path of K steps of least cost, by dynamic programming, one row a step.

    D_k[j] = min_i D_{k-1}[i] + cost[i, j]

What a step costs is the caller's: a term of a variational bound, a discretisation error, anything
of two levels.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.typing import Grid

__all__ = ["LeastCost", "least_cost_path", "thin"]


class LeastCost(NamedTuple):
    """A path through the levels of a grid.

    Attributes:
        path: [K+1], int, the indices of the levels visited, from 0, the noisiest, to N.
        cost: [], the sum along it; inf if there is no path of finite cost.
    """

    path: Array
    cost: Array


def least_cost_path(cost: Array, num_steps: int) -> LeastCost:
    """The path of `num_steps` steps from the first level to the last whose costs sum to the least.

    Args:
        cost: [N+1, N+1], entry [i, j] for the step from level i to level j > i, noisiest first;
            the rest is not looked at. inf forbids a step.
        num_steps: static, K in 1..N.

    Returns:
        A LeastCost. Of equal paths that whose last steps begin at the noisiest levels.

    Raises:
        ValueError: another shape, num_steps outside 1..N, NaN or -inf among the costs, or no
            path of finite cost.

    Source: Watson et al. 2021, arXiv:2106.03802, algorithm 1; Bao et al. 2022, arXiv:2201.06503,
        section 4 and its code.
    """
    cost = arrays.wide_float(cost)
    if cost.ndim != 2 or cost.shape[0] != cost.shape[1] or cost.shape[0] < 2:
        raise ValueError(f"cost must have shape [N+1, N+1] with N >= 1, got {list(cost.shape)}")
    most = cost.shape[0] - 1
    whole = isinstance(num_steps, int | np.integer) and not isinstance(num_steps, bool)
    if not whole or not 1 <= num_steps <= most:
        raise ValueError(f"num_steps must be a whole number in 1..{most}, got {num_steps}")
    upper = np.triu(np.ones(cost.shape, bool), 1)
    numbers = arrays.concrete(cost)
    wrong = None if numbers is None else upper & (np.isnan(numbers) | np.isneginf(numbers))
    if wrong is not None and wrong.any():
        i, j = np.argwhere(wrong)[0]
        raise ValueError(f"cost must hold numbers or inf, got {numbers[i, j]} at [{i}, {j}]")
    found = _least(jnp.where(upper, cost, jnp.inf), int(num_steps))
    total = arrays.concrete(found.cost)
    if total is not None and np.isposinf(total):
        raise ValueError(f"cost forbids every path of {num_steps} steps: all of them are infinite")
    return found


def _least(cost: Array, num_steps: int) -> LeastCost:
    def forwards(best: Array, _: None) -> tuple[Array, Array]:
        through = best[:, None] + cost
        return jnp.min(through, axis=0), jnp.argmin(through, axis=0)

    def backwards(level: Array, came_from: Array) -> tuple[Array, Array]:
        before = came_from[level]
        return before, before

    last = cost.shape[0] - 1
    start = jnp.full_like(cost[0], jnp.inf).at[0].set(0)
    best, came_from = jax.lax.scan(forwards, start, None, length=num_steps)
    _, path = jax.lax.scan(backwards, jnp.asarray(last), came_from, reverse=True)
    return LeastCost(jnp.append(path, last), best[last])


def thin(grid: Grid, path: Array) -> Grid:
    """The grid of the levels that a path visits.

    Args:
        grid: the fine grid.
        path: [K+1], indices of its levels, rising.

    Returns:
        A Grid of K steps.

    Raises:
        ValueError: no whole indices, or such that do not rise or lie outside.
    """
    numbers = arrays.concrete(path)
    if numbers is not None:
        whole = np.issubdtype(numbers.dtype, np.integer)
        inside = whole and numbers.ndim == 1 and numbers.size > 1 and numbers[0] >= 0
        if not inside or numbers[-1] > grid.num_steps or np.any(np.diff(numbers) <= 0):
            raise ValueError(f"path must rise within 0..{grid.num_steps}, got {numbers.tolist()}")
    levels = jax.tree.map(lambda a: a[jnp.asarray(path)], grid.levels)
    return Grid(levels, grid.schedule, grid.prior_std)
