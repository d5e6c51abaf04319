"""`Grid.at` against the schedule: on it by its inverse, on numbers by the two levels around."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import grids, schedules
from jaxdiff.typing import Grid, NoiseLevel

pytestmark = pytest.mark.usefixtures("strict", "x64")


@pytest.mark.parametrize("schedule", [schedules.linear_vp(), schedules.edm(0.02, 80.0)])
def test_at_finds_levels_and_what_lies_between(schedule):
    """Exact on levels given as numbers for variance-preserving and -exploding paths, to 1e-9: the
    inverse of the schedule loses some digits at small log-SNR differences."""
    grid = grids.karras(schedule, 6)
    numbers = Grid(grid.levels, None, grid.prior_std)
    times = schedule.t_min + (schedule.t_max - schedule.t_min) * np.array([0.9, 0.5, 0.1])
    wanted = [schedule(jnp.asarray(t)) for t in times]
    wanted += [NoiseLevel(*(a[k] for a in grid.levels)) for k in range(6)]
    for level in wanted:
        for g in (grid, numbers):
            found = jax.jit(lambda g, v: g.at(v))(g, level.log_snr)
            np.testing.assert_allclose(found.sigma, level.sigma, rtol=1e-9)
            np.testing.assert_allclose(found.alpha, level.alpha, rtol=1e-9)


def test_at_stays_finite_at_the_ends_and_in_padding():
    """At the last noisy level, on padded grids, and for grids of one noisy level."""
    for grid in (grids.pad(grids.karras(schedules.edm(), 3), 6), grids.karras(schedules.edm(), 1)):
        numbers = Grid(grid.levels, None)
        noisy = int(np.sum(np.asarray(grid.levels.sigma) > 0))
        last = NoiseLevel(*(a[noisy - 1] for a in grid.levels))
        slope = jax.grad(lambda v, g: g.at(v).sigma)(last.log_snr, numbers)
        assert np.isfinite(slope)
        np.testing.assert_allclose(numbers.at(last.log_snr).sigma, last.sigma, rtol=1e-9)
