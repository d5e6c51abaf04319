"""The way down of an image network: levels of blocks and attention, each half the size of the last.

What a UNet and a classifier share. The functions build into the module that they are given, from
its fields `channels`, `multipliers`, `blocks`, `attention`, `heads`, `head_channels`, `resample`,
`scale_shift`, `dropout`, `groups`, `epsilon`, `dtype` and `remat`.
"""

import flax.linen as nn
from jax import Array

from jaxdiff.models import layers
from jaxdiff.models.attention_block import AttentionBlock

__all__ = ["attention", "block", "check", "check_heads", "down", "level"]

RESAMPLES = ("conv", "conv_around", "pool")


def down(net: nn.Module, h: Array, emb: Array, train: bool) -> tuple[Array, list[Array]]:
    """The activation at the lowest level, and all those on the way there.

    Args:
        net: the module, inside its compact method.
        h: [B, H, W, channels].
        emb: [B, E], the conditioning vector.
        train: whether dropout is active.
    """
    stack = [h]
    for i, multiplier in enumerate(net.multipliers):
        if i:
            h = layers.Downsample(net.resample, net.dtype, name=f"down_{i}")(h)
            stack.append(h)
        for j in range(net.blocks):
            h = level(net, h, emb, train, multiplier, f"down_{i}_{j}")
            stack.append(h)
    return h, stack


def level(net: nn.Module, h: Array, emb: Array, train: bool, multiplier: int, name: str) -> Array:
    """A residual block, with attention after it at the named heights."""
    h = block(net, h, emb, train, multiplier, name)
    if h.shape[1] in net.attention:
        h = attention(net, f"{name}_attention")(h)
    return h


def block(net: nn.Module, h: Array, emb: Array, train: bool, multiplier: int, name: str) -> Array:
    """A residual block."""
    kind = layers.ResidualBlock
    if net.remat:
        kind = nn.remat(kind, static_argnums=(3,))  # `train`, counted after self
    made = kind(
        features=multiplier * net.channels,
        groups=net.groups,
        scale_shift=net.scale_shift,
        dropout=net.dropout,
        epsilon=net.epsilon,
        dtype=net.dtype,
        name=name,
    )
    return made(h, emb, train)


def attention(net: nn.Module, name: str) -> nn.Module:
    """A block of attention."""
    kind = nn.remat(AttentionBlock) if net.remat else AttentionBlock
    return kind(
        heads=net.heads,
        head_channels=net.head_channels,
        groups=net.groups,
        epsilon=net.epsilon,
        dtype=net.dtype,
        name=name,
    )


def check(net: nn.Module, height: int, width: int) -> None:
    """Raises ValueError unless the fields fit together and fit images of this size."""
    if net.resample not in RESAMPLES:
        raise ValueError(f"resample must be one of {RESAMPLES}, got {net.resample!r}")
    if not net.multipliers or min(net.multipliers) < 1 or net.blocks < 1:
        raise ValueError(
            "multipliers and blocks must be positive, "
            f"got multipliers={net.multipliers}, blocks={net.blocks}"
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
    widths = [net.channels * m for m in net.multipliers]
    if any(w % net.groups for w in [net.channels, *widths]):
        raise ValueError(
            f"groups={net.groups} must divide the channels of every level, got {widths}"
        )
    heights = [height >> i for i in range(levels)]
    for size in net.attention:
        if size not in heights:
            raise ValueError(f"attention names height {size}, but the levels have {heights}")
    attentive = [w for w, size in zip(widths, heights, strict=True) if size in net.attention]
    if net.attention:
        check_heads(net, [*attentive, widths[-1]])


def check_heads(net: nn.Module, widths: list[int]) -> None:
    """Raises ValueError unless layers of so many channels can be divided into heads."""
    name, part = "heads", net.heads
    if net.head_channels is not None:
        name, part = "head_channels", net.head_channels
    if part < 1 or any(width % part for width in widths):
        raise ValueError(f"{name}={part} must divide the channels {widths}")
