"""From second moments of a model to its grid of K steps."""

import math
import warnings
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.reverse import Moments, analytic
from jaxdiff.trajectory.costs import analytic_costs
from jaxdiff.trajectory.path import least_cost_path, thin
from jaxdiff.typing import Grid

__all__ = ["optimal_grid"]


def optimal_grid(
    moments: Moments,
    grid: Grid,
    num_steps: int,
    *,
    by: Literal["eps", "x0", "residual"] = "eps",
    data_range: tuple[Any, Any] | None = None,
) -> Grid:
    """The K of N steps for which the bound with the analytic variance is the tightest.

    Levels where moments contradict any exact mean, E |eps_hat|**2 / d > 1, have no cost; near the
    noisy end the error of the estimate is enough for that, unless by = "residual".
    With n such levels, counted from the cleanest of them on to the noisy end, the noisiest 2 n
    levels are visited evenly instead, by K - ceil((1 - 0.8 (2 n / N)) K) steps, at least one, and
    the least-cost path is that of the rest.

    Args:
        moments: from `second_moments`.
        grid: their levels and a clean end.
        num_steps: static, K in 1..N. K = N is the whole grid, K = 1 its noisiest level.
        by: the estimator, as in `reverse.analytic`; by "x0" a level is without cost where its
            covariance is negative, by "residual" none is.
        data_range: as in `reverse.analytic`.

    Returns:
        A Grid of K steps. While moments are being traced all levels have costs.

    Raises:
        ValueError: num_steps outside 1..N, or a grid of other levels than the moments'.

    Warns:
        UserWarning: levels without cost.

    Source: Bao et al. 2022, arXiv:2201.06503, section 4, and its code for what is above 1, which
        stops where more than half of the levels are; here the cleanest level stays.
    """
    total, num_steps = _check(moments, grid, num_steps), int(num_steps)
    cost = analytic_costs(analytic(moments, by=by, data_range=data_range), grid)
    bad = _costless(moments, by)
    if bad and 1 < num_steps < total:
        _, even = _shares(total, num_steps, bad)
        warnings.warn(
            f"{_REASONS[by]}, as of no exact mean, at t ="
            f" {np.asarray(moments.levels.t)[bad - 1]:g}: of {num_steps} steps {even} are spread"
            f" evenly over the noisiest {min(2 * bad, total - 1)} of {total} levels; more examples"
            " may mend it, and by residual every level has a cost",
            stacklevel=2,
        )
    return thin(grid, _path(cost, num_steps, bad))


_REASONS = {
    "eps": "the mean square of eps is above 1",
    "x0": "the estimates of x_0 vary more than x_0",
}


def _costless(moments: Moments, by: str) -> int:
    """How many of the noisiest levels reach to the cleanest one whose covariance is negative."""
    cov = arrays.concrete(moments.cov(by)[0])
    if cov is None or not (cov < 0).any():
        return 0
    return int(np.flatnonzero(cov < 0)[-1]) + 1


def _path(cost: Array, num_steps: int, bad: int) -> Array:
    """The levels visited, where the noisiest 2 `bad` have no cost."""
    total = cost.shape[0] - 1
    if num_steps == 1:
        return jnp.array([0, total])
    uneven, even = _shares(total, num_steps, bad)
    apart = min(2 * bad, total - 1)
    # counted as the paper does, 1 the cleanest level, so that halves round to its levels
    head = [total - round(total - apart / even * k) for k in range(even)]
    if uneven == 1:
        return jnp.array([*head, total - 1, total])
    tail = least_cost_path(cost[apart:, apart:], uneven).path + apart
    return jnp.concatenate([jnp.array(head, tail.dtype), tail])


def _shares(total: int, num_steps: int, bad: int) -> tuple[int, int]:
    """How many steps lie on the least-cost path, and how many evenly on levels without cost."""
    if not bad:
        return num_steps, 0
    apart = min(2 * bad, total - 1)
    uneven = math.ceil((1 - 0.8 * apart / total) * num_steps)
    # as many as there are levels, and one at least on either side
    uneven = min(uneven, total - apart, num_steps - 1)
    uneven = max(uneven, num_steps - apart, 1)
    return uneven, num_steps - uneven


def _check(moments: Moments, grid: Grid, num_steps: int) -> int:
    """N, having looked at what is given."""
    total = grid.num_steps
    arrays.check_count("num_steps", num_steps)
    if num_steps > total:
        raise ValueError(f"num_steps must be at most {total}, the levels given, got {num_steps}")
    if arrays.is_traced((moments.levels, grid.levels)):
        return total
    pair = grid.pairs[0], moments.levels
    mine, theirs = (np.stack([level.alpha, level.sigma]) for level in pair)
    if mine.shape != theirs.shape or not np.allclose(mine, theirs, rtol=1e-5, atol=1e-7):
        raise ValueError(
            f"grid must hold the levels of the moments, {theirs.shape[-1]} noisy ones and a clean"
            f" end, got {total} others"
        )
    if grid.levels.sigma[-1] > 0:
        raise ValueError("grid must end clean")
    return total
