"""Truth: scipy's filters and normal density; <A x, u> = <x, A^T u> for the transposes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats

from jaxdiff.guidance import measurement

pytestmark = pytest.mark.usefixtures("x64", "strict")
X = np.random.default_rng(0).normal(size=(2, 6, 4, 3))
KERNEL = np.random.default_rng(1).normal(size=(3, 5))
KEEP = np.random.default_rng(2).integers(0, 2, size=(6, 4, 1))
MATRIX = np.random.default_rng(3).normal(size=(5, 72))


def operators():
    return {
        "mask": measurement.mask(KEEP),
        "downsample": measurement.downsample(2),
        "blur": measurement.blur(KERNEL),
        "matrix": measurement.matrix(MATRIX),
    }


def expected(name):
    """The measurement by other means."""
    if name == "mask":
        return np.where(KEEP[None] == 1, X, 0)
    if name == "matrix":
        return np.stack([MATRIX @ x.ravel() for x in X])
    if name == "blur":
        correlate = scipy.ndimage.correlate
        one = lambda a: correlate(a, KERNEL, mode="constant")  # noqa: E731
        return np.stack([np.stack([one(x[..., c]) for c in range(3)], axis=-1) for x in X])
    labels = np.arange(6)[:, None] // 2 * 2 + np.arange(4)[None] // 2
    one = lambda a: scipy.ndimage.mean(a, labels, np.arange(6)).reshape(3, 2)  # noqa: E731
    return np.stack([np.stack([one(x[..., c]) for c in range(3)], axis=-1) for x in X])


@pytest.mark.parametrize("name", list(operators()))
def test_is_what_it_says_and_has_a_transpose(name):
    operator = operators()[name]
    y = operator(jnp.asarray(X))
    np.testing.assert_allclose(y, expected(name), atol=1e-12)
    u = np.random.default_rng(4).normal(size=y.shape)
    (back,) = jax.linear_transpose(operator, jnp.asarray(X))(jnp.asarray(u))
    np.testing.assert_allclose(np.sum(y * u), np.sum(X * back), rtol=1e-12)


def test_a_mask_may_be_each_examples_own():
    keep = np.random.default_rng(5).integers(0, 2, size=X.shape)
    np.testing.assert_array_equal(measurement.mask(keep)(jnp.asarray(X)), X * keep)


def test_the_gaussian_kernel_is_the_density():
    density = scipy.stats.norm.pdf(np.arange(-4, 5), scale=1.3)
    wanted = np.outer(density, density) / density.sum() ** 2
    np.testing.assert_allclose(measurement.gaussian_kernel(1.3, 4), wanted, rtol=1e-12)
