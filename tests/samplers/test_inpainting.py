"""Inpainting of a correlated Gaussian pair, whose conditional law is known: and the bias of both.

Truth: p(x_2 | x_1 = y) = N(rho y, 1 - rho**2) for unit variances.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import exact, grids, schedules
from jaxdiff.samplers import ddim, ddpm, dpmpp_2m, repaint, replacement, restart, sample, unipc
from tests.samplers.linear import moments

pytestmark = pytest.mark.usefixtures("strict", "x64")

RHO, Y = 0.8, 1.5
KNOWN, MASK = jnp.array([Y, jnp.nan]), jnp.array([1, 0])


def pair():
    return exact.gaussian(jnp.zeros(2), jnp.array([[1.0, RHO], [RHO, 1.0]]))


def law(make, steps=20):
    mean, cov = moments(pair(), grids.uniform(schedules.linear_vp(), steps), make, 2)
    return mean[1], cov[1, 1]


def noise_of_known(sampler, grid, **more):
    """Mean and deviation of (x_t - alpha_t y) / sigma_t at every call of the model."""
    seen = []

    def denoise(x, level):
        z = (x[:, 0] - level.alpha * Y) / level.sigma
        jax.debug.callback(lambda *v: seen.append(v), jnp.mean(z), jnp.std(z))
        return pair().denoise(x, level)

    x = sample(jax.random.key(1), denoise, grid, (4000, 2), sampler=sampler, **more)
    np.testing.assert_array_equal(x[:, 0], Y)
    jax.effects_barrier()
    return np.asarray(seen)


@pytest.mark.parametrize("inner", [ddim(), unipc()], ids=["ddim", "unipc"])
@pytest.mark.parametrize("schedule", [schedules.linear_vp(), schedules.edm(0.01, 50.0)])
def test_model_sees_known_pixels_at_their_noise(schedule, inner):
    """Standard Gaussian at every call, to 5 standard errors of 4000 draws; at the end, y itself.

    Also where x_T is no noise, and for a solver that corrects what it is given.
    """
    grid = grids.karras(schedule, 5)
    found = noise_of_known(replacement(inner, KNOWN, MASK), grid)
    signal = jnp.full((4000, 2), 7.0)
    found = np.concatenate(
        [found, noise_of_known(replacement(inner, KNOWN, MASK), grid, x_T=signal)]
    )
    assert len(found) == 10
    np.testing.assert_allclose(found[:, 0], 0, atol=5 / np.sqrt(4000))
    np.testing.assert_allclose(found[:, 1], 1, atol=5 / np.sqrt(8000))


def test_restart_around_inpainting_keeps_the_known_pixels():
    """The same within each pass of a stretch, which begins at a level of its own."""
    inner = replacement(ddim(), KNOWN, MASK)
    sampler = restart(inner, low=1.0, high=3.0, steps=2, repeats=2)
    found = noise_of_known(sampler, grids.uniform(schedules.linear_vp(), 6))
    assert len(found) == 6 + 2 * 2
    np.testing.assert_allclose(found[:, 0], 0, atol=5 / np.sqrt(4000))
    np.testing.assert_allclose(found[:, 1], 1, atol=5 / np.sqrt(8000))


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
