"""diffusers' UNet2DModel as `models.UNet`."""

from collections.abc import Mapping
from typing import Any

from jaxdiff.interop import diffusers_common as common
from jaxdiff.interop import names
from jaxdiff.models import UNet

__all__ = ["FIELDS", "config_of", "network", "table"]

FIELDS: dict[str, Any] = {
    "sample_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "time_embedding_dim": (None,),
    "freq_shift": 0,
    "flip_sin_to_cos": (True, False),
    "down_block_types": ["DownBlock2D", *["AttnDownBlock2D"] * 3],
    "mid_block_type": ("UNetMidBlock2D",),
    "up_block_types": [*["AttnUpBlock2D"] * 3, "UpBlock2D"],
    "block_out_channels": [224, 448, 672, 896],
    "layers_per_block": 2,
    "mid_block_scale_factor": (1,),
    "downsample_padding": 1,
    "downsample_type": ("conv",),
    "upsample_type": ("conv",),
    "dropout": 0.0,
    "act_fn": ("silu", "swish"),
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "attn_norm_num_groups": None,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default",
    "add_attention": (True, False),
    "class_embed_type": (None,),
    "num_class_embeds": None,
    "num_train_timesteps": (None,),
}
_RESIDUAL = {
    "norm_in": (names.NORM, "norm1"),
    "conv_in": (names.CONV, "conv1"),
    "emb": (names.DENSE, "time_emb_proj"),
    "norm_out": (names.NORM, "norm2"),
    "conv_out": (names.CONV, "conv2"),
    "skip": (names.dense_as_conv(2), "conv_shortcut"),
}
_ATTENTION = {
    "norm": (names.NORM, "group_norm"),
    "qkv": (names.parts(names.DENSE, 3), "to_q", "to_k", "to_v"),
    "out": (names.DENSE, "to_out.0"),
}


