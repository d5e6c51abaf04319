"""Truth: the function itself, asked for everything at once, and a count of its traces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import arrays, metrics
from jaxdiff.metrics import features

X = np.random.default_rng(0).normal(size=(23, 4, 4, 1)).astype(np.float32)


@pytest.mark.parametrize("n", [1, 8, 23])
def test_batches_are_the_whole(n):
    function = lambda x: jnp.tanh(x.reshape(len(x), -1))  # noqa: E731
    found = metrics.batched(function, batch_size=8)(X[:n])
    assert found.dtype == np.float32
    # the same program for each example
    np.testing.assert_array_equal(found, np.asarray(jax.jit(function)(X))[:n])


def test_compiled_once_whatever_the_number_of_examples_and_the_weights():
    traces = []

    @arrays.pytree
    class Layer:
        weights: jax.Array

        def __call__(self, x):
            traces.append(x.shape)
            return x.reshape(len(x), -1) @ self.weights

    for n, scale in ((23, 1.0), (5, 2.0)):
        found = metrics.batched(Layer(jnp.full((16, 3), scale)), batch_size=8)(X[:n])
        # sums of 16 floats
        np.testing.assert_allclose(
            found, scale * X[:n].sum(axis=(1, 2, 3))[:, None].repeat(3, axis=1), atol=1e-5
        )
    assert traces == [(8, 4, 4, 1)]


def test_names():
    def brightness(x):
        return x.mean(axis=(1, 2))

    class Nameless:
        def __call__(self, x):
            return x.mean(axis=(1, 2))

    assert features.name_of(brightness) == "brightness"
    assert features.name_of(Nameless()) == "Nameless"
    assert features.name_of(metrics.batched(brightness)) == "brightness"
    assert features.name_of(metrics.batched(brightness, name="a run")) == "a run"
    assert features.name_of(metrics.fit_pca(X, 3)) == "PCA-3"


def test_pca_takes_images_in_tiles(monkeypatch):
    pca = metrics.fit_pca(X, 5)
    whole = pca(X)
    monkeypatch.setattr(features.distances, "TILE", 4)
    np.testing.assert_allclose(pca(X), whole, atol=1e-12)  # double precision, in another order
