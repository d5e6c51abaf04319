"""DDPM++, NCSN++ and ADM: one block in numpy, how they start, what they are told, what is refused.

Truth: the formulas of the paper written in numpy, and the bounds of its initial distributions.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal, special

from jaxdiff.models import DhariwalUNet, SongUNet, edm, song

SONG = {"channels": 4, "multipliers": (1, 2), "blocks": 1, "attention": (4,)}
NCSNPP = {"embedding": "fourier", "waves": 2, "encoder": "residual", "taps": (1, 3, 3, 1)}
ADM = {**SONG, "head_channels": 4}
QUICK = {"xla_backend_optimization_level": 0}
GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(3, 8, 8, 2)).astype(np.float32)
T = np.array([-1.0, 0.3, 1.0], np.float32)


def silu(x):
    return x * special.expit(x)


def group_norm(x, params, epsilon):
    groups = max(1, min(32, x.shape[-1] // 4))
    parts = x.reshape(*x.shape[:-1], groups, -1)
    mean, var = parts.mean((0, 1, 3), keepdims=True), parts.var((0, 1, 3), keepdims=True)
    out = ((parts - mean) / np.sqrt(var + epsilon)).reshape(x.shape)
    return out * params["scale"] + params["bias"]


def conv(x, params):
    kernel = params["kernel"]
    if kernel.shape[0] == 1:
        return x @ kernel[0, 0] + params["bias"]
    parts = [
        sum(signal.correlate2d(x[..., i], kernel[:, :, i, o], "same") for i in range(x.shape[-1]))
        for o in range(kernel.shape[-1])
    ]
    return np.stack(parts, -1) + params["bias"]


def halved(x):
    return (x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4


def one_block(x, emb, params, style, heads):
    """A block that halves the size, in numpy, for one image."""
    h = conv(halved(silu(group_norm(x, params["norm0"], style.epsilon))), params["conv0"])
    e = emb @ params["affine"]["kernel"] + params["affine"]["bias"]
    if style.adaptive_scale:
        scale, shift = np.split(e, 2)
        h = silu(group_norm(h, params["norm1"], style.epsilon) * (1 + scale) + shift)
    else:
        h = silu(group_norm(h + e, params["norm1"], style.epsilon))
    h = (conv(h, params["conv1"]) + conv(halved(x), params["skip"])) * style.skip_scale
    qkv = conv(group_norm(h, params["norm2"], style.epsilon), params["qkv"])
    q, k, v = np.moveaxis(qkv.reshape(h.shape[0] * h.shape[1], heads, -1, 3), 3, 0)
    weights = special.softmax(np.einsum("nhd,mhd->hnm", q, k) / np.sqrt(q.shape[-1]), axis=-1)
    out = np.einsum("hnm,mhd->nhd", weights, v).reshape(h.shape)
    return (conv(out, params["proj"]) + h) * style.skip_scale


def filled(shapes, seed=1):
    generator = np.random.default_rng(seed)
    draw = lambda a: jnp.asarray(0.3 * generator.normal(size=a.shape), a.dtype)  # noqa: E731
    return jax.tree.map(draw, shapes)


@pytest.mark.parametrize("style", [edm.SONG, edm.DHARIWAL], ids=["song", "dhariwal"])
def test_a_block_is_the_formula(style, x64):
    block = edm.Block(8, style, heads=2, size="down")
    x, emb = GENERATOR.normal(size=(2, 4, 4, 4)), GENERATOR.normal(size=(2, 6))
    variables = filled(jax.eval_shape(block.init, jax.random.key(0), x, emb))
    got = jax.jit(block.apply, compiler_options=QUICK)(variables, x, emb)
    params = jax.tree.map(np.asarray, variables["params"])
    for i in range(2):
        np.testing.assert_allclose(got[i], one_block(x[i], emb[i], params, style, 2), atol=1e-11)


@pytest.mark.parametrize(
    ("style", "bias", "rules"),
    [
        (edm.SONG, 0, {"conv0": 6 / (9 * 12), "conv1": 6e-10 / (9 * 16), "qkv": 1.2 / 32}),
        (edm.DHARIWAL, 1 / 36, {"conv0": 1 / 36, "conv1": 0, "qkv": 1 / 8}),
    ],
    ids=["song", "dhariwal"],
)
def test_a_block_starts_as_published(style, bias, rules):
    """Kernels uniform in +-sqrt of the rule: Glorot's, or 1 / inputs; where a branch ends, less."""
    block = edm.Block(8, style, heads=2)
    start = jax.jit(block.init, compiler_options=QUICK)
    variables = start(jax.random.key(0), X[..., [0, 1, 0, 1]], X[:, 0, :, 0])
    for name, square in rules.items():
        largest, number = bounds(variables, f"{name}/kernel")
        # the largest of n uniform numbers is within 7 / n of the bound but once in exp(7)
        assert np.sqrt(square) * max(0, 1 - 7 / number) <= largest <= np.sqrt(square) * 1.000001
    assert bool(bounds(variables, "conv0/bias")[0]) == bool(bias)
    assert bounds(variables, "conv0/bias")[0] <= np.sqrt(bias)


