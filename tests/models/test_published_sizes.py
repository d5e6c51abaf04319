"""Numbers of parameters, summed by hand from the published tables of layers.

Truth: the layers that the papers and their released configurations list, written out here one by
one, and the numbers that were published. Nothing is run: `jax.eval_shape` gives the shapes.
"""

import math

import jax
import jax.numpy as jnp
import pytest

from jaxdiff import models


def leaves(net, size, cond=None):
    """{path: shape} of a network's parameters for images of that size."""
    x = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    t = jax.ShapeDtypeStruct((1,), jnp.float32)
    variables = jax.eval_shape(net.init, jax.random.key(0), x, t, cond)
    paths, _ = jax.tree_util.tree_flatten_with_path(variables["params"])
    return {"/".join(k.key for k in path): leaf.shape for path, leaf in paths}


def count(shapes):
    return sum(math.prod(shape) for shape in shapes.values())


def conv(i, o, kernel=3):
    return kernel**2 * i * o + o


def linear(i, o):
    return i * o + o


def block(i, o, *, affine, skip, attention=False):
    """Two norms, two convolutions, conditioning by 4 x channels, a skip, perhaps attention."""
    total = 2 * i + conv(i, o) + affine + 2 * o + conv(o, o) + (conv(i, o, 1) if skip else 0)
    return total + (2 * o + conv(o, 3 * o, 1) + conv(o, o, 1) if attention else 0)


def song(i, o, *, attention=False, resized=False):
    return block(i, o, affine=linear(512, o), skip=i != o or resized, attention=attention)


def adm(i, o, *, attention=False):
    return block(i, o, affine=linear(768, 2 * o), skip=i != o, attention=attention)


def song_levels():
    """CIFAR-10: 128 channels, multipliers (2, 2, 2), 4 blocks, attention at 16."""
    down = [
        conv(3, 128),
        *[song(128, 256), 3 * song(256, 256)],  # 32 x 32
        *[song(256, 256, resized=True), 4 * song(256, 256, attention=True)],  # 16 x 16
        *[song(256, 256, resized=True), 4 * song(256, 256)],  # 8 x 8
    ]
    up = [
        *[song(256, 256, attention=True), song(256, 256), 5 * song(512, 256)],
        *[song(256, 256, resized=True), 4 * song(512, 256), song(512, 256, attention=True)],
        *[song(256, 256, resized=True), 4 * song(512, 256), song(384, 256)],
        *[2 * 256, conv(256, 3)],
    ]
    return sum(down) + sum(up)


@pytest.mark.slow
def test_ddpmpp_for_cifar10():
    shapes = leaves(models.ddpmpp_cifar10(), 32)
    mapping = 9 * 128 + linear(128, 512) + linear(512, 512)
    assert count(shapes) == mapping + song_levels() == 55_733_891  # as published
    assert shapes["map_augment/kernel"] == (9, 128)
    assert shapes["enc_16x16_block3/qkv/kernel"] == (1, 1, 256, 768)
    assert shapes["dec_32x32_block4/conv0/kernel"] == (3, 3, 384, 256)
    labelled = leaves(models.ddpmpp_cifar10(num_classes=10), 32, {"label": jnp.zeros(1, int)})
    assert count(labelled) - count(shapes) == linear(10, 128)


@pytest.mark.slow
def test_ncsnpp_for_cifar10():
    """Some 56.4 million and 128 frequencies, which are no parameters there.

    The published structure, built in PyTorch, has the same 56,397,827.
    """
    shapes = leaves(models.ncsnpp_cifar10(), 32)
    mapping = 9 * 256 + linear(256, 512) + linear(512, 512)
    carried = conv(3, 256) + conv(256, 256)
    assert shapes.pop("map_noise/freqs") == (128,)
    assert count(shapes) == mapping + song_levels() + carried == 56_397_827
    assert round(count(shapes) / 1e6) == 56


