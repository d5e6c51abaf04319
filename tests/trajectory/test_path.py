"""The least-cost path against enumeration and closed forms."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import grids, schedules
from jaxdiff.trajectory import least_cost_path, pairwise_costs, thin

pytestmark = pytest.mark.usefixtures("strict")


@pytest.mark.parametrize("num_steps", range(1, 9))
def test_is_the_best_of_all_paths(num_steps, x64):
    """Random costs, some of them forbidden: every path of K steps through 8 levels."""
    rng = np.random.default_rng(num_steps)
    cost = rng.normal(size=(9, 9))
    cost[rng.uniform(size=cost.shape) < 0.2] = np.inf
    cost[np.arange(8), np.arange(1, 9)] = 1.0  # so that there is a path
    paths = [(0, *inner, 8) for inner in itertools.combinations(range(1, 8), num_steps - 1)]
    totals = [sum(cost[i, j] for i, j in itertools.pairwise(path)) for path in paths]
    if np.isinf(min(totals)):
        with pytest.raises(ValueError, match=f"forbids every path of {num_steps}"):
            least_cost_path(cost, num_steps)
        return
    found = jax.jit(least_cost_path, static_argnums=1)(jnp.asarray(cost), num_steps)
    np.testing.assert_array_equal(found.path, paths[int(np.argmin(totals))])
    np.testing.assert_allclose(found.cost, min(totals), rtol=1e-14)  # the order of 8 additions


@pytest.mark.slow
def test_convex_costs_are_spaced_evenly():
    """sum (n_{i+1} - n_i)**2 is least for equal steps, N**2 / K; at the size that is used."""
    n = np.arange(1001.0)
    cost = (n[None, :] - n[:, None]) ** 2
    for num_steps in (10, 50, 1000):
        found = least_cost_path(cost, num_steps)
        np.testing.assert_array_equal(found.path, np.linspace(0, 1000, num_steps + 1))
        assert float(found.cost) == 1000**2 / num_steps


@pytest.mark.slow
def test_padding_costs_nothing_and_is_not_visited():
    """A padded grid's least-cost path is the grid's own, then its clean end."""
    grid = grids.uniform(schedules.linear_vp(), 5)
    of = lambda g: pairwise_costs(lambda t, s: (s.t - t.t) ** 2, g)  # noqa: E731
    found = least_cost_path(of(grids.pad(grid, 8))[:6, :6], 2)
    truth = least_cost_path(of(grid), 2)
    np.testing.assert_array_equal(found.path, truth.path)
    assert np.isinf(of(grids.pad(grid, 8))[5:]).all()


def test_what_lies_on_and_below_the_diagonal_is_not_looked_at():
    cost = np.full((4, 4), np.nan)
    cost[np.triu_indices(4, 1)] = 1.0
    assert float(least_cost_path(cost, 2).cost) == 2.0


@pytest.mark.slow
def test_over_levels_of_a_grid():
    """A cost that is the square of a step in log SNR: of a fine grid the path picks levels evenly
    spaced in it; every second level, where K is half of N. And vmap over costs is a loop."""
    fine = grids.uniform_log_snr(schedules.linear_vp(), 16, end=None)
    cost = pairwise_costs(lambda t, s: (s.log_snr - t.log_snr) ** 2, fine)
    assert np.isinf(cost[[3, 5], [3, 2]]).all()
    found = least_cost_path(cost, 8)
    np.testing.assert_array_equal(found.path, np.arange(0, 17, 2))
    coarse = thin(fine, found.path)
    np.testing.assert_array_equal(coarse.levels.t, fine.levels.t[::2])
    assert coarse.schedule is fine.schedule
    several = jnp.stack([cost, jnp.sqrt(cost) * jnp.arange(17.0)[None, :]])
    together = jax.vmap(lambda c: least_cost_path(c, 5))(several)
    for i in range(2):
        np.testing.assert_array_equal(together.path[i], least_cost_path(several[i], 5).path)


CASES = {
    "no matrix": (lambda: least_cost_path(np.ones(5), 2), r"cost.*\[N\+1, N\+1\].*\[5\]"),
    "not square": (lambda: least_cost_path(np.ones((5, 4)), 2), r"cost.*\[5, 4\]"),
    "NaN": (lambda: least_cost_path(np.full((3, 3), np.nan), 1), r"cost.*nan at \[0, 1\]"),
    "minus infinity": (lambda: least_cost_path(np.full((3, 3), -np.inf), 1), "cost.*-inf at"),
    "half a step": (lambda: least_cost_path(np.ones((3, 3)), 1.0), "num_steps.*got 1.0"),
    "broken path": (
        lambda: thin(grids.uniform(schedules.linear_vp(), 4), np.array([0.0, 4.0])),
        "path must rise",
    ),
    "no steps": (lambda: least_cost_path(np.ones((3, 3)), 0), r"num_steps.*1\.\.2.*got 0"),
    "more steps than levels": (lambda: least_cost_path(np.ones((3, 3)), 3), "num_steps.*got 3"),
    "all forbidden": (lambda: least_cost_path(np.full((3, 3), np.inf), 2), "cost forbids"),
    "falling path": (
        lambda: thin(grids.uniform(schedules.linear_vp(), 4), np.array([0, 3, 2])),
        r"path must rise within 0\.\.4",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case):
    call, message = CASES[case]
    with pytest.raises(ValueError, match=message):
        call()
