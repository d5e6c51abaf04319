"""Inpainting of a correlated Gaussian pair, whose conditional law is known: and the bias of both.

Truth: p(x_2 | x_1 = y) = N(rho y, 1 - rho**2) for unit variances.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import exact, grids, schedules
from jaxdiff.samplers import ddim, ddpm, dpmpp_2m, repaint, replacement, sample
from tests.samplers.linear import moments

pytestmark = pytest.mark.usefixtures("strict", "x64")

RHO, Y = 0.8, 1.5
KNOWN, MASK = jnp.array([Y, jnp.nan]), jnp.array([1, 0])


def pair():
    return exact.gaussian(jnp.zeros(2), jnp.array([[1.0, RHO], [RHO, 1.0]]))


def law(make, steps=20):
    mean, cov = moments(pair(), grids.uniform(schedules.linear_vp(), steps), make, 2)
    return mean[1], cov[1, 1]


def test_known_pixels_end_as_they_are_and_start_as_noise_of_them():
    """To the bit at the end; at t the known part of the first state is alpha_t y + sigma_t x_T."""
    grid = grids.uniform(schedules.linear_vp(), 5)
    x_T = jax.random.normal(jax.random.key(0), (3, 2))
    seen = []

    def denoise(x, level):
        seen.append((x, level))
        return pair().denoise(x, level)

    with jax.disable_jit():
        x = sample(
            jax.random.key(1), denoise, grid, (3, 2),
            sampler=replacement(ddim(), KNOWN, MASK), x_T=x_T,
        )  # fmt: skip
    np.testing.assert_array_equal(x[:, 0], Y)
    first, level = seen[0]
    np.testing.assert_allclose(first[:, 0], level.alpha * Y + level.sigma * x_T[:, 0], rtol=1e-12)
    np.testing.assert_array_equal(first[:, 1], x_T[:, 1])


def test_bias_of_replacement_and_what_repaint_mends():
    """Exact laws, no sampling: replacement's mean is two thirds of rho y, and more steps do not
    mend it; RePaint's repeats bring both moments nearer to the truth. The large variance, since
    the small one's own error at 20 steps is as large.
    """
    mean, var = RHO * Y, 1 - RHO**2
    plain = law(replacement(ddpm("large"), KNOWN, MASK))
    finer = law(replacement(ddpm("large"), KNOWN, MASK), 80)
    again = law(repaint(ddpm("large"), KNOWN, MASK, jump=1, repeats=10))
    longer = law(repaint(ddpm("large"), KNOWN, MASK, jump=5, repeats=5))
    for found in (plain, finer):
        assert 0.5 < found[0] / mean < 0.7, found
    assert again[0] / mean > 0.85
    for found in (again, longer):
        assert abs(found[0] - mean) < abs(plain[0] - mean), (found, plain)
        assert abs(found[1] - var) < abs(plain[1] - var), (found, plain)


def test_one_repeat_is_replacement(key):
    """By any sampler, with or without memory."""
    grid = grids.uniform(schedules.linear_vp(), 6)
    for sampler in (ddpm(), dpmpp_2m()):
        once = repaint(sampler, KNOWN, MASK, jump=3, repeats=1)
        a, b = (
            sample(key, pair(), grid, (4, 2), sampler=s)
            for s in (once, replacement(sampler, KNOWN, MASK))
        )
        np.testing.assert_array_equal(a, b)


def test_stretches_are_counted_from_the_clean_end():
    """K = 7 with a clean end: 6 steps between noisy levels, jump 4: steps 2..5 are walked again,
    so model calls are 7 + 4 (repeats - 1)."""
    calls = []

    def denoise(x, level):
        jax.debug.callback(lambda t: calls.append(float(t)), level.t)
        return pair().denoise(x, level)

    grid = grids.uniform(schedules.linear_vp(), 7)
    sampler = repaint(ddpm(), KNOWN, MASK, jump=4, repeats=3)
    jax.block_until_ready(sample(jax.random.key(0), denoise, grid, (1, 2), sampler=sampler))
    jax.effects_barrier()
    times = np.asarray(grid.levels.t[:-1])
    walked = [*times[:6], *times[2:6], *times[2:6], times[6]]
    np.testing.assert_allclose(calls, walked)
