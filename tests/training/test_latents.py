"""Data through a codec. Truth: the data themselves under the identity, and normal posteriors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import data, latent, models, training
from jaxdiff.training import latents
from jaxdiff.typing import Normal

SAME = latent.codec(lambda key, x: x, lambda z: z)
NOISY = latent.codec(
    latent.drawn(lambda x: Normal(2 * x + 1, jnp.full_like(x, 0.25))), lambda z: (z - 1) / 2
)


@pytest.fixture
def points():
    x = np.random.default_rng(0).uniform(-1, 1, (30, 2)).astype(np.float32)
    return data.from_arrays(x, np.arange(30) % 3).with_batches(8, seed=5)


def test_training_by_the_identity_is_training_without(points, toy):
    """Bit for bit: three steps of the same program on the same numbers."""

    def loss_fn(params, batch, key, hyper, aux):
        return jnp.mean((batch["x"] * params - batch["y"][:, None]) ** 2), ({}, aux)

    step = training.make_train_step(loss_fn, toy.sgd)
    start = training.init_state(
        jax.random.key(0), jnp.ones(()), toy.sgd, hyper={"lr": 0.1, "ema_decay": 0.5}
    )
    seen = latents.Encoded(points, SAME, "points")
    ends = [training.fit(step, start, d, steps=3, show=False).state for d in (points, seen)]
    for ours, theirs in zip(*(jax.tree.leaves(toy.bits(s)) for s in ends), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert ends[0].params != start.params


def test_batches_are_functions_of_seed_and_step(points):
    seen = latents.Encoded(points, NOISY, "points")
    first, again = seen.batch_at(7), seen.batch_at(7)
    np.testing.assert_array_equal(first["x"], again["x"])
    np.testing.assert_array_equal(first["y"], points.batch_at(7)["y"])
    assert first["x"].dtype == np.float32
    other = seen.with_batches(8, seed=6).batch_at(7)
    draws = [d["x"] - (2 * p["x"] + 1) for d, p in (
        (first, points.batch_at(7)),
        (seen.batch_at(8), points.batch_at(8)),
        (other, points.with_batches(8, seed=6).batch_at(7)),
    )]  # fmt: skip
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert not np.isclose(draws[a], draws[b]).any()
    assert seen.example_shape == (2,)
    assert len(seen) == 30


def test_draws_are_of_the_posterior(points):
    """Deviation .5 around 2 x + 1: errors of mean and deviation of 16,000 draws, four of each."""
    many = points.with_batches(8000)
    gaps = latents.Encoded(many, NOISY, "points").batch_at(0)["x"] - 2 * many.batch_at(0)["x"] - 1
    np.testing.assert_allclose(gaps.mean(), 0, atol=4 * 0.5 / np.sqrt(gaps.size))
    np.testing.assert_allclose(gaps.std(), 0.5, atol=4 * 0.5 / np.sqrt(2 * gaps.size))


def test_whole_sets_whatever_the_blocks(points):
    """Row i is drawn by its own key, whatever the block."""
    seen = latents.Encoded(points, NOISY, "points")
    whole = seen.images()
    parts = list(seen.blocks(size=7))
    assert [len(p) for p in parts] == [7, 7, 7, 7, 2]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-6)
    assert seen.images(4).shape == (4, 2)
    np.testing.assert_array_equal(seen.labels(4), points.labels(4))


def test_measured_moments_are_those_of_what_is_encoded(points):
    """Of the identity: numpy's of the data; a shift and a scale of the codec are passed over."""
    found = latents.measure(latent.codec(SAME.encoder, SAME.decoder, shift=3.0, scale=9.0), points)
    np.testing.assert_allclose(found.mean, points.images().mean(0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found.var, points.images().var(0), rtol=1e-5)
    assert found.count == 30


@pytest.mark.slow
def test_codec_of_a_network(key):
    """Its halves are the network's own, as leaves; it draws from the network's posterior."""
    net = models.Autoencoder(
        latents=2, channels=2, multipliers=(1, 2), blocks=1, attention=False, groups=1,
        out_channels=1,
    )  # fmt: skip
    x = jax.random.normal(key, (3, 4, 4, 1))

    @jax.jit
    def both(key, x):
        variables = net.init(key, x)
        codec = latents.codec_of(net, variables)
        z = codec.encode(key, x)
        mean, log_var = net.apply(variables, x, method="encode")
        again = net.apply(variables, z, method="decode")
        return (z, codec.decode(z)), (mean, log_var, again), (variables, codec)

    (z, decoded), (mean, log_var, again), trees = both(key, x)
    sizes = [sum(a.size for a in jax.tree.leaves(tree)) for tree in trees]
    assert sizes[1] == sizes[0] + 2
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(3))
    noise = jnp.stack([jax.random.normal(k, mean.shape[1:]) for k in keys])
    np.testing.assert_allclose(z, mean + jnp.exp(log_var / 2) * noise, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(decoded, again, rtol=1e-5, atol=1e-6)
