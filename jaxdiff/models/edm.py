"""The residual block that DDPM++, NCSN++ and ADM have in common, and the styles they differ in.

    h = conv0(resample(silu(norm0(x))))
    h = silu(norm1(h + e))             or, with adaptive scale, silu(norm1(h) (1 + scale) + shift)
    h = (conv1(dropout(h)) + skip(resample(x))) c
    h = (proj(attend(qkv(norm2(h)))) + h) c                                 where there is attention

`e`, or `scale` and `shift`, are `affine(emb)`; skip is a 1x1 convolution or nothing.

Modules are named as in the published PyTorch networks, so that weights map one to one. Of a name
there, the first dot becomes "_" after "enc" and "dec", the others "/":

    enc.32x32_block0.conv0.weight  [O, I, k, k]  <->  enc_32x32_block0/conv0/kernel  [k, k, I, O]
    map_layer0.weight              [O, I]        <->  map_layer0/kernel              [I, O]
    dec.32x32_aux_norm.weight      [C]           <->  dec_32x32_aux_norm/scale       [C]
    map_noise.freqs                [E/2]         <->  map_noise/freqs                [E/2]

Biases keep name and shape. Qkv channels are ordered (head, channel, which of the three), as there.
Their filters for resampling are buffers, here constants.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jaxdiff import arrays
from jaxdiff.models import attention, embeddings, layers, resample

__all__ = ["DHARIWAL", "SONG", "Block", "Style", "check", "norm", "one_hot", "size_of"]


def _no_bias(fan_in: int) -> layers.Initializer:
    return layers.ZEROS


def _uniform_bias(fan_in: int) -> layers.Initializer:
    """U(-1, 1) / sqrt(fan_in), PyTorch's own."""
    bound = 1 / math.sqrt(fan_in)
    return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)


@dataclasses.dataclass(frozen=True)
class Style:
    """What the two families of blocks differ in besides sizes.

    Attributes:
        kernel: how kernels start.
        last: how the last kernel of a residual branch starts.
        qkv: how the kernel of the attention's projections starts.
        bias: how biases start, by the number of inputs.
        epsilon: of the norms.
        skip_scale: what a sum of two branches is multiplied by.
        adaptive_scale: whether conditioning scales and shifts instead of being added.
        project_skip: whether the skip has a convolution also where only the size changes.
    """

    kernel: layers.Initializer
    last: layers.Initializer
    qkv: layers.Initializer
    bias: Callable[[int], layers.Initializer]
    epsilon: float
    skip_scale: float
    adaptive_scale: bool
    project_skip: bool


def _xavier(gain: float) -> layers.Initializer:
    return nn.initializers.variance_scaling(gain**2, "fan_avg", "uniform")


def _kaiming(gain: float) -> layers.Initializer:
    return nn.initializers.variance_scaling(gain**2, "fan_in", "uniform")


SONG = Style(
    kernel=_xavier(1),
    last=_xavier(1e-5),
    qkv=_xavier(math.sqrt(0.2)),
    bias=_no_bias,
    epsilon=1e-6,
    skip_scale=math.sqrt(0.5),
    adaptive_scale=False,
    project_skip=True,
)
"""DDPM++ and NCSN++."""

DHARIWAL = Style(
    kernel=_kaiming(math.sqrt(1 / 3)),
    last=layers.ZEROS,
    qkv=_kaiming(math.sqrt(1 / 3)),
    bias=_uniform_bias,
    epsilon=1e-5,
    skip_scale=1.0,
    adaptive_scale=True,
    project_skip=False,
)
"""ADM."""


