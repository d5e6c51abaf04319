"""What published networks do otherwise than ours by default.

Truth: sums and sines written out by numpy.
"""

import jax
import numpy as np
import pytest

from jaxdiff.models import DiT, UNet, attention_block, embeddings, layers, positions
from jaxdiff.models.dit import DiTBlock

RNG = np.random.default_rng(0)


def test_convolutions_with_zeros_on_each_side():
    """Stride 2: the first window begins a pixel before the image, the last ends with it."""
    x = RNG.normal(size=(1, 6, 4, 2)).astype(np.float32)
    down = layers.Downsample("conv_around")
    variables = down.init(jax.random.key(0), x)
    kernel = np.asarray(variables["params"]["conv"]["kernel"])
    wide = np.pad(x[0], ((1, 0), (1, 0), (0, 0)))
    wanted = np.array(
        [
            [np.einsum("ijc,ijco->o", wide[i : i + 3, j : j + 3], kernel) for j in (0, 2)]
            for i in (0, 2, 4)
        ]
    )
    np.testing.assert_allclose(down.apply(variables, x)[0], wanted, atol=1e-5)
    behind = layers.Downsample("conv").apply(variables, x)
    assert np.abs(behind[0] - wanted).max() > 0.1


def test_heads_by_their_channels():
    """16 channels in heads of 4 are 4 heads."""
    x = RNG.normal(size=(1, 2, 3, 16)).astype(np.float32)
    one = attention_block.AttentionBlock(heads=4, groups=4)
    two = attention_block.AttentionBlock(head_channels=4, groups=4)
    params = jax.tree.map(
        lambda a: RNG.normal(size=a.shape).astype(np.float32),
        jax.eval_shape(one.init, jax.random.key(0), x),
    )
    np.testing.assert_array_equal(one.apply(params, x), two.apply(params, x))


def test_positions_of_published_dits():
    """Columns first, then rows; w_i = 10000**(-i / h), i < h: the longest period left out."""
    place = positions.absolute("sincos", (2, 3))
    found = np.asarray(place.apply({}, (2, 3), 16))[0]
    w = 10_000.0 ** (-np.arange(4) / 4)
    for row in range(2):
        for column in range(3):
            parts = [f(n * w) for n in (column, row) for f in (np.sin, np.cos)]
            np.testing.assert_allclose(found[3 * row + column], np.concatenate(parts), atol=1e-6)
    with pytest.raises(ValueError, match="width must divide"):
        place.apply({}, (2, 3), 6)


def test_the_end_of_the_range_of_frequencies():
    """The first layer's input, found through a kernel that is the identity."""
    t = np.array([0.0, 7.0], np.float32)
    net = embeddings.Conditioning(8, waves=8, endpoint=False)
    params = {"time_in": {"kernel": np.eye(8), "bias": np.full(8, 30.0)}}
    params["time_out"] = {"kernel": np.eye(8), "bias": np.full(8, -30.0)}
    found = net.apply({"params": jax.tree.map(np.float32, params)}, t)
    angles = t[:, None] * 10_000.0 ** (-np.arange(4) / 4)
    wanted = np.concatenate([np.sin(angles), np.cos(angles)], 1)
    np.testing.assert_allclose(found, wanted, atol=1e-5)  # silu(30 + w) = 30 + w to float32


def test_attention_in_the_middle():
    x, t = np.zeros((1, 8, 8, 1), np.float32), np.zeros(1, np.float32)

    def has(**fields):
        net = UNet(8, (1, 2), 1, groups=4, **fields)
        return "middle_attention" in jax.eval_shape(net.init, jax.random.key(0), x, t)["params"]

    assert has(attention=(4,))
    assert not has(attention=())
    assert has(attention=(), middle_attention=True)
    assert not has(attention=(4,), middle_attention=False)
    with pytest.raises(ValueError, match="heads=3 must divide"):
        has(attention=(), middle_attention=True, heads=3)
    with pytest.raises(ValueError, match="head_channels=5 must divide"):
        has(attention=(4,), head_channels=5)


@pytest.mark.slow
def test_norms_of_dits_have_their_own_epsilon():
    """Tokens that are far below an epsilon are scaled by 1 / sqrt(epsilon): the branch of a huge
    one is nothing, and with it the block is the identity on tokens of that size."""
    h = 1e-4 * RNG.normal(size=(1, 4, 8)).astype(np.float32)
    emb = np.ones((1, 8), np.float32)
    x, t = np.zeros((1, 4, 4, 1), np.float32), np.zeros(1, np.float32)
    net = DiT(width=8, depth=1, heads=2, waves=32, epsilon=1e-6, perceptron_epsilon=1e9)
    shapes = jax.eval_shape(net.init, jax.random.key(0), x, t)["params"]
    assert shapes["conditioning"]["time_in"]["kernel"].shape == (32, 8)
    params = jax.tree.map(lambda a: RNG.normal(size=a.shape).astype(np.float32), shapes["block_0"])
    for layer in ("expand", "contract"):
        params["perceptron"][layer]["bias"] *= 0
    params["attention"]["out"]["bias"] *= 0
    params["attention"]["value"]["bias"] *= 0
    kernel, bias = params["modulation"]["kernel"], params["modulation"]["bias"]
    for part in (1, 4):  # shifts
        kernel[:, 8 * part : 8 * part + 8] = bias[8 * part : 8 * part + 8] = 0
    block = lambda a, p: DiTBlock(2, epsilon=a, perceptron_epsilon=p)  # noqa: E731
    moved = {
        name: np.abs(block(*how).apply({"params": params}, h, emb) - h).max()
        for name, how in {"none": (1e9, 1e9), "first": (1e-6, 1e9), "second": (1e9, 1e-6)}.items()
    }
    assert moved["none"] < 1e-5
    assert min(moved["first"], moved["second"]) > 1e-3
