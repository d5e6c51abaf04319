"""The two networks of Su's recipe for DDPM: without biases, attention or strided convolutions.

Both halve by means of 2x2 pixels and double by repetition. `SuA` adds the way down to the way up
and norms what a block returns; `SuB` joins them and norms what a block takes in.

Their norms group channels c of equal c modulo 32, not neighbours: where two activations are joined
each group so has channels of both.

Source: Su 2022, kexue.fm/archives/9152, and its code, bojone/Keras-DDPM, ddpm.py and ddpm2.py.
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jaxdiff import arrays
from jaxdiff.models import embeddings, layers, precision, resample

__all__ = ["SuA", "SuB"]


class SuA(nn.Module):
    """The light network: sums across, norms after.

        block:  h = silu(conv(silu(conv(x + dense(e))))),  out = norm(h + dense(x))

    dense(x) stands where the channels change; e is a learned row for each step. Kernels of a
    block start with 1 / sqrt(2 levels + 1) of the usual variance.

    Attributes:
        channels: the channels of the first convolution and the length of a step's row.
        multipliers: the channels of each level as multiples of `channels`.
        blocks: blocks a level, on either way.
        min_size: a level is not halved once its height or width is no larger than this.
        num_steps: the number of steps that have a row.
        out_channels: None for as many as the input has.
        groups: the groups of the norms; must divide `channels`.
        num_classes: the number of classes, 0 for none; label -1 is the null label.
        cond_dim: the length of a free conditioning vector, 0 for none; zeros are the null vector.
        dtype: the compute dtype, such as "bfloat16"; None for float32 (see `precision`).

    Source: Keras-DDPM, ddpm.py; labels and vectors are ours.
    """

    channels: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    blocks: int = 2
    min_size: int = 4
    num_steps: int = 1000
    out_channels: int | None = None
    groups: int = 32
    num_classes: int = 0
    cond_dim: int = 0
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Array, t: Array, cond: embeddings.Cond = None, *, train: bool = False
    ) -> Array:
        """The network's output for `x` at steps `t`.

        Args:
            x: [B, H, W, C], float.
            t: [B], the step 0..num_steps-1, rounded; NaN comes of any other.
            cond: as for `UNet`.
            train: nothing here depends on it.

        Returns:
            [B, H, W, out_channels], float32.

        Raises:
            ValueError: if a field or an input does not fit, before any compile.
        """
        cond = embeddings.completed(x, cond, self.num_classes, self.cond_dim)
        _check_inputs(self, x, t, cond)
        halvings = _halvings(x, self.min_size, len(self.multipliers))
        _check(self, x, halvings)
        if self.num_steps < 1:
            raise ValueError(f"num_steps must be positive, got {self.num_steps}")
        emb = embeddings.add_given(self._row(t), cond, self.num_classes, self.cond_dim)
        h = _conv(self.channels, self.dtype, "in")(x)
        stack = [h]
        for i, multiplier in enumerate(self.multipliers):
            for j in range(self.blocks):
                h = self._block(multiplier, f"down_{i}_{j}")(h, emb)
                stack.append(h)
            if i < halvings:
                h = resample.down(h)
                stack.append(h)
        h = self._block(self.multipliers[-1], "middle")(h, emb)
        h = self._up(h, stack[:-1], halvings, emb)
        self.sow("intermediates", "emb", emb)
        self.sow("intermediates", "features", h)
        h = _Norm(self.groups, self.dtype, name="norm")(h)
        features = x.shape[-1] if self.out_channels is None else self.out_channels
        return precision.output(_conv(features, self.dtype, "out")(h))

    def _row(self, t: Array) -> Array:
        """[B, channels]: the row of the nearest step."""
        step = jnp.round(jnp.asarray(t, arrays.float_dtype())).astype(jnp.int32)
        known = (step >= 0) & (step < self.num_steps)
        table = nn.Embed(
            self.num_steps,
            self.channels,
            embedding_init=nn.initializers.uniform(0.1),
            param_dtype=arrays.float_dtype(),
            name="steps",
        )
        # take fills with NaN past the end: a step that was never trained must not pass
        return table(jnp.where(known, step, self.num_steps))

    def _block(self, multiplier: int, name: str) -> nn.Module:
        scale = 1 / math.sqrt(2 * len(self.multipliers) + 1)
        return _BlockA(multiplier * self.channels, self.groups, scale, self.dtype, name=name)

    def _up(self, h: Array, stack: list[Array], halvings: int, emb: Array) -> Array:
        """Doubled where a level was halved, and the way down added, until none of it is left."""
        levels = len(self.multipliers)
        for i in range(levels):
            if i >= levels - halvings:
                h = resample.up(h) + stack.pop()
            for j in range(self.blocks):
                skip = stack.pop()
                multiplier = skip.shape[-1] // self.channels
                h = self._block(multiplier, f"up_{levels - 1 - i}_{j}")(h, emb) + skip
        return h


class SuB(nn.Module):
    """The network nearer to Ho's: joins across, norms before.

        block:  h = conv(silu(norm(x))),  out = conv_0(silu(norm(h + dense(e)))) + dense(x)

    dense(x) stands where the channels change; e comes of sines of the step through two layers.

    Attributes:
        channels, multipliers, out_channels, groups, num_classes, cond_dim, dtype: as of `SuA`.
        blocks: blocks a level on the way down; one more on the way up.

    Source: Keras-DDPM, ddpm2.py; labels and vectors are ours. Sines come first and cosines last
    here, there in turn.
    """

    channels: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    blocks: int = 2
    out_channels: int | None = None
    groups: int = 32
    num_classes: int = 0
    cond_dim: int = 0
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Array, t: Array, cond: embeddings.Cond = None, *, train: bool = False
    ) -> Array:
        """The network's output for `x` at time features `t`.

        Args:
            x: [B, H, W, C], float.
            t: [B], the step, or another time feature of some hundreds.
            cond: as for `UNet`.
            train: nothing here depends on it.

        Returns:
            [B, H, W, out_channels], float32.

        Raises:
            ValueError: if a field or an input does not fit, before any compile.
        """
        cond = embeddings.completed(x, cond, self.num_classes, self.cond_dim)
        _check_inputs(self, x, t, cond)
        levels = len(self.multipliers)
        _check(self, x, levels - 1)
        emb = embeddings.sinusoidal(t, self.channels, endpoint=False)
        for name in ("time_in", "time_out"):
            emb = nn.silu(_dense_of_example(4 * self.channels, name)(emb))
        emb = embeddings.add_given(emb, cond, self.num_classes, self.cond_dim)
        h = _conv(self.channels, self.dtype, "in")(x)
        stack = [h]
        for i, multiplier in enumerate(self.multipliers):
            for j in range(self.blocks):
                h = self._block(multiplier, f"down_{i}_{j}")(h, emb)
                stack.append(h)
            if i < levels - 1:
                h = resample.down(h)
                stack.append(h)
        h = self._block(self.multipliers[-1], "middle")(h, emb)
        for i, multiplier in reversed(list(enumerate(self.multipliers))):
            for j in range(self.blocks + 1):
                h = jnp.concatenate([h, stack.pop()], axis=-1)
                h = self._block(multiplier, f"up_{i}_{j}")(h, emb)
            h = resample.up(h) if i else h
        self.sow("intermediates", "emb", emb)
        self.sow("intermediates", "features", h)
        h = nn.silu(_Norm(self.groups, self.dtype, name="norm")(h))
        features = x.shape[-1] if self.out_channels is None else self.out_channels
        return precision.output(_conv(features, self.dtype, "out")(h))

    def _block(self, multiplier: int, name: str) -> nn.Module:
        return _BlockB(multiplier * self.channels, self.groups, self.dtype, name=name)


class _BlockA(nn.Module):
    features: int
    groups: int
    scale: float
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, emb: Array) -> Array:
        skip = _skip(x, self.features, self.dtype)
        e = _dense_of_example(x.shape[-1], "emb")(emb)
        h = x + e[:, None, None, :].astype(x.dtype)
        for name in ("conv_in", "conv_out"):
            h = nn.silu(_conv(self.features, self.dtype, name, self.scale)(h))
        return _Norm(self.groups, self.dtype, name="norm")(h + skip)


class _BlockB(nn.Module):
    features: int
    groups: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, emb: Array) -> Array:
        skip = _skip(x, self.features, self.dtype)
        h = nn.silu(_Norm(self.groups, self.dtype, name="norm_in")(x))
        h = _conv(self.features, self.dtype, "conv_in")(h)
        h = h + _dense_of_example(self.features, "emb")(emb)[:, None, None, :].astype(h.dtype)
        h = nn.silu(_Norm(self.groups, self.dtype, name="norm_out")(h))
        return _conv(self.features, self.dtype, "conv_out", 1e-10)(h) + skip


class _Norm(nn.Module):
    """Group norm over the pixels and the channels of equal c modulo `groups`."""

    groups: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, C] to the same shape, in `dtype`."""
        parameter = arrays.float_dtype()
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), parameter)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), parameter)
        wide = x.astype(jnp.promote_types(x.dtype, parameter))
        parts = wide.reshape(*x.shape[:-1], -1, self.groups)
        mean = jnp.mean(parts, axis=(1, 2, 3), keepdims=True)
        var = jnp.mean(jnp.square(parts - mean), axis=(1, 2, 3), keepdims=True)
        out = ((parts - mean) / jnp.sqrt(var + 1e-6)).reshape(x.shape)
        out = out * scale[None, None, None] + bias[None, None, None]
        return out.astype(out.dtype if self.dtype is None else self.dtype)


