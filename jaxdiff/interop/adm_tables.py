"""The names of guided-diffusion's UNetModel, for the two networks that it may be here.

Blocks are numbered as they come. Outputs of "qkv" are ordered (head, which of three, channel), or
(which, head, channel) in the new order; in `DhariwalUNet` (head, channel, which), in `UNet` as new.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxdiff.interop import names
from jaxdiff.models import DhariwalUNet, UNet

__all__ = ["dhariwal", "unet"]

_TIME = names.ordered(names.DENSE, names.swapped, -2)  # cosines first
_POINT = names.dense_as_conv(2)
_RESIDUAL = {
    "norm_in": (names.NORM, "in_layers.0"),
    "conv_in": (names.CONV, "in_layers.2"),
    "emb": (names.DENSE, "emb_layers.1"),
    "norm_out": (names.NORM, "out_layers.0"),
    "conv_out": (names.CONV, "out_layers.3"),
    "skip": (_POINT, "skip_connection"),
}
_BLOCK = {
    "norm0": (names.NORM, "in_layers.0"),
    "conv0": (names.CONV, "in_layers.2"),
    "affine": (names.DENSE, "emb_layers.1"),
    "norm1": (names.NORM, "out_layers.0"),
    "conv1": (names.CONV, "out_layers.3"),
    "skip": (names.CONV, "skip_connection"),
}
_LINE: names.Layer = {
    "kernel": (
        "weight",
        names.Kind(lambda a: (a[0, 0].T[..., None],), lambda t: t[0][..., 0].T[None, None]),
    ),
    "bias": ("bias", names.SAME),
}
"""A convolution of one pixel, [1, 1, I, O], that is one of a line there, [O, I, 1]."""


def unet(
    net: UNet,
    shapes: Mapping[str, tuple[int, ...]],
    order: str,
    *,
    whole: bool,
) -> dict[str, names.Link]:
    """Where the parameters of a UNet are there; `whole` says whether its null label is a class."""
    rows = names.layer("conditioning/time_in", _TIME, "time_embed.0")
    rows |= names.layer("conditioning/time_out", names.DENSE, "time_embed.2")
    label = names.EMBED if whole else names.WITHOUT_LAST
    rows |= names.layer("conditioning/label", label, "label_emb")
    rows |= names.layer("in", names.CONV, "input_blocks.0.0")
    rows |= names.layer("norm", names.NORM, "out.0")
    rows |= names.layer("out", names.CONV, "out.2")

    def attention(ours: str, theirs: str) -> dict[str, names.Link]:
        width = shapes.get(f"{ours}/norm/scale", (0,))[0]
        heads = net.heads if net.head_channels is None else width // net.head_channels
        made = names.dense_as_conv(1)
        if order == "legacy":
            made = names.ordered(made, _mixed((3, heads, -1), (1, 0, 2)))
        kinds = {
            "norm": (names.NORM, "norm"),
            "qkv": (made, "qkv"),
            "out": (names.dense_as_conv(1), "proj_out"),
        }
        return names.module(ours, kinds, theirs)

    per, last = net.blocks + 1, len(net.multipliers) - 1
    for level in range(last + 1):
        for way, place, count in (
            ("down", "input_blocks.{}", net.blocks),
            ("up", "output_blocks.{}", per),
        ):
            first = 1 + level * per if way == "down" else (last - level) * per
            for i in range(count):
                ours, theirs = f"{way}_{level}_{i}", place.format(first + i)
                rows |= names.module(ours, _RESIDUAL, f"{theirs}.0")
                rows |= attention(f"{ours}_attention", f"{theirs}.1")
        rows |= names.layer(f"down_{level}/conv", names.CONV, f"input_blocks.{level * per}.0.op")
        behind = 1 + (f"up_{level}_0_attention/norm/scale" in shapes)
        doubling = f"output_blocks.{(last - level) * per + per - 1}.{behind}.conv"
        rows |= names.layer(f"up_{level}/conv", names.CONV, doubling)
    rows |= names.module("middle_0", _RESIDUAL, "middle_block.0")
    rows |= attention("middle_attention", "middle_block.1")
    return rows | names.module("middle_1", _RESIDUAL, "middle_block.2")


def dhariwal(
    net: DhariwalUNet,
    size: int,
    shapes: Mapping[str, tuple[int, ...]],
    order: str,
) -> dict[str, names.Link]:
    """Where the parameters of a DhariwalUNet are there."""
    rows = names.layer("map_layer0", names.DENSE, "time_embed.0")
    rows |= names.layer("map_layer1", names.DENSE, "time_embed.2")
    rows |= names.layer("map_label", {"kernel": ("weight", names.SAME)}, "label_emb")
    rows |= names.layer(f"enc_{size}x{size}_conv", names.CONV, "input_blocks.0.0")
    rows |= names.layer("out_norm", names.NORM, "out.0")
    rows |= names.layer("out_conv", names.CONV, "out.2")

    def block(ours: str, theirs: str, attention: str) -> dict[str, names.Link]:
        width = shapes.get(f"{ours}/norm2/scale", (0,))[0]
        heads = width // net.head_channels
        axes = (0, 2, 1) if order == "legacy" else (2, 0, 1)
        kinds = {
            "norm2": (names.NORM, "norm"),
            "qkv": (names.ordered(_LINE, _mixed((heads, -1, 3), axes)), "qkv"),
            "proj": (_LINE, "proj_out"),
        }
        return names.module(ours, _BLOCK, theirs) | names.module(ours, kinds, attention)

    per, last = net.blocks + 1, len(net.multipliers) - 1
    for level in range(last + 1):
        side = f"{size >> level}x{size >> level}"
        for i in range(net.blocks):
            place = f"input_blocks.{1 + level * per + i}"
            rows |= block(f"enc_{side}_block{i}", f"{place}.0", f"{place}.1")
        for i in range(per):
            place = f"output_blocks.{(last - level) * per + i}"
            rows |= block(f"dec_{side}_block{i}", f"{place}.0", f"{place}.1")
        above = f"{size >> level + 1}x{size >> level + 1}"
        rows |= block(f"enc_{side}_down", f"input_blocks.{level * per}.0", "")
        behind = 1 + (f"dec_{above}_block0/norm2/scale" in shapes)
        doubling = f"output_blocks.{(last - level) * per - 1}.{behind}"
        rows |= block(f"dec_{side}_up", doubling, "")
    rows |= block(f"dec_{side}_in0", "middle_block.0", "middle_block.1")
    return rows | block(f"dec_{side}_in1", "middle_block.2", "")


def _mixed(shape: tuple[int, ...], axes: tuple[int, ...]) -> Any:
    """For `names.ordered`: outputs as a block of this shape, its axes in another order there."""
    return lambda n: np.arange(n).reshape(shape).transpose(axes).ravel()
