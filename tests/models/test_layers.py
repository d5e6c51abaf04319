"""Norms, convolution, attention and resampling against numpy and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal, special

from jaxdiff.models import attention, attention_block, layers


def _normal(seed, shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _perturbed(variables):
    """Parameters away from zeros and ones, so that every one of them counts; numpy arrays."""
    generator = np.random.default_rng(9)
    move = lambda leaf: leaf + 0.3 * generator.normal(size=leaf.shape)  # noqa: E731
    return jax.tree.map(lambda leaf: move(np.asarray(leaf)).astype(np.float32), variables)


def _run(module, variables, *inputs):
    return np.asarray(jax.jit(module.apply)(variables, *inputs))


def _init(module, *inputs):
    return jax.jit(module.init)(jax.random.key(1), *inputs)


def test_group_norm_is_the_formula():
    x = 2 + 3 * _normal(0, (2, 4, 5, 6))
    norm = layers.group_norm(3, name="norm")
    variables = _perturbed(_init(norm, x))
    groups = np.asarray(x, np.float64).reshape(2, 20, 3, 2)
    mean, var = groups.mean((1, 3), keepdims=True), groups.var((1, 3), keepdims=True)
    wanted = ((groups - mean) / np.sqrt(var + 1e-5)).reshape(x.shape)
    wanted = wanted * variables["params"]["scale"] + variables["params"]["bias"]
    # Sums of 40 float32 terms.
    np.testing.assert_allclose(_run(norm, variables, x), wanted, atol=1e-5)


def test_layer_norm_is_the_formula():
    x = 2 + 3 * _normal(0, (4, 6))
    norm = layers.layer_norm(name="norm")
    variables = _perturbed(_init(norm, x))
    exact = np.asarray(x, np.float64)
    wanted = (exact - exact.mean(1, keepdims=True)) / np.sqrt(exact.var(1, keepdims=True) + 1e-5)
    wanted = wanted * variables["params"]["scale"] + variables["params"]["bias"]
    np.testing.assert_allclose(_run(norm, variables, x), wanted, atol=1e-5)


def test_norm_statistics_stay_float32():
    # The signal is below bfloat16's spacing of .125 at 20: rounded before, it would be lost.
    x = 20 + 0.05 * _normal(0, (1, 8, 8, 4))
    norm = layers.group_norm(2, dtype="bfloat16", name="norm")
    out = _run(norm, _init(norm, x), x)
    assert out.dtype == jnp.bfloat16
    groups = x.astype(np.float64).reshape(64, 2, 2)
    wanted = (groups - groups.mean((0, 2), keepdims=True)).reshape(x.shape)
    wanted /= np.sqrt(groups.var((0, 2)) + 1e-5).repeat(2)
    # float32 sums of squares near 400 leave some 1e-4 of a variance of .0025: up to 4 %.
    np.testing.assert_allclose(out.astype(np.float32), wanted, rtol=0.05, atol=0.02)


def test_conv_is_a_correlation():
    x = _normal(0, (1, 5, 6, 2))
    conv = layers.conv(3, name="conv")
    variables = _perturbed(_init(conv, x))
    kernel = variables["params"]["kernel"]
    wanted = np.stack(
        [
            sum(signal.correlate2d(x[0, :, :, i], kernel[:, :, i, o], mode="same") for i in (0, 1))
            for o in range(3)
        ],
        axis=-1,
    )
    got = _run(conv, variables, x)[0] - variables["params"]["bias"]
    np.testing.assert_allclose(got, wanted, atol=1e-5)  # sums of 18 float32 terms


def test_attend_is_softmax_attention():
    query, key, value = _normal(0, (2, 5, 3, 4)), _normal(1, (2, 7, 3, 4)), _normal(2, (2, 7, 3, 4))
    got = jax.jit(attention.attend)(query, key, value)
    for b in range(2):
        for h in range(3):
            weights = special.softmax(query[b, :, h] @ key[b, :, h].T / np.sqrt(4), axis=-1)
            np.testing.assert_allclose(got[b, :, h], weights @ value[b, :, h], atol=1e-5)


def test_attend_in_half_precision_keeps_scores_in_float32():
    # Products 1000 and 1001 are one number in bfloat16, whose spacing there is 4.
    query = jnp.ones((1, 1, 1, 2), jnp.bfloat16)
    key = jnp.array([[1000.0, 0.0], [1000.0, 1.0]], jnp.bfloat16).reshape(1, 2, 1, 2)
    value = jnp.array([[0.0, 0.0], [1.0, 1.0]], jnp.bfloat16).reshape(1, 2, 1, 2)
    got = jax.jit(attention.attend)(query, key, value)
    assert got.dtype == jnp.bfloat16
    wanted = special.expit(1 / np.sqrt(2))
    # One bfloat16 rounding of the weight, 2**-9 relative, and one of the result.
    np.testing.assert_allclose(got.astype(jnp.float32).ravel(), [wanted, wanted], rtol=4e-3)


def test_attention_block_is_equivariant_to_permuted_pixels():
    x = _normal(0, (2, 4, 4, 8))
    block = attention_block.AttentionBlock(heads=2, groups=4)
    variables = _perturbed(_init(block, x))
    order = np.random.default_rng(0).permutation(16)
    shuffled = x.reshape(2, 16, 8)[:, order].reshape(x.shape)
    wanted = _run(block, variables, x).reshape(2, 16, 8)[:, order].reshape(x.shape)
    got = _run(block, variables, shuffled)
    assert not np.allclose(got, shuffled, atol=1e-2)  # it does something
    np.testing.assert_allclose(got, wanted, atol=1e-5)


@pytest.mark.parametrize("scale_shift", [False, True])
def test_residual_block_starts_as_its_skip(scale_shift):
    x, emb = _normal(0, (2, 4, 4, 8)), _normal(1, (2, 16))
    block = layers.ResidualBlock(8, groups=4, scale_shift=scale_shift)
    variables = _init(block, x, emb)
    np.testing.assert_array_equal(_run(block, variables, x, emb), x)
    moved = _perturbed(variables)
    assert not np.allclose(_run(block, moved, x, emb), _run(block, moved, x, -emb))


def test_pooling_is_the_mean_and_its_inverse_repeats():
    x = _normal(0, (2, 4, 6, 3))
    down, up = layers.Downsample("pool"), layers.Upsample("pool")
    half = _run(down, {}, x)
    wanted = np.asarray(x).reshape(2, 2, 2, 3, 2, 3).mean((2, 4))
    np.testing.assert_allclose(half, wanted, atol=1e-6)
    np.testing.assert_array_equal(_run(up, {}, half), np.kron(half, np.ones((1, 2, 2, 1))))


def test_convolutional_resampling_halves_and_doubles():
    x = _normal(0, (1, 6, 4, 3))
    for module, shape in ((layers.Downsample(), (1, 3, 2, 3)), (layers.Upsample(), (1, 12, 8, 3))):
        out, variables = jax.jit(module.init_with_output)(jax.random.key(0), x)
        assert out.shape == shape
        assert variables["params"]["conv"]["kernel"].shape == (3, 3, 3, 3)
