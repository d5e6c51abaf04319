"""The transformer's patches against an explicit loop, its size against a count by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.models import DiT, dit, dit_of_size, positions


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
    place = positions.absolute("sinusoidal", (4, 5))
    vectors = np.asarray(place.apply({}, (4, 5), 16)[0])
    gaps = np.abs(vectors[:, None] - vectors[None]).max(axis=-1)
    assert (gaps + np.eye(20)).min() > 0.1


def test_number_of_parameters():
    width, depth, patch = 32, 3, 2
    net = DiT(width, depth, 4, patch)
    variables = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)), jnp.zeros(1))
    block = (4 + 2 * 4 + 6) * width**2 + (4 + 5 + 6) * width  # attention, perceptron, modulation
    time = (128 + 1) * width + (width + 1) * width
    ends = (patch**2 + 1) * width + 2 * (width + 1) * width + (width + 1) * patch**2
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == depth * block + time + ends


@pytest.mark.slow
@pytest.mark.parametrize(("size", "millions"), [("S", 33), ("B", 130), ("L", 458), ("XL", 675)])
def test_published_sizes(size, millions):
    """Tables 1 and 4 of Peebles and Xie 2023: patches of 2 on latents, two outputs a channel."""
    net = dit_of_size(size, num_classes=1000, out_channels=8)
    args = (jnp.zeros((1, 32, 32, 4)), jnp.zeros(1), jnp.zeros(1, int))
    variables = jax.eval_shape(net.init, jax.random.key(0), *args)
    assert round(sum(leaf.size for leaf in jax.tree.leaves(variables)) / 1e6) == millions


@pytest.mark.slow
@pytest.mark.parametrize("name", positions.NAMES)
def test_every_position_method_on_patches(name):
    """Whole programs by shape: outputs as images, and an equal network under `remat`."""
    args = (jnp.zeros((2, 8, 12, 1)), jnp.zeros(2))
    found = []
    for remat in (False, True):
        net = DiT(width=32, depth=2, heads=2, positions=name, skips=True, remat=remat)
        variables = jax.eval_shape(net.init, jax.random.key(0), *args)
        assert jax.eval_shape(net.apply, variables, *args).shape == args[0].shape
        found.append(jax.tree.map(lambda leaf: leaf.shape, variables))
    assert found[0] == found[1]


@pytest.mark.slow
def test_positions_of_patches_tell_the_image_from_its_transpose():
    """A network without positions is equivariant under any order of patches; one with is not."""
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 1)).astype(np.float32)
    turned, args = np.ascontiguousarray(x[:, ::-1]), (jnp.zeros(1),)

    def answers(name):
        net = DiT(width=32, depth=1, heads=2, patch=1, positions=name)
        variables = net.init(jax.random.key(0), x, *args)
        rng = np.random.default_rng(1)
        variables = jax.tree.map(lambda a: a + 0.3 * rng.normal(size=a.shape), variables)
        run = jax.jit(net.apply)
        return run(variables, x, *args), run(variables, turned, *args)[:, ::-1]

    plain, back = answers("none")
    np.testing.assert_allclose(plain, back, atol=1e-4)  # sums of 64 terms of order one, reordered
    for name in ("urpe", "rotary", "learned"):
        told, back = answers(name)
        assert np.abs(told - back).max() > 1e-2