@pytest.mark.slow
def test_adm_for_imagenet():
    down = [
        *[conv(3, 192), 3 * adm(192, 192)],  # 64 x 64
        *[adm(192, 192), adm(192, 384, attention=True), 2 * adm(384, 384, attention=True)],
        *[adm(384, 384), adm(384, 576, attention=True), 2 * adm(576, 576, attention=True)],
        *[adm(576, 576), adm(576, 768, attention=True), 2 * adm(768, 768, attention=True)],
    ]
    up = [
        *[adm(768, 768, attention=True), adm(768, 768)],
        *[3 * adm(1536, 768, attention=True), adm(1344, 768, attention=True), adm(768, 768)],
        *[adm(1344, 576, attention=True), 2 * adm(1152, 576, attention=True)],
        *[adm(960, 576, attention=True), adm(576, 576)],
        *[adm(960, 384, attention=True), 2 * adm(768, 384, attention=True)],
        *[adm(576, 384, attention=True), adm(384, 384)],
        *[adm(576, 192), 3 * adm(384, 192), 2 * 192, conv(192, 3)],
    ]
    mapping = linear(192, 768) + linear(768, 768) + 1000 * 768
    shapes = leaves(models.adm_imagenet64(), 64, jnp.zeros(1, int))
    assert count(shapes) == mapping + sum(down) + sum(up) == 295_899_267
    assert round(count(shapes) / 1e6, 1) == 295.9  # as published
    assert shapes["enc_8x8_block0/affine/kernel"] == (768, 1536)


def su_a(i, o):
    return (i * o if i != o else 0) + 128 * i + 9 * i * o + 9 * o * o + 2 * o


def su_b(i, o):
    return (i * o if i != o else 0) + 2 * i + 9 * i * o + 512 * o + 2 * o + 9 * o * o


def down_of(block):
    """Two blocks at each of 128, 128, 256, 256, 512, 512 channels, and one in the middle."""
    widths = [128, 128, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512]
    befores = [128, *widths[:-1]]
    return sum(block(i, o) for i, o in zip(befores, widths, strict=True)) + block(512, 512)


def test_su_a():
    # A block gives as many channels as the activation that is added to it: the first of a level's
    # two goes with a block's output, the second with a halved image or the first convolution.
    up = [
        *[2 * su_a(512, 512), su_a(512, 512), su_a(512, 256)],
        *[2 * su_a(256, 256), su_a(256, 256), su_a(256, 128)],
        *[2 * su_a(128, 128), 2 * su_a(128, 128)],
    ]
    ends = 1000 * 128 + 9 * 3 * 128 + 2 * 128 + 9 * 128 * 3
    shapes = leaves(models.SuA(), 128)
    assert count(shapes) == ends + down_of(su_a) + sum(up) == 50_514_176
    assert not [path for path in shapes if path.endswith("bias") and "norm" not in path]


def test_su_b():
    up = [
        *[3 * su_b(1024, 512), 2 * su_b(1024, 512), su_b(768, 512)],
        *[su_b(768, 256), 2 * su_b(512, 256), 2 * su_b(512, 256), su_b(384, 256)],
        *[su_b(384, 128), 2 * su_b(256, 128), 3 * su_b(256, 128)],
    ]
    ends = 128 * 512 + 512 * 512 + 9 * 3 * 128 + 2 * 128 + 9 * 128 * 3
    shapes = leaves(models.SuB(), 128)
    assert count(shapes) == ends + down_of(su_b) + sum(up) == 92_460_800


@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "size"),
    [(models.ncsnpp_cifar10(), 32), (models.SuA(), 128), (models.SuB(), 128)],
    ids=["ncsnpp", "su_a", "su_b"],
)
def test_every_leaf_is_of_a_known_form(net, size):
    for path, shape in leaves(net, size).items():
        name = path.rsplit("/", 1)[-1]
        ranks = {"kernel": (2, 4), "embedding": (2,), "scale": (1,), "bias": (1,), "freqs": (1,)}
        assert len(shape) in ranks[name], path
        assert min(shape) > 0
        if len(shape) == 4:
            assert shape[:2] in ((1, 1), (3, 3)), path
