"""Restart on a Gaussian, where each pass is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import grids, schedules
from jaxdiff.samplers import ddim, heun, restart, sample
from jaxdiff.typing import Denoised, NoiseLevel
from tests.samplers.linear import moments

pytestmark = pytest.mark.usefixtures("strict", "x64")

C, LOW, HIGH = 0.25, 0.2, 1.5


def gaussian(x, level):
    """The exact model of N(0, C I)."""
    v = level.alpha**2 * C + level.sigma**2
    return Denoised(level.alpha * C / v * x, level.sigma / v * x)


def variance(level):
    return level.alpha**2 * C + level.sigma**2


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [schedules.linear_vp(), schedules.edm(0.02, 80.0)])
@pytest.mark.parametrize("numbers_alone", [False, True])
def test_passes_contract_as_the_flow_says(schedule, numbers_alone):
    """Without noise a pass scales by (alpha_h / alpha_s) sqrt(v_s / v_h): up, then the exact flow.

    Heun's steps err as 1 / steps**2, at 200 steps below 1e-4 of the state. On levels given as
    numbers the path between them is exact for both schedules.
    """
    grid = grids.karras(schedule, 12)
    mark = float(grid.levels.sigma[8] / grid.levels.alpha[8]) * (1 + 1e-9)
    if numbers_alone:
        levels = NoiseLevel(*(a[:-1] for a in grid.levels))
        grid = grids.from_levels(levels, prior_std=schedule.prior_std)
    sampler = restart(heun(), low=mark, high=HIGH, steps=200, repeats=3)
    x_T = jnp.ones((1, 1))
    noise = jnp.zeros((12, sampler.noises, 1, 1))
    found = sample(None, gaussian, grid, (1, 1), sampler=sampler, x_T=x_T, noise=noise)
    plain = sample(None, gaussian, grid, (1, 1), sampler=heun(), x_T=x_T)
    s = NoiseLevel(*(a[8] for a in grid.levels))
    h = schedule(schedule.time(jnp.asarray(-2 * np.log(HIGH))))
    once = h.alpha / s.alpha * jnp.sqrt(variance(s) / variance(h))
    np.testing.assert_allclose(found / plain, once**3, rtol=1e-4)


def test_contracts_the_error_of_a_poor_solver():
    """Ten DDIM steps leave the variance 40 % wrong; what passes start from matters ever less."""
    grid = grids.karras(schedules.edm(0.02, 80.0), 10)
    errors = []
    for sampler in (ddim(), restart(ddim(), low=LOW, high=HIGH, steps=20, repeats=4)):
        _, cov = moments(gaussian, grid, sampler, 1)
        errors.append(abs(cov[0, 0] / C - 1))
    assert errors[1] < 0.5 * errors[0]


def test_happens_once_and_only_within_the_grid():
    """No pass above `low`: the path up to there is the plain one; padding adds none."""
    grid = grids.karras(schedules.edm(0.02, 80.0), 10)
    sampler = restart(heun(), low=LOW, high=HIGH, steps=2, repeats=2)
    x_T, noise = jnp.ones((1, 1)), jnp.ones((10, sampler.noises, 1, 1))
    run = lambda sampler, noise: sample(  # noqa: E731
        None, gaussian, grid, (1, 1), sampler=sampler, x_T=x_T, noise=noise, keep_path=True
    )
    found, plain = run(sampler, noise), run(heun(), None)
    first = int(np.argmax(np.asarray(grid.levels.sigma) <= LOW))
    # Two programs of one formula: a rounding or two of float64 apart.
    np.testing.assert_allclose(found[:first], plain[:first], rtol=1e-14)
    assert abs(float((found - plain)[first, 0, 0])) > 0.1


def test_several_stretches_nest():
    """Two disjoint stretches are two factors."""
    grid = grids.karras(schedules.edm(0.02, 80.0), 16)
    inner = restart(heun(), low=0.1, high=0.3, steps=50, repeats=1)
    both = restart(inner, low=1.0, high=3.0, steps=50, repeats=1)
    outer = restart(heun(), low=1.0, high=3.0, steps=50, repeats=1)
    of = lambda sampler: float(  # noqa: E731
        sample(
            None, gaussian, grid, (1, 1), sampler=sampler, x_T=jnp.ones((1, 1)),
            noise=jnp.zeros((16, sampler.noises, 1, 1)),
        )[0, 0]
    )  # fmt: skip
    plain = of(heun())
    np.testing.assert_allclose(of(both) / plain, of(inner) * of(outer) / plain**2, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("count", [8, 9, 11, 13])
def test_a_levels_own_noise_is_that_level(count):
    """low = sigma / alpha of level i, in float32 as a user reads it: passes begin there."""
    with jax.enable_x64(False):
        grid = grids.uniform_log_snr(schedules.linear_vp(), count)
        for i in (2, count // 2, count - 1):
            low = float(grid.levels.sigma[i] / grid.levels.alpha[i])
            sampler = restart(ddim(), low=low, high=2 * low, steps=1, repeats=1)
            noise = jnp.ones((count, sampler.noises, 1, 1))
            found, plain = (
                sample(
                    None, gaussian, grid, (1, 1), sampler=s, x_T=jnp.ones((1, 1)), noise=n,
                    keep_path=True,
                )
                for s, n in ((sampler, noise), (ddim(), noise[:, :1]))
            )  # fmt: skip
            assert int(np.argmax(np.abs(found - plain)[:, 0, 0] > 1e-3)) == i