def bounds(variables, path):
    leaf = variables["params"]
    for part in path.split("/"):
        leaf = leaf[part]
    return float(jnp.abs(leaf).max()), leaf.size


@pytest.mark.slow
def test_song_starts_as_published():
    """Glorot-uniform kernels, 1e-5 of that where a branch ends, no biases."""
    net = SongUNet(**{**SONG, "channels": 8}, num_classes=3, cond_dim=9)
    cond = {"label": np.array([0, 1, -1]), "vector": np.zeros((3, 9), np.float32)}
    variables = jax.jit(net.init, compiler_options=QUICK)(jax.random.key(0), X, T, cond)
    for path, fans, gain in [
        ("enc_8x8_block0/conv0/kernel", 9 * (8 + 8), 1),
        ("enc_8x8_block0/conv1/kernel", 9 * (8 + 8), 1e-5),
        ("enc_4x4_block0/qkv/kernel", 16 + 48, 0.2**0.5),
        ("enc_4x4_block0/proj/kernel", 16 + 16, 1e-5),
        ("dec_8x8_aux_conv/kernel", 9 * (8 + 2), 1e-5),
        ("map_label/kernel", 3 + 8, 1),
        ("map_augment/kernel", 9 + 8, 1),
    ]:
        largest, number = bounds(variables, path)
        bound = gain * np.sqrt(6 / fans)
        # the largest of n uniform numbers is within 7 / n of the bound but once in exp(7)
        assert bound * max(0, 1 - 7 / number) < largest <= bound * (1 + 1e-6), path
    flat, _ = jax.tree_util.tree_flatten_with_path(variables["params"])
    assert all(not leaf.any() for path, leaf in flat if path[-1].key == "bias")


@pytest.mark.slow
def test_adm_starts_as_published():
    """Kernels and biases in +-1 / sqrt(inputs), exact zeros where a branch ends; output 0."""
    net = DhariwalUNet(**ADM, num_classes=3, cond_dim=9)
    start = jax.jit(net.init_with_output, compiler_options=QUICK)
    out, variables = start(jax.random.key(0), X, T, np.array([0, 1, -1]))
    np.testing.assert_array_equal(out, np.zeros_like(X))
    for path, inputs in [
        ("enc_8x8_block0/conv0/kernel", 36),
        ("enc_8x8_block0/affine/kernel", 16),
        ("dec_8x8_block0/conv0/bias", 9 * 12),
        ("map_layer1/bias", 16),
    ]:
        largest, number = bounds(variables, path)
        assert max(0, 1 - 7 / number) < largest * np.sqrt(inputs) <= 1 + 1e-6, path
    for path in ("enc_8x8_block0/conv1", "enc_4x4_block0/proj", "out_conv"):
        assert bounds(variables, f"{path}/kernel")[0] == 0
    assert bounds(variables, "map_augment/kernel")[0] == 0
    assert "bias" not in variables["params"]["map_label"]


@pytest.fixture(scope="module")
def ncsnpp():
    """(apply, variables as if trained) of a small NCSN++ with labels and augmentation."""
    net = SongUNet(**SONG, **NCSNPP, num_classes=3, cond_dim=9)
    label = np.zeros(3, np.int32)
    variables = filled(jax.eval_shape(net.init, jax.random.key(0), X, T, label))
    return jax.jit(net.apply, compiler_options=QUICK), variables