def network(fields: Mapping[str, Any]) -> UNet:
    """Our network of their configuration."""
    size, widths = common.shape_of(fields)[0], list(fields["block_out_channels"])
    multipliers = [width // widths[0] for width in widths]
    scaled = fields["resnet_time_scale_shift"] == "scale_shift"
    norms = fields["attn_norm_num_groups"]
    down, up = list(fields["down_block_types"]), list(fields["up_block_types"])
    attends = [kind == "AttnDownBlock2D" for kind in down]
    mirrored = ["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)]
    heads = fields["attention_head_dim"]
    attentive = [width for width, a in zip(widths, attends, strict=False) if a]
    attentive += widths[-1:] if fields["add_attention"] else []
    for name, holds, wanted in (
        (
            "block_out_channels",
            [m * widths[0] for m in multipliers] == widths,
            "multiples of the first",
        ),
        (
            "down_block_types",
            set(down) <= {"DownBlock2D", "AttnDownBlock2D"} and len(down) == len(widths),
            "DownBlock2D or AttnDownBlock2D, one a level",
        ),
        ("up_block_types", up == mirrored, f"{mirrored}, which mirrors down_block_types"),
        ("norm_eps", fields["norm_eps"] > 0, "above 0"),
        ("freq_shift", fields["freq_shift"] in (0, 1), "0 or 1"),
        ("downsample_padding", fields["downsample_padding"] in (0, 1), "0 or 1"),
        (
            "resnet_time_scale_shift",
            fields["resnet_time_scale_shift"] in ("default", "scale_shift"),
            "'default' or 'scale_shift'",
        ),
        (
            "attn_norm_num_groups",
            norms == fields["norm_num_groups"]
            or (norms is None and not (scaled and fields["add_attention"])),
            f"norm_num_groups, {fields['norm_num_groups']}",
        ),
        (
            "attention_head_dim",
            heads is None or all(width % heads == 0 for width in attentive),
            f"None or a divisor of {attentive}",
        ),
    ):
        if not holds:
            raise ValueError(f"{name} must be {wanted}, got {fields[name]!r}")
    return UNet(
        channels=widths[0],
        multipliers=tuple(multipliers),
        blocks=fields["layers_per_block"],
        attention=tuple(size >> i for i, attentive in enumerate(attends) if attentive),
        head_channels=heads,
        out_channels=common.out_channels(fields),
        scale_shift=scaled,
        resample="conv_around" if fields["downsample_padding"] else "conv",
        endpoint=fields["freq_shift"] == 1,
        middle_attention=_middle(any(attends), fields["add_attention"]),
        num_classes=fields["num_class_embeds"] or 0,
        dropout=fields["dropout"],
        groups=fields["norm_num_groups"],
        epsilon=fields["norm_eps"],
    )


def _middle(above: bool, has: bool) -> bool | None:
    """The field `middle_attention`, None where it need not be said."""
    return None if has == above else has


def config_of(
    net: UNet, shape: tuple[int, ...], *, cosines_first: bool, whole: bool
) -> dict[str, Any]:
    """Their configuration of our network; `whole` says whether its null label is a class there."""
    common.check(net, skip=("concat",), embedding=("sinusoidal",), cond_dim=(0,))
    common.check(net, resample=("conv", "conv_around"))
    attends = [shape[0] >> i in net.attention for i in range(len(net.multipliers))]
    widths = [net.channels * m for m in net.multipliers]
    head = net.head_channels
    if head is None and net.heads != 1:
        attentive = {w for w, a in zip(widths, attends, strict=True) if a} | {widths[-1]}
        if len(attentive) > 1:
            raise ValueError(
                f"net must have head_channels where levels of {sorted(attentive)} channels have "
                f"attention, got heads={net.heads}"
            )
        head = widths[-1] // net.heads
    middle = any(attends) if net.middle_attention is None else net.middle_attention
    return {
        "_class_name": "UNet2DModel",
        "sample_size": shape[0],
        "in_channels": shape[-1],
        "out_channels": shape[-1] if net.out_channels is None else net.out_channels,
        "freq_shift": int(net.endpoint),
        "flip_sin_to_cos": cosines_first,
        "down_block_types": ["AttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        "up_block_types": ["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)],
        "block_out_channels": widths,
        "layers_per_block": net.blocks,
        "downsample_padding": int(net.resample == "conv_around"),
        "dropout": net.dropout,
        "attention_head_dim": head,
        "norm_num_groups": net.groups,
        "attn_norm_num_groups": net.groups if net.scale_shift else None,
        "norm_eps": net.epsilon,
        "resnet_time_scale_shift": "scale_shift" if net.scale_shift else "default",
        "add_attention": middle,
        "num_class_embeds": net.num_classes + whole if net.num_classes else None,
    }


def table(net: UNet, *, cosines_first: bool, whole: bool) -> dict[str, names.Link]:
    """Where our parameters are there."""
    time = names.ordered(names.DENSE, names.swapped, -2) if cosines_first else names.DENSE
    rows = names.layer("conditioning/time_in", time, "time_embedding.linear_1")
    rows |= names.layer("conditioning/time_out", names.DENSE, "time_embedding.linear_2")
    label = names.EMBED if whole else names.WITHOUT_LAST
    rows |= names.layer("conditioning/label", label, "class_embedding")
    rows |= names.layer("in", names.CONV, "conv_in")
    rows |= names.layer("norm", names.NORM, "conv_norm_out")
    rows |= names.layer("out", names.CONV, "conv_out")
    last = len(net.multipliers) - 1
    for level in range(last + 1):
        for way, place, count in (
            ("down", f"down_blocks.{level}", net.blocks),
            ("up", f"up_blocks.{last - level}", net.blocks + 1),
        ):
            for i in range(count):
                ours = f"{way}_{level}_{i}"
                rows |= names.module(ours, _RESIDUAL, f"{place}.resnets.{i}")
                rows |= names.module(f"{ours}_attention", _ATTENTION, f"{place}.attentions.{i}")
        halving = f"down_blocks.{level - 1}.downsamplers.0.conv"
        rows |= names.layer(f"down_{level}/conv", names.CONV, halving)
        doubling = f"up_blocks.{last - level}.upsamplers.0.conv"
        rows |= names.layer(f"up_{level}/conv", names.CONV, doubling)
    rows |= names.module("middle_0", _RESIDUAL, "mid_block.resnets.0")
    rows |= names.module("middle_attention", _ATTENTION, "mid_block.attentions.0")
    rows |= names.module("middle_1", _RESIDUAL, "mid_block.resnets.1")
    return rows
