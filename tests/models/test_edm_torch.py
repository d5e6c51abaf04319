"""Whole networks of the EDM paper in PyTorch's operations, from the same weights.

Truth: PyTorch, and the order in which the paper's table says that blocks come. A weight is looked
up by its published name, as `jaxdiff.models.edm` says how names map. Skipped unless PyTorch is
there. float32 through some twenty layers: 1e-5 of results of order one.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch.nn import functional

from jaxdiff.models import DhariwalUNet, SongUNet

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(2, 8, 8, 3)).astype(np.float32)
T = np.array([-1.3, 0.7], np.float32)
VECTOR = GENERATOR.normal(size=(2, 9)).astype(np.float32)
LABEL = np.array([2, -1], np.int32)
ONE_HOT = torch.tensor([[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])


def published(params):
    """Our weights under their published names and in their layout."""
    state = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        *parts, last = [k.key for k in path]
        name = ".".join(parts)
        for way in ("enc", "dec"):
            name = name.replace(f"{way}_", f"{way}.", 1) if name.startswith(way) else name
        leaf = np.asarray(leaf)
        leaf = leaf.T if leaf.ndim == 2 else leaf.transpose(3, 2, 0, 1) if leaf.ndim == 4 else leaf
        last = {"kernel": "weight", "scale": "weight"}.get(last, last)
        state[f"{name}.{last}"] = torch.tensor(leaf.copy())
    return state


class Walk:
    """A network's operations one by one, its weights by name."""

    def __init__(self, state, *, adaptive, epsilon, half, taps=(1, 1), head=None):
        self.state, self.adaptive, self.epsilon, self.half = state, adaptive, epsilon, half
        f = torch.tensor(taps, dtype=torch.float32)
        self.filter, self.margin, self.head = torch.outer(f, f) / f.sum() ** 2, len(taps) // 2, head

    def linear(self, name, x):
        weight = self.state[f"{name}.weight"]
        return functional.linear(x, weight, self.state.get(f"{name}.bias"))

    def conv(self, name, x, more=0):
        weight = self.state[f"{name}.weight"]
        bias = self.state[f"{name}.bias"]
        return functional.conv2d(x, weight, bias, padding=weight.shape[-1] // 2 + more)

    def norm(self, name, x):
        groups = min(32, x.shape[1] // 4)
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return functional.group_norm(x, groups, weight, bias, self.epsilon)

    def down(self, x, padded=True):
        kernel = self.filter.tile(x.shape[1], 1, 1, 1)
        padding = self.margin - 1 if padded else 0
        return functional.conv2d(x, kernel, stride=2, padding=padding, groups=x.shape[1])

    def up(self, x):
        kernel, channels = 4 * self.filter.tile(x.shape[1], 1, 1, 1), x.shape[1]
        return functional.conv_transpose2d(
            x, kernel, stride=2, padding=self.margin - 1, groups=channels
        )

    def block(self, name, x, emb, resize=lambda x: x):
        h = resize(functional.silu(self.norm(f"{name}.norm0", x)))
        h = self.conv(f"{name}.conv0", h)
        e = self.linear(f"{name}.affine", emb)[:, :, None, None]
        if self.adaptive:
            scale, shift = e.chunk(2, dim=1)
            h = self.norm(f"{name}.norm1", h) * (1 + scale) + shift
        else:
            h = self.norm(f"{name}.norm1", h + e)
        h, x = self.conv(f"{name}.conv1", functional.silu(h)), resize(x)
        x = self.conv(f"{name}.skip", x) if f"{name}.skip.weight" in self.state else x
        h = (h + x) * self.half
        if f"{name}.qkv.weight" not in self.state:
            return h
        size = self.head or h.shape[1]
        qkv = self.conv(f"{name}.qkv", self.norm(f"{name}.norm2", h))
        qkv = qkv.reshape(len(h), h.shape[1] // size, size, 3, -1).permute(3, 0, 1, 4, 2)
        out = functional.scaled_dot_product_attention(*qkv).transpose(2, 3).reshape(h.shape)
        return (self.conv(f"{name}.proj", out) + h) * self.half

    def both_ways(self, emb, sizes, blocks, carry):
        """Down and up again; `carry(size, h)` may add to what a halving gave."""
        h = self.conv(f"enc.{sizes[0]}_conv", torch.tensor(X).permute(0, 3, 1, 2))
        stack = [h]
        for size in sizes:
            if size != sizes[0]:
                h = carry(size, self.block(f"enc.{size}_down", h, emb, self.down))
                stack.append(h)
            for i in range(blocks):
                h = self.block(f"enc.{size}_block{i}", h, emb)
                stack.append(h)
        for name in ("in0", "in1"):
            h = self.block(f"dec.{sizes[-1]}_{name}", h, emb)
        for size in reversed(sizes):
            h = h if size == sizes[-1] else self.block(f"dec.{size}_up", h, emb, self.up)
            for i in range(blocks + 1):
                h = self.block(f"dec.{size}_block{i}", torch.cat([h, stack.pop()], 1), emb)
        return h


def weights_of(net):
    cond = {"label": LABEL, "vector": VECTOR}
    shapes = jax.eval_shape(net.init, jax.random.key(0), X, T, cond)

    def draw(a):
        scale = 1 / np.sqrt(np.prod(a.shape[:-1]))
        return jnp.asarray(scale * GENERATOR.normal(size=a.shape), a.dtype)

    variables = jax.tree.map(draw, shapes)
    return variables, np.asarray(jax.jit(net.apply)(variables, X, T, cond))


def waves(frequencies):
    angles = torch.tensor(T)[:, None] * torch.as_tensor(frequencies, dtype=torch.float32)
    return angles.sin(), angles.cos()


def compare(out, ours):
    wanted = out.permute(0, 2, 3, 1).numpy()
    assert np.abs(wanted).max() > 0.1
    np.testing.assert_allclose(ours, wanted, atol=1e-5 * max(1, np.abs(wanted).max()))


FIELDS = {"channels": 8, "multipliers": (1, 2, 2), "blocks": 2, "num_classes": 4, "cond_dim": 9}
SIZES = ("8x8", "4x4", "2x2")


@pytest.mark.parametrize("encoder", ["standard", "residual"])
def test_ddpmpp_and_ncsnpp(encoder):
    more = {"embedding": "fourier", "waves": 2, "encoder": "residual", "taps": (1, 3, 3, 1)}
    more = more if encoder == "residual" else {}
    variables, ours = weights_of(SongUNet(**FIELDS, attention=(4,), **more))
    state = published(variables["params"])
    walk = Walk(state, adaptive=False, epsilon=1e-6, half=0.5**0.5, taps=more.get("taps", (1, 1)))
    if encoder == "residual":
        emb = torch.cat(waves(2 * np.pi * state["map_noise.freqs"]), 1)
    else:
        emb = torch.cat(waves(10_000.0 ** (-np.arange(4) / 3)), 1)
    emb = (
        emb
        + walk.linear("map_label", ONE_HOT * 2)
        + walk.linear("map_augment", torch.tensor(VECTOR))
    )
    for name in ("map_layer0", "map_layer1"):
        emb = functional.silu(walk.linear(name, emb))
    image = torch.tensor(X).permute(0, 3, 1, 2)

    def carry(size, h):
        nonlocal image
        if encoder == "standard":
            return h
        wide = walk.conv(f"enc.{size}_aux_residual", image, walk.margin - 1)
        image = (h + walk.down(wide, padded=False)) / 2**0.5
        return image

    h = walk.both_ways(emb, SIZES, 2, carry)
    h = functional.silu(walk.norm("dec.8x8_aux_norm", h))
    compare(walk.conv("dec.8x8_aux_conv", h), ours)


def test_adm():
    variables, ours = weights_of(DhariwalUNet(**FIELDS, attention=(4, 2), head_channels=8))
    walk = Walk(published(variables["params"]), adaptive=True, epsilon=1e-5, half=1.0, head=8)
    sines, cosines = waves(10_000.0 ** (-np.arange(4) / 4))
    emb = torch.cat([cosines, sines], 1) + walk.linear("map_augment", torch.tensor(VECTOR))
    emb = walk.linear("map_layer1", functional.silu(walk.linear("map_layer0", emb)))
    emb = functional.silu(emb + walk.linear("map_label", ONE_HOT))
    h = walk.both_ways(emb, SIZES, 2, lambda size, h: h)
    compare(walk.conv("out_conv", functional.silu(walk.norm("out_norm", h))), ours)
