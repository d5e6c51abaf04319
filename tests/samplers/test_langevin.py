"""Predictor-corrector against its formula in numpy and against the stationary law."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import grids, schedules
from jaxdiff.samplers import (
    annealed_langevin,
    ddim,
    ddpm,
    langevin,
    predictor_corrector,
    sample,
    unipc,
)
from jaxdiff.typing import Denoised
from tests.battery import SCHEDULES

pytestmark = pytest.mark.usefixtures("strict", "x64")

C = 0.25


def gaussian(x, level):
    """The exact model of N(0, C I)."""
    v = level.alpha**2 * C + level.sigma**2
    return Denoised(level.alpha * C / v * x, level.sigma / v * x)


@pytest.mark.parametrize("over_batch", [False, True])
@pytest.mark.parametrize("schedule", ["linear_vp", "sub_vp", "edm"])
def test_step_is_the_formula(schedule, over_batch):
    """d = 2 (alpha r |z| / |score|)**2, norms by example or as means over the batch; to 1e-13."""
    level = SCHEDULES[schedule](jnp.asarray(0.4))
    x, z = (np.random.default_rng(i).normal(size=(3, 5)) for i in range(2))
    alpha, sigma = float(level.alpha), float(level.sigma)
    score = -x / (alpha**2 * C + sigma**2)
    size = lambda a: np.linalg.norm(a, axis=1, keepdims=True)  # noqa: E731
    norms = size(z), size(score)
    if over_batch:
        norms = norms[0].mean(), norms[1].mean()
    d = 2 * (alpha * 0.16 * norms[0] / norms[1]) ** 2
    found = langevin(over_batch=over_batch).correct(
        jnp.asarray(x), gaussian, jnp.asarray(z)[None], level
    )
    np.testing.assert_allclose(found, x + d * score + np.sqrt(2 * d) * z, rtol=1e-13)


def test_stationary_law(key):
    """In many dimensions d is a constant, so the chain's variance is v / (1 - d / (2 v)).

    d = 2 (alpha r)**2 v by |z|**2 = D, |score|**2 = D / v. With 20,000 coordinates the variance is
    known to 1 % (one standard error), and 200 steps forget the start; three errors are allowed.
    """
    level = schedules.linear_vp()(jnp.asarray(0.3))
    v, r = float(level.alpha**2 * C + level.sigma**2), 0.3
    keys = jax.random.split(key)
    x = jax.random.normal(keys[0], (1, 20_000))
    noise = jax.random.normal(keys[1], (200, 1, 20_000))
    x = langevin(r, 200).correct(x, gaussian, noise, level)
    truth = v / (1 - float(level.alpha * r) ** 2)
    np.testing.assert_allclose(float(jnp.var(x)), truth, rtol=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("corrector", "truth"),
    [
        (langevin(0.1, 300), 1.5),
        (langevin(0.1, 300, over_batch=True), 1.0),
        (annealed_langevin(0.1, 300), 1.0),
    ],
    ids=["own", "over_batch", "annealed"],
)
def test_bias_of_steps_that_follow_the_example(corrector, truth, key):
    """With d = rho |z|**2 / |score|**2 the mean of |x|**2 rests where E |x|**-2 = 1 / (v (D + 2)),
    which of the densities p(x) |x|**k is that of k = 4, whose variance is v (1 + 4 / D).

    D = 8, and the other two have no such bias. 2,000 examples: one standard error is 1.4 %; steps
    of finite size add some 2 % at snr 0.1.
    """
    level = schedules.linear_vp()(jnp.asarray(0.3))
    v = float(level.alpha**2 * C + level.sigma**2)
    keys = jax.random.split(key)
    x = v**0.5 * jax.random.normal(keys[0], (2000, 8))
    noise = jax.random.normal(keys[1], (300, 2000, 8))
    x = corrector.correct(x, gaussian, noise, level)
    np.testing.assert_allclose(float(jnp.var(x)) / v, truth, rtol=0.06)


def test_annealed_step_is_the_formula():
    """d = 2 (alpha r sigma)**2, to 1e-13."""
    level = SCHEDULES["sub_vp"](jnp.asarray(0.4))
    x, z = (np.random.default_rng(i).normal(size=(3, 5)) for i in range(2))
    alpha, sigma = float(level.alpha), float(level.sigma)
    score, d = -x / (alpha**2 * C + sigma**2), 2 * (alpha * 0.2 * sigma) ** 2
    found = annealed_langevin(0.2).correct(jnp.asarray(x), gaussian, jnp.asarray(z)[None], level)
    np.testing.assert_allclose(found, x + d * score + np.sqrt(2 * d) * z, rtol=1e-13)


def test_limits(key):
    """snr = 0 is the predictor alone; the corrector comes first, so no noise is left at the end."""
    grid = grids.uniform(schedules.linear_vp(), 6)
    noise = jax.random.normal(key, (6, 2, 4, 3))
    x_T = noise[0, 0]
    run = lambda sampler, noise: sample(  # noqa: E731
        None, gaussian, grid, (4, 3), sampler=sampler, x_T=x_T, noise=noise, keep_path=True
    )
    off = run(predictor_corrector(ddpm(), langevin(0.0)), noise)
    np.testing.assert_allclose(off, run(ddpm(), noise[:, 1:]), rtol=1e-13)
    # one step by hand: correct at t, then DDIM's step to s
    sampler = predictor_corrector(ddim(), langevin(0.2))
    t, s = (jax.tree.map(lambda a: a[0], level) for level in grid.pairs)
    x = langevin(0.2).correct(x_T, gaussian, noise[0, :1], t)
    d = gaussian(x, t)
    np.testing.assert_allclose(run(sampler, noise)[1], s.alpha * d.x0 + s.sigma * d.eps, rtol=1e-12)


@pytest.mark.slow
def test_move_outlives_a_solver_that_corrects(key):
    """UniPC corrects the step that led to x, and adds that to what Langevin made of x.

    With 40 Langevin steps a level x_0 no longer depends on x_T: correlation within 4 standard
    errors of 0, and the variance is C to Langevin's own bias, 1 / (1 - r**2) = 1.1.
    """
    grid = grids.uniform_log_snr(schedules.linear_vp(), 8)
    x_T = jax.random.normal(key, (20_000, 1))
    sampler = predictor_corrector(unipc(), langevin(0.3, 40, over_batch=True))
    x = np.asarray(sample(key, gaussian, grid, (20_000, 1), sampler=sampler, x_T=x_T))
    assert abs(np.corrcoef(x[:, 0], x_T[:, 0])[0, 1]) < 4 / np.sqrt(20_000)
    np.testing.assert_allclose(x.var(), C, rtol=0.12)
