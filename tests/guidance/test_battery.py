"""What every guidance must be able to do; a new one is a row of `models.ROWS`.

Truth: x_t = alpha x0 + sigma eps itself, loops for vmap, float64 for float32, central differences
for gradients, the model alone at the scale that changes nothing.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import grids, sample, schedules
from jaxdiff.samplers.base import _run
from jaxdiff.typing import NoiseLevel
from tests.guidance.models import DIM, ROWS, model

pytestmark = pytest.mark.usefixtures("strict")


def each_guidance(*default):
    """All rows with `-m slow`; by default those named, which hold what the others are made of."""
    marks = lambda name: [] if name in default else [pytest.mark.slow]  # noqa: E731
    return pytest.mark.parametrize("name", [pytest.param(n, marks=marks(n)) for n in ROWS])


def state(batch):
    return jnp.asarray(np.random.default_rng(0).normal(size=(64, DIM))[:batch], float)


def level(batch=None):
    """One level, or an example's own each; sigma / alpha from .25 to 4."""
    angle = np.arctan(1.0) if batch is None else np.arctan(np.geomspace(0.25, 4, 5)[:batch])
    alpha, sigma = (jnp.asarray(f(angle), float) for f in (np.cos, np.sin))
    return NoiseLevel(t=sigma, alpha=alpha, sigma=sigma)


def ask(denoise, x, at):
    return jax.jit(lambda d, x, at: d(x, at))(denoise, x, at)


@each_guidance("cfg", "stacked")
def test_is_consistent_and_the_same_in_every_batch(name):
    """x0 and eps agree, and an example of two is the example of five.

    Rounding of float32 through some 20 operations and two networks: 1e-5.
    """
    found = ask(ROWS[name](5, 1.7), state(5), level(5))
    at = level(5)
    joined = at.alpha[:, None] * found.x0 + at.sigma[:, None] * found.eps
    np.testing.assert_allclose(joined, state(5), atol=1e-5)
    own = model(5)(state(5), at)
    assert np.abs(found.x0 - own.x0).max() > 1e-3  # it does something
    np.testing.assert_allclose(found.heads["eps_model"], own.eps, atol=1e-5)
    some = ask(ROWS[name](2, 1.7), state(2), level(2))
    np.testing.assert_allclose(some.x0, found.x0[:2], atol=1e-5)


@each_guidance("cfg")
def test_jit_is_eager(name):
    """Each operation a program of its own: other fusions, hence other roundings of 1e-7."""
    found, eager = ask(ROWS[name](5, 1.7), state(5), level(5)), ROWS[name](5, 1.7)
    np.testing.assert_allclose(found.x0, eager(state(5), level(5)).x0, atol=1e-5)


@each_guidance("cfg")
def test_vmap_over_scales_is_a_loop_and_a_scale_an_example(name):
    scales = jnp.asarray([0.0, 1.0, 2.5])
    one = jax.jit(lambda w: ROWS[name](3, w)(state(3), level()).x0)
    together = jax.jit(jax.vmap(lambda w: ROWS[name](3, w)(state(3), level()).x0))(scales)
    alone = jnp.stack([one(w) for w in scales])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    each = one(scales)
    np.testing.assert_allclose(each, jnp.stack([alone[i, i] for i in range(3)]), atol=1e-5)


@each_guidance("mmps")
def test_float32_is_close_to_float64_and_gradients_are_differences(name):
    """By the scale and by x_t: central differences of step 1e-6 err by some 1e-9."""
    narrow = ask(ROWS[name](3, 1.7), state(3), level(3)).x0
    with jax.enable_x64(True):
        weights = jnp.asarray(np.random.default_rng(4).normal(size=(3, DIM)))
        plain = lambda w, x: jnp.sum(weights * ROWS[name](3, w)(x, level(3)).x0)  # noqa: E731
        f = jax.jit(plain)
        w, x = jnp.asarray(1.7), state(3)
        by_w, by_x = jax.jit(jax.grad(plain, (0, 1)))(w, x)
        h = 1e-6
        np.testing.assert_allclose(
            by_w, (f(w + h, x) - f(w - h, x)) / (2 * h), rtol=1e-6, atol=1e-7
        )
        way = jnp.asarray(np.random.default_rng(5).normal(size=x.shape))
        slope = (f(w, x + h * way) - f(w, x - h * way)) / (2 * h)
        np.testing.assert_allclose(jnp.sum(by_x * way), slope, rtol=1e-6, atol=1e-7)
        wide = ask(ROWS[name](3, 1.7), x, level(3)).x0
        assert wide.dtype == jnp.float64
    # some 20 operations of 6e-8 on numbers of order 1, and two networks
    np.testing.assert_allclose(narrow, wide, atol=1e-5)


@each_guidance("cfg", "stacked")
def test_sample_takes_it_and_compiles_once(name, key):
    """Through a clean end and, first, alpha = 0; other scales compile nothing."""
    grid = grids.uniform(schedules.rectified(), 4)
    assert grid.levels.alpha[0] == 0
    x = sample(key, ROWS[name](2, 1.5), grid, (2, DIM))
    assert np.isfinite(x).all()
    before = _run._cache_size()
    sample(key, ROWS[name](2, 0.5), grid, (2, DIM))
    assert _run._cache_size() == before


def test_labels_of_any_making_stay_labels(key):
    """jnp.full gives weakly typed integers, which are no floats."""
    grid, x_T = grids.uniform(schedules.linear_vp(), 2), state(2)
    of = lambda cond: sample(key, model(2).with_cond(cond), grid, (2, DIM), x_T=x_T)  # noqa: E731
    np.testing.assert_array_equal(of(jnp.full(2, 1)), of(jnp.asarray(np.array([1, 1], np.int32))))
