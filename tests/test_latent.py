"""Codecs. Truth: linear algebra of Gaussians, numpy's moments, and the law of large numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff as jd
from jaxdiff import exact, latent
from jaxdiff.samplers import make_sampler
from jaxdiff.typing import Normal
from tests.samplers import linear


def rotation(dim):
    return np.linalg.qr(np.random.default_rng(0).normal(size=(dim, dim)))[0]


def test_sampling_in_latents_has_the_law_of_the_data(x64):
    """Data N(m, C), latents x Q of an orthonormal Q, standardised by their own moments: those are
    N(0, S Q' C Q S). The exact model of them, sampled and decoded, gives m and C again.

    Heun's method is of second order: off by 1.6e-2 in 40 steps, hence by some 4e-4 in 250. The
    prior at sigma = 80 is off by half of (1 / 80)^2.
    """
    q, half = rotation(3), np.array([[1.0, 0.0, 0.0], [0.6, 0.5, 0.0], [-0.3, 0.2, 2.0]])
    mean, cov = np.array([1.0, -2.0, 0.5]), half @ half.T
    law = latent.Moments(jnp.asarray(1.0), jnp.asarray(mean @ q), jnp.diagonal(q.T @ cov @ q))
    pair = latent.standardised(latent.codec(lambda key, x: x @ q, lambda z: z @ q.T), law)
    scale = np.diag(np.asarray(pair.scale))
    model = exact.gaussian(np.zeros(3), scale @ q.T @ cov @ q @ scale)
    np.testing.assert_allclose(jnp.diagonal(model.covs[0]), 1, rtol=1e-12)
    grid = jd.grids.karras(jd.schedules.edm(), 250)
    found, spread = linear.moments(model, grid, make_sampler("heun"), 3)
    slope = jax.jacobian(lambda z: pair.decode(z[None])[0])(jnp.asarray(found))
    np.testing.assert_allclose(pair.decode(jnp.asarray(found)[None])[0], mean, atol=1e-3)
    np.testing.assert_allclose(slope @ spread @ slope.T, cov, atol=1e-3 * np.abs(cov).max())


def test_there_and_back_under_every_transformation(key, strict):
    """decode(encode(x)) = x of any shift and scale; so its gradient is that of x itself."""
    pair = latent.codec(
        lambda key, x: 2 * x + 1, lambda z: (z - 1) / 2, shift=jnp.array([0.5, -1.0]), scale=3.0
    )
    x = jax.random.normal(key, (4, 5, 2))
    both = lambda pair, x: pair.decode(pair.encode(key, x))  # noqa: E731
    np.testing.assert_allclose(jax.jit(both)(pair, x), x, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        jax.grad(lambda x: jnp.sum(both(pair, x) ** 2))(x), 2 * x, rtol=1e-5, atol=1e-6
    )
    scales = jnp.array([0.5, 2.0])
    many = jax.vmap(lambda s: latent.Codec(pair.encoder, pair.decoder, pair.shift, s))(scales)
    z = jax.vmap(lambda pair: pair.encode(key, x))(many)
    np.testing.assert_allclose(z[1], 4 * z[0], rtol=1e-6)
    by_scale = jax.grad(
        lambda s: jnp.sum(latent.Codec(pair.encoder, pair.decoder, pair.shift, s).encode(key, x))
    )(jnp.float32(1.0))
    np.testing.assert_allclose(
        by_scale, np.sum(2 * np.asarray(x) + 1 - np.array([0.5, -1.0])), rtol=1e-4
    )


def test_identity_changes_no_bit(key):
    pair = latent.codec(lambda key, x: x, lambda z: z)
    x = jax.random.normal(key, (3, 4))
    np.testing.assert_array_equal(pair.encode(key, x), x)
    np.testing.assert_array_equal(pair.decode(x), x)


def test_moments_of_a_known_gaussian(key):
    """Of n draws: the mean's error is s / sqrt(n), the deviation's s / sqrt(2 n); four of them."""
    mean, std, n = np.array([0.3, -2.0]), np.array([0.1, 5.0]), 20_000
    encoder = latent.drawn(
        lambda x: Normal(x + mean[None, None], jnp.broadcast_to(std**2, x.shape))
    )
    x = jnp.zeros((n, 1, 2))
    found = latent.moments(encoder(key, x))
    assert found.count == n
    np.testing.assert_array_less(abs(found.mean - mean), 4 * std / np.sqrt(n))
    np.testing.assert_array_less(abs(jnp.sqrt(found.var) - std), 4 * std / np.sqrt(2 * n))
    z = latent.standardised(latent.codec(encoder, lambda z: z), found).encode(key, x)
    # the very draws that were measured: to roundings
    np.testing.assert_allclose(jnp.mean(z, axis=(0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(jnp.std(z, axis=(0, 1)), 1, rtol=1e-5)


def test_moments_in_parts_are_those_of_the_whole():
    """numpy's, in float64, of 10 +- 1: a sum of squares in float32 would lose three digits."""
    z = 10 + np.random.default_rng(0).normal(size=(70, 3, 3, 2)).astype(np.float32)
    parts = latent.merged(latent.moments(z[:50]), latent.moments(z[50:]))
    whole = z.reshape(-1, 2).astype(np.float64)
    np.testing.assert_allclose(parts.mean, whole.mean(0), rtol=1e-6)
    np.testing.assert_allclose(parts.var, whole.var(0), rtol=1e-5)
    one = latent.pooled(parts)
    np.testing.assert_allclose(one.mean, whole.mean(), rtol=1e-6)
    np.testing.assert_allclose(one.var, whole.var(), rtol=1e-5)
    assert one.count == whole.size


def test_drawn_examples_depend_on_their_own_keys(key):
    """Example i by (key, i) alone, whatever the batch; a posterior without spread is its mean."""
    encoder = latent.drawn(lambda x: Normal(x, x**2))
    x = jnp.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(encoder(key, x)[:2], encoder(key, x[:2]))
    assert not np.allclose(encoder(key, x), encoder(jax.random.fold_in(key, 1), x))
    np.testing.assert_array_equal(encoder(key, x)[0, 0], 0)
    slope = jax.grad(lambda x: jnp.sum(encoder(key, x)))(x)
    assert np.isfinite(slope).all()


def test_bad_input():
    pair = latent.codec(lambda key, x: x, lambda z: z)
    with pytest.raises(ValueError, match="scale must lie"):
        latent.codec(pair.encoder, pair.decoder, scale=0.0)
    with pytest.raises(ValueError, match="shift must lie"):
        latent.codec(pair.encoder, pair.decoder, shift=np.inf)
    with pytest.raises(TypeError, match="wanted a function"):
        latent.codec(None, pair.decoder)
    flat = latent.Moments(jnp.asarray(9.0), jnp.zeros(2), jnp.array([1.0, 0.0]))
    with pytest.raises(ValueError, match=r"must vary in each channel, got variances \[1.0, 0.0\]"):
        latent.standardised(pair, flat)
