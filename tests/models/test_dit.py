"""The transformer's patches against an explicit loop, its size against a count by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.models import DiT, dit


def test_patches_are_cut_row_by_row_and_put_back():
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 3))
    tokens = dit._patches(x, 2)
    assert tokens.shape == (2, 6, 12)
    for i in range(2):
        for j in range(3):
            block = x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].reshape(2, -1)
            np.testing.assert_array_equal(tokens[:, 3 * i + j], block)
    np.testing.assert_array_equal(dit._unpatch(tokens, 2, 3, 2), x)


def test_every_position_has_its_own_vector():
    positions = np.asarray(dit._positions(4, 5, 16)[0])
    gaps = np.abs(positions[:, None] - positions[None]).max(axis=-1)
    assert (gaps + np.eye(20)).min() > 0.1


def test_number_of_parameters():
    width, depth, patch = 32, 3, 2
    net = DiT(width, depth, 4, patch)
    variables = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)), jnp.zeros(1))
    block = (4 + 2 * 4 + 6) * width**2 + (4 + 5 + 6) * width  # attention, perceptron, modulation
    time = (128 + 1) * width + (width + 1) * width
    ends = (patch**2 + 1) * width + 2 * (width + 1) * width + (width + 1) * patch**2
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == depth * block + time + ends
