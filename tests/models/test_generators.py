"""Shapes, ranges and what must be refused; what generators learn is tested where they train."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.models import generators

Z = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5)), jnp.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape",
    [
        (4, 12, 1),
        pytest.param((8, 8, 1), marks=pytest.mark.slow),
        pytest.param((28, 28, 3), marks=pytest.mark.slow),
    ],
)
def test_images_in_range_and_back(shape):
    net = generators.Generator(shape, width=4)
    variables = net.init(jax.random.key(0), Z)
    x = jax.jit(net.apply)(variables, Z)
    assert x.shape == (3, *shape)
    assert x.dtype == jnp.float32
    assert np.abs(x).max() < 1
    critic, encoder = generators.Critic(width=4), generators.Encoder(7, width=4)
    told = critic.apply(critic.init(jax.random.key(1), x), x)
    assert told.shape == (3,)
    mean, log_var = encoder.apply(encoder.init(jax.random.key(1), x), x)
    assert mean.shape == log_var.shape == (3, 7)


@pytest.mark.slow
def test_examples_do_not_see_one_another():
    """No statistics of a batch: each image is that of its latent alone."""
    net = generators.Generator((8, 8, 1), width=4)
    variables = net.init(jax.random.key(0), Z)
    whole, alone = net.apply(variables, Z), net.apply(variables, Z[1:2])
    np.testing.assert_allclose(whole[1:2], alone, atol=1e-6)  # float32 sums in another order


def test_half_precision_returns_float32():
    net = generators.Generator((8, 8, 1), width=4, dtype="bfloat16")
    variables = net.init(jax.random.key(0), Z)
    assert {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert net.apply(variables, Z).dtype == jnp.float32


@pytest.mark.parametrize(
    ("net", "z", "message"),
    [
        (generators.Generator((7, 8, 1)), Z, "levels=2 need sizes that divide by 4, got 7 x 8"),
        (generators.Generator((8, 8, 1), width=0), Z, "width must be at least 1"),
        (generators.Generator((8, 8)), Z, r"images must be \[B, H, W, C\]"),
        (generators.Generator((8, 8, 1)), Z[0], r"z must be latents \[B, L\]"),
        (generators.DCGAN(), Z[0], r"z must be latents \[B, L\]"),
        (generators.Critic(), jnp.zeros((2, 6, 6, 1)), "divide by 4, got 6 x 6"),
        (generators.Critic(), Z, r"images must be \[B, H, W, C\]"),
    ],
)
def test_bad_input(net, z, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(net.init, jax.random.key(0), z)