@pytest.mark.slow
def test_null_label_and_vector_are_zeros(ncsnpp):
    apply, variables = ncsnpp
    vector = np.zeros((3, 9), np.float32)
    label = np.array([2, -1, 0])
    bare = apply(variables, X, T, {"label": label, "vector": vector})
    np.testing.assert_allclose(apply(variables, X, T, label), bare, atol=1e-6)
    # Its row taken away, a label is the null label, and only there.
    kernel = variables["params"]["map_label"]["kernel"]
    without = {"map_label": {**variables["params"]["map_label"], "kernel": kernel.at[2].set(0)}}
    changed = {"params": {**variables["params"], **without}}
    told = {"label": np.array([-1, -1, 0]), "vector": vector}
    again = {"label": label, "vector": vector}
    np.testing.assert_array_equal(apply(changed, X, T, again), apply(changed, X, T, told))
    assert np.abs(bare - apply(changed, X, T, again))[0].max() > 1e-3
    told = {"label": np.array([3, -1, -2]), "vector": vector}
    assert np.isnan(apply(variables, X, T, told)).all((1, 2, 3)).tolist() == [True, False, True]
    vector[1, 4] = 1
    changed = np.abs(bare - apply(variables, X, T, {"label": label, "vector": vector}))
    assert (changed.max((1, 2, 3)) > 1e-3).tolist() == [False, True, False]


def test_frequencies_do_not_learn():
    waves = song._Fourier(4)
    frequencies = {"params": {"freqs": jnp.array([0.5, 20.0])}}
    gradient = jax.grad(lambda v: jnp.sum(waves.apply(v, T)))(frequencies)
    np.testing.assert_array_equal(gradient["params"]["freqs"], 0)
    angles = 2 * np.pi * T.astype(np.float64)[:, None] * [0.5, 20.0]
    wanted = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
    # float32 angles of up to 126
    np.testing.assert_allclose(waves.apply(frequencies, T), wanted, atol=3e-5)


def test_sizes_need_not_be_square():
    net = SongUNet(**SONG, **NCSNPP)
    x = jax.ShapeDtypeStruct((2, 8, 12, 3), jnp.float32)
    out, variables = jax.eval_shape(net.init_with_output, jax.random.key(0), x, T[:2])
    assert out.shape == x.shape
    assert "enc_4x6_aux_residual" in variables["params"]


LABEL = np.zeros(3, np.int32)


@pytest.mark.parametrize(
    ("kind", "changes", "cond", "words"),
    [
        (SongUNet, {"encoder": "skip"}, None, ["encoder", "residual", "skip"]),
        (SongUNet, {"embedding": "positional"}, None, ["embedding", "sinusoidal", "positional"]),
        (SongUNet, {"taps": (1, 2, 1)}, None, ["taps", "even", "(1, 2, 1)"]),
        (SongUNet, {"waves": 0}, None, ["waves", "0"]),
        (SongUNet, {"dropout": 1.5}, None, ["dropout", "1.5"]),
        (SongUNet, {"attention": (16,)}, None, ["attention", "16", "[8, 4]"]),
        (SongUNet, {"multipliers": (1, 1, 1, 1, 1)}, None, ["divide by", "16", "8 x 8"]),
        (SongUNet, {"multipliers": ()}, None, ["multipliers=()"]),
        (SongUNet, {"blocks": 0}, None, ["blocks=0"]),
        (SongUNet, {"channels": 2}, None, ["channels", "2"]),
        (SongUNet, {"channels": 144}, None, ["divides by 32", "144"]),
        (SongUNet, {"dtype": "int32"}, None, ["dtype", "int32"]),
        (SongUNet, {}, LABEL, ["cond must be None", "num_classes=0"]),
        (SongUNet, {"num_classes": 3}, None, ["cond is missing", "num_classes=3"]),
        (SongUNet, {"num_classes": 3, "cond_dim": 9}, None, ["cond must be a dict"]),
        (SongUNet, {"cond_dim": 9}, np.zeros((3, 8), np.float32), ["[3, 9]", "[3, 8]"]),
        (SongUNet, {"num_classes": 3}, LABEL[:2], ["label", "[3]", "[2]"]),
        (DhariwalUNet, {"head_channels": 3}, None, ["head_channels=3", "8"]),
        (DhariwalUNet, {"head_channels": 0}, None, ["head_channels=0"]),
        (DhariwalUNet, {"num_classes": 3}, T, ["label", "integer", "float32"]),
        (DhariwalUNet, {"channels": 144, "head_channels": 144}, None, ["divides by 32", "144"]),
    ],
)
def test_bad_fields_and_conditions_are_named(kind, changes, cond, words):
    net = kind(**{**(SONG if kind is SongUNet else ADM), **changes})
    with pytest.raises(ValueError, match=r"must|but|missing") as error:
        jax.eval_shape(net.init, jax.random.key(0), X, T, cond)
    for word in words:
        assert word in str(error.value)