def _glorot(scale: float) -> layers.Initializer:
    return nn.initializers.variance_scaling(scale, "fan_avg", "uniform")


def _conv(features: int, dtype: Any, name: str, scale: float = 1.0) -> nn.Module:
    init = _glorot(scale)
    return layers.conv(features, kernel_init=init, bias=False, dtype=dtype, name=name)


def _dense_of_example(features: int, name: str) -> nn.Module:
    return layers.exact_dense(features, kernel_init=_glorot(1.0), bias=False, name=name)


def _skip(x: Array, features: int, dtype: Any) -> Array:
    """`x`, through a linear layer where the channels change."""
    if x.shape[-1] == features:
        return x
    init = _glorot(1.0)
    return layers.dense(features, kernel_init=init, bias=False, dtype=dtype, name="skip")(x)


def _halvings(x: Array, min_size: int, levels: int) -> int:
    """How many levels are halved, until the image is as small as `min_size`."""
    size, halvings = min(x.shape[1:3]), 0
    while halvings < levels and size > min_size:
        size, halvings = size // 2, halvings + 1
    return halvings


def _check_inputs(net: nn.Module, x: Array, t: Array, cond: embeddings.Cond) -> None:
    embeddings.check_inputs(
        x,
        t,
        cond,
        rank=4,
        embedding="sinusoidal",
        num_classes=net.num_classes,
        cond_dim=net.cond_dim,
        dtype=net.dtype,
    )


def _check(net: nn.Module, x: Array, halvings: int) -> None:
    """Raises ValueError unless the fields fit together and fit images of this size."""
    embeddings.check_fields(net)
    if not net.multipliers or min(net.multipliers) < 1 or net.blocks < 1:
        raise ValueError(
            "multipliers and blocks must be positive, "
            f"got multipliers={net.multipliers}, blocks={net.blocks}"
        )
    if net.groups < 1 or net.channels < 4 or net.channels % net.groups:
        raise ValueError(
            f"groups={net.groups} must divide channels={net.channels}, which must be at least 4"
        )
    height, width = x.shape[1:3]
    if height % 2**halvings or width % 2**halvings:
        raise ValueError(
            f"image height and width must divide by 2**halvings = {2**halvings} for "
            f"multipliers={net.multipliers}, got {height} x {width}"
        )
