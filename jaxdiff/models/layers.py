"""The pieces of an image network: norm, convolution, residual block, resampling.

Activations follow `dtype`, a compute dtype such as "bfloat16" or None for the parameters' own, as
`precision` says. Images are channels-last.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jaxdiff import arrays
from jaxdiff.models import precision

__all__ = [
    "LECUN",
    "ZEROS",
    "Downsample",
    "Initializer",
    "ResidualBlock",
    "Upsample",
    "conv",
    "dense",
    "depth_to_space",
    "exact_dense",
    "group_norm",
    "layer_norm",
    "residual",
]

Initializer = Callable[..., Array]
"""(key, shape, dtype) to a parameter."""

LECUN = nn.initializers.lecun_normal()
ZEROS = nn.initializers.zeros


def dense(
    features: int,
    *,
    kernel_init: Initializer = LECUN,
    bias_init: Initializer = ZEROS,
    bias: bool = True,
    dtype: Any = None,
    name: str,
) -> nn.Dense:
    """A linear layer over the last axis of pixels or tokens.

    Args:
        features: the output width.
        kernel_init: how its kernel starts; the last layer of a residual branch as `ZEROS`.
        bias_init: how its bias starts.
        bias: whether it has one.
        dtype: the compute dtype, None for the parameters' own.
        name: the name of its parameters.
    """
    return nn.Dense(
        features,
        use_bias=bias,
        kernel_init=kernel_init,
        bias_init=bias_init,
        dtype=dtype,
        param_dtype=arrays.float_dtype(),
        name=name,
    )


def exact_dense(
    features: int,
    *,
    kernel_init: Initializer = LECUN,
    bias_init: Initializer = ZEROS,
    bias: bool = True,
    name: str | None = None,
) -> nn.Dense:
    """A linear layer of what describes a whole example, [B, E]: never in half precision.

    Args:
        features: the output width.
        kernel_init: how its kernel starts.
        bias_init: how its bias starts.
        bias: whether it has one.
        name: the name of its parameters; in `setup` that of the attribute.
    """
    dtype = arrays.float_dtype()
    return nn.Dense(
        features,
        use_bias=bias,
        kernel_init=kernel_init,
        bias_init=bias_init,
        dtype=dtype,
        param_dtype=dtype,
        precision=precision.EXACT,
        name=name,
    )


def conv(
    features: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    padding: str | int = "SAME",
    kernel_init: Initializer = LECUN,
    bias_init: Initializer = ZEROS,
    bias: bool = True,
    dtype: Any = None,
    name: str,
) -> nn.Conv:
    """A square convolution.

    Args:
        features: the output channels.
        kernel: the side of the kernel in pixels.
        stride: the step of the output in pixels.
        padding: pixels of zeros on each side; "SAME" for as few as give an output for each step,
            the odd one behind.
        kernel_init: how its kernel starts; the last layer of a residual branch as `ZEROS`.
        bias_init: how its bias starts.
        bias: whether it has one.
        dtype: the compute dtype, None for the parameters' own.
        name: the name of its parameters.
    """
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=(stride, stride),
        padding=padding,
        use_bias=bias,
        kernel_init=kernel_init,
        bias_init=bias_init,
        dtype=dtype,
        param_dtype=arrays.float_dtype(),
        name=name,
    )


def group_norm(groups: int, *, epsilon: float = 1e-5, dtype: Any = None, name: str) -> nn.GroupNorm:
    """Group normalisation with a learned scale and shift, its statistics in float32.

        y = (x - mean) / sqrt(var + epsilon) * scale + bias

    Mean and variance are over the pixels and over the channels of a group.

    Args:
        groups: the number of groups; must divide the channels.
        epsilon: what keeps the quotient finite; published networks differ in it.
        dtype: the dtype of the result, None for the parameters' own.
        name: the name of its parameters.

    Source: Wu and He 2018, arXiv:1803.08494, eq. 1-3.
    """
    return nn.GroupNorm(
        groups, epsilon=epsilon, dtype=dtype, param_dtype=arrays.float_dtype(), name=name
    )


def layer_norm(
    *, affine: bool = True, epsilon: float = 1e-5, dtype: Any = None, name: str
) -> nn.LayerNorm:
    """Layer normalisation over the last axis, its statistics in float32.

    Args:
        affine: whether it has a learned scale and shift; adaptive norms bring their own.
        epsilon: what keeps the quotient finite; published networks differ in it.
        dtype: the dtype of the result, None for the parameters' own.
        name: the name of its parameters.

    Source: Ba et al. 2016, arXiv:1607.06450, eq. 3.
    """
    return nn.LayerNorm(
        epsilon=epsilon,
        use_scale=affine,
        use_bias=affine,
        dtype=dtype,
        param_dtype=arrays.float_dtype(),
        name=name,
    )


def residual(
    h: Array, branch: Callable[[Array], Array], norm: nn.Module, drop: nn.Module, where: str
) -> Array:
    """A residual branch with its norm before it or after the sum.

        pre     h + drop(branch(norm(h)))
        post    norm(h + drop(branch(h)))

    Args:
        h: [B, N, width].
        branch: such to such.
        norm: its norm.
        drop: its dropout.
        where: "pre" or "post".

    Source: post: Vaswani et al. 2017, arXiv:1706.03762, section 3.1; pre: Xiong et al. 2020,
    arXiv:2002.04745.
    """
    if where == "post":
        return norm(h + drop(branch(h)))
    return h + drop(branch(norm(h)))


def depth_to_space(x: Array, height: int, width: int) -> Array:
    """Each pixel's channels as a block of pixels.

    Args:
        x: [B, h, w, (H/h) (W/w) C], channels ordered (row, column, C) of the block.
        height: H, a multiple of h.
        width: W, a multiple of w.

    Returns:
        [B, H, W, C].
    """
    batch, rows, columns, _ = x.shape
    x = x.reshape(batch, rows, columns, height // rows, width // columns, -1)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height, width, -1)


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice, with the conditioning vector in between.

        h = conv(silu(norm(x)))
        h = norm(h + e)                 or, with scale_shift, norm(h) (1 + scale) + shift
        out = skip(x) + conv_0(dropout(silu(h)))

    `e`, or `scale` and `shift`, are linear in silu(emb), and left out without it; conv_0 starts as
    zero; skip is a 1x1 convolution where the channels change.

    Attributes:
        features: the output channels.
        groups: the groups of the norms; must divide both channel counts.
        scale_shift: whether `emb` scales and shifts after the norm instead of being added.
        dropout: the probability of a zero, in [0, 1).
        epsilon: of the norms.
        dtype: the compute dtype, None for the parameters' own.

    Source: Ho et al. 2020, arXiv:2006.11239, appendix B; scale_shift: Nichol and Dhariwal 2021,
    arXiv:2102.09672, section 3.
    """

    features: int
    groups: int = 32
    scale_shift: bool = False
    dropout: float = 0.0
    epsilon: float = 1e-5
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, emb: Array | None = None, train: bool = False) -> Array:
        """[B, H, W, C], and [B, E] if conditioned, to [B, H, W, features]."""
        h = nn.silu(self._norm("norm_in")(x))
        h = conv(self.features, dtype=self.dtype, name="conv_in")(h)
        h = self._conditioned(h, emb)
        h = nn.Dropout(self.dropout, deterministic=not train)(nn.silu(h))
        h = conv(self.features, kernel_init=ZEROS, dtype=self.dtype, name="conv_out")(h)
        if x.shape[-1] != self.features:
            x = dense(self.features, dtype=self.dtype, name="skip")(x)
        return x + h

    def _conditioned(self, h: Array, emb: Array | None) -> Array:
        """The second norm, told of `emb`."""
        norm = self._norm("norm_out")
        if emb is None:
            return norm(h)
        width = self.features * (2 if self.scale_shift else 1)
        e = exact_dense(width, name="emb")(nn.silu(emb))[:, None, None, :].astype(h.dtype)
        if self.scale_shift:
            scale, shift = jnp.split(e, 2, axis=-1)
            return norm(h) * (1 + scale) + shift
        return norm(h + e)

    def _norm(self, name: str) -> nn.GroupNorm:
        return group_norm(self.groups, epsilon=self.epsilon, dtype=self.dtype, name=name)


class Downsample(nn.Module):
    """Halves height and width.

    Attributes:
        resample: "conv", a convolution of stride 2 with zeros behind the last pixels;
            "conv_around", with zeros on each side; or "pool", the mean of 2x2 pixels.
        dtype: the compute dtype, None for the parameters' own.
    """

    resample: str = "conv"
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, C] to [B, H/2, W/2, C]; H and W are even."""
        if self.resample == "pool":
            return nn.avg_pool(x, (2, 2), strides=(2, 2))
        padding = 1 if self.resample == "conv_around" else "SAME"
        made = conv(x.shape[-1], stride=2, padding=padding, dtype=self.dtype, name="conv")
        return made(x)


class Upsample(nn.Module):
    """Doubles height and width by repeating pixels.

    Attributes:
        resample: "pool", repeated pixels alone, or followed by a convolution.
        dtype: the compute dtype, None for the parameters' own.
    """

    resample: str = "conv"
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, C] to [B, 2 H, 2 W, C]."""
        x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        if self.resample == "pool":
            return x
        return conv(x.shape[-1], dtype=self.dtype, name="conv")(x)