class Block(nn.Module):
    """A residual block, at half or twice the size if asked, with attention if it has heads.

    Attributes:
        features: the output channels.
        style: one of the families.
        heads: the number of attention heads, 0 for no attention.
        size: "same", "down" or "up".
        taps: the filter of resampling.
        dropout: the probability of a zero, in [0, 1).
        dtype: the compute dtype, None for the parameters' own.

    Source: Karras et al. 2022, arXiv:2206.00364, appendix F.1 and table 7.
    """

    features: int
    style: Style
    heads: int = 0
    size: str = "same"
    taps: tuple[float, ...] = (1, 1)
    dropout: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, emb: Array, train: bool = False) -> Array:
        """[B, H, W, C] and [B, E] to [B, H', W', features]."""
        style, channels = self.style, x.shape[-1]
        h = self._resized(nn.silu(self._norm("norm0", x)))
        h = self._conv("conv0", h, self.features, 3)
        h = self._conditioned(h, emb)
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        h = layers.conv(self.features, kernel_init=style.last, dtype=self.dtype, name="conv1")(h)
        x = self._resized(x)
        changed = channels != self.features
        if changed or (style.project_skip and self.size != "same"):
            x = self._conv("skip", x, self.features, 1)
        h = (h + x) * style.skip_scale
        return self._attended(h) if self.heads else h

    def _norm(self, name: str, h: Array) -> Array:
        return norm(h, self.style.epsilon, self.dtype, name)

    def _conv(self, name: str, h: Array, features: int, kernel: int) -> Array:
        made = layers.conv(
            features,
            kernel=kernel,
            kernel_init=self.style.kernel,
            bias_init=self.style.bias(kernel**2 * h.shape[-1]),
            dtype=self.dtype,
            name=name,
        )
        return made(h)

    def _resized(self, h: Array) -> Array:
        if self.size == "same":
            return h
        return (resample.down if self.size == "down" else resample.up)(h, self.taps)

    def _conditioned(self, h: Array, emb: Array) -> Array:
        affine = layers.exact_dense(
            self.features * (2 if self.style.adaptive_scale else 1),
            kernel_init=self.style.kernel,
            bias_init=self.style.bias(emb.shape[-1]),
            name="affine",
        )
        e = affine(emb)[:, None, None, :].astype(h.dtype)
        if not self.style.adaptive_scale:
            return nn.silu(self._norm("norm1", h + e))
        scale, shift = jnp.split(e, 2, axis=-1)
        return nn.silu(self._norm("norm1", h) * (1 + scale) + shift)

    def _attended(self, h: Array) -> Array:
        style, batch, width = self.style, h.shape[0], h.shape[-1]
        qkv = layers.conv(
            3 * width,
            kernel=1,
            kernel_init=style.qkv,
            bias_init=style.bias(width),
            dtype=self.dtype,
            name="qkv",
        )(self._norm("norm2", h))
        qkv = qkv.reshape(batch, -1, self.heads, width // self.heads, 3)
        out = attention.attend(qkv[..., 0], qkv[..., 1], qkv[..., 2]).reshape(h.shape)
        proj = layers.conv(width, kernel=1, kernel_init=style.last, dtype=self.dtype, name="proj")
        return (proj(out) + h) * style.skip_scale


def norm(h: Array, epsilon: float, dtype: Any, name: str) -> Array:
    """`h` through a group norm of 32 groups, or of fewer so that each has 4 channels.

    Raises:
        ValueError: the channels do not divide by so many.
    """
    channels = h.shape[-1]
    groups = max(1, min(32, channels // 4))
    if channels % groups:
        raise ValueError(
            f"channels and multipliers must give layers, and pairs of layers that are joined, of "
            f"a number of channels that divides by {groups}, got {channels} at {name}"
        )
    return layers.group_norm(groups, epsilon=epsilon, dtype=dtype, name=name)(h)


def one_hot(label: Array, num_classes: int) -> Array:
    """[B, num_classes]: zeros at label -1, NaN at labels that there are not."""
    label = jnp.asarray(label)
    known = (label >= -1) & (label < num_classes)
    rows = jax.nn.one_hot(label, num_classes, dtype=arrays.float_dtype())
    return jnp.where(known[:, None], rows, jnp.nan)


def size_of(x: Array, halvings: int = 0) -> str:
    """The name of an image's size, such as "32x32", after so many halvings; -1 doubles."""
    height, width = x.shape[1:3]
    if halvings < 0:
        return f"{height << -halvings}x{width << -halvings}"
    return f"{height >> halvings}x{width >> halvings}"


def check(net: nn.Module, height: int, width: int) -> None:
    """Raises ValueError unless the fields fit together and fit images of this size."""
    embeddings.check_fields(net)
    if not net.multipliers or min(net.multipliers) < 1 or net.blocks < 1 or net.channels < 4:
        raise ValueError(
            "multipliers and blocks must be positive and channels at least 4, got "
            f"multipliers={net.multipliers}, blocks={net.blocks}, channels={net.channels}"
        )
    if not 0 <= net.dropout < 1:
        raise ValueError(f"dropout must lie in [0, 1), got {net.dropout}")
    levels = len(net.multipliers)
    factor = 2 ** (levels - 1)
    if height % factor or width % factor:
        raise ValueError(
            f"image height and width must divide by 2**(levels - 1) = {factor} for "
            f"multipliers={net.multipliers}, got {height} x {width}"
        )
    heights = [height >> i for i in range(levels)]
    for size in net.attention:
        if size not in heights:
            raise ValueError(f"attention names height {size}, but the levels have {heights}")
