"""guided-diffusion's UNetModel as `models.DhariwalUNet` or `models.UNet`, and back.

With resblock_updown and use_scale_shift_norm, as published, it is a DhariwalUNet; with convolutions
or pooling between the levels, as improved-diffusion has it, a UNet. Heads, the order of queries,
keys and values, and the size of images are nowhere in the tensors and must be said.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxdiff import arrays
from jaxdiff.interop import adm_tables, given, names
from jaxdiff.models import DhariwalUNet, UNet

__all__ = ["from_adm", "to_adm"]

Net = DhariwalUNet | UNet
Order = Literal["legacy", "new"]

_GROUPS = 32  # of every norm there


class _Plan(NamedTuple):
    """What the tensors say.

    Attributes:
        channels, inputs, outputs, classes: as they are.
        widths: the channels of each level.
        attends: whether each level has attention.
        blocks: a level.
        between: "blocks", "conv" or "pool".
        scale_shift: whether embeddings scale and shift.
    """

    channels: int
    inputs: int
    outputs: int
    classes: int
    widths: list[int]
    attends: list[bool]
    blocks: int
    between: str
    scale_shift: bool


def from_adm(
    weights: Mapping[str, Any],
    *,
    size: int,
    heads: int | None = None,
    head_channels: int | None = None,
    order: Order = "legacy",
    null_label: bool = False,
) -> names.Network:
    """Our network and parameters from a state dictionary of their network.

    Args:
        weights: tensors by name.
        size: the height and width of its images.
        heads: how many attention heads it has (num_heads), or
        head_channels: how many channels each of them has (num_head_channels).
        order: "new" if it was trained with use_new_attention_order, else "legacy".
        null_label: whether the last class stands for no label; else label -1 adds nothing to the
            embedding of the time, which it was not trained for.

    Returns:
        The network; its time feature is their timestep, 0, 1, ... before any rescaling.

    Raises:
        ValueError: a network that ours cannot be, heads that are not said, or tensors that are
            missing, too many or wrong, all of them counted.

    Source: Dhariwal and Nichol 2021, arXiv:2105.05233; Nichol and Dhariwal 2021, arXiv:2102.09672.
    """
    if (heads is None) == (head_channels is None):
        raise ValueError(
            f"give heads or head_channels, got heads={heads}, head_channels={head_channels}"
        )
    for name, value in (("size", size), ("heads", heads), ("head_channels", head_channels)):
        if value is not None:
            arrays.check_count(name, value)
    _check_order(order)
    weights = given.tensors(weights, "module.")
    with given.described("weights are of no network of ADM's"):
        plan = _plan({name: np.shape(a) for name, a in weights.items()})
        net = _network(plan, size, heads, head_channels, null_label)
        shape = (size, size, plan.inputs)
        shapes = names.shapes_of(net, shape)
    table = _table(net, shapes, size, order, whole=null_label)
    return names.Network(net, names.read(weights, shapes, table), shape)


def to_adm(
    net: Net, params: Mapping[str, Any], shape: tuple[int, int, int], *, order: Order = "legacy"
) -> dict[str, np.ndarray]:
    """Their state dictionary of our network: what `from_adm` read, to the bit.

    A UNet whose null label is learned has one class more there, which is it.

    Args:
        net: a `DhariwalUNet`, or a `UNet`.
        params: its parameters.
        shape: of its images, (H, W, C).
        order: of queries, keys and values there.

    Raises:
        ValueError: a field that theirs do not have, or parameters of another network.
    """
    _check_order(order)
    whole = False
    if isinstance(net, UNet):
        whole = bool(net.num_classes)
        whole = whole and bool(np.any(params["conditioning"]["label"]["embedding"][-1]))
        _check(net, skip="concat", embedding="sinusoidal", endpoint=False, groups=_GROUPS)
        _check(net, epsilon=1e-5, middle_attention=True)
        if net.resample == "conv":
            raise ValueError("net must have resample='conv_around' or 'pool', got 'conv'")
    elif isinstance(net, DhariwalUNet):
        _check_wide(net.channels * min(net.multipliers, default=0))
    else:
        raise ValueError(f"net must be a DhariwalUNet or a UNet, got {type(net).__name__}")
    _check(net, cond_dim=0)
    shapes = names.shapes_of(net, shape)
    table = _table(net, shapes, shape[0], order, whole=whole)
    return names.write(params, shapes, table)


def _plan(shapes: Mapping[str, tuple[int, ...]]) -> _Plan:
    def there(name: str, axes: int) -> tuple[int, ...]:
        if len(shapes.get(name, ())) != axes:
            raise ValueError(f"weights must hold {name} of ADM's, of {axes} axes")
        return shapes[name]

    channels = there("time_embed.0.weight", 2)[1]
    first, last = there("input_blocks.0.0.weight", 4), there("out.2.weight", 4)
    taken = {way: _numbers(shapes, f"{way}_blocks") for way in ("input", "output")}
    count = 1 + max(taken["output"], default=0)
    per, between = count, "pool"  # blocks of a level on the way up
    for i in range(count):
        inside = [n.split(".", 2)[2] for n in shapes if n.startswith(f"output_blocks.{i}.")]
        if any(n in ("1.conv.weight", "2.conv.weight") for n in inside):
            per, between = i + 1, "conv"
            break
        if any(n in ("1.in_layers.0.weight", "2.in_layers.0.weight") for n in inside):
            per, between = i + 1, "blocks"
            break
    else:
        per = next((i for i in range(count) if i not in taken["input"]), count)
    if count % per or per < 2:
        raise ValueError(f"weights must have as many output_blocks a level, got {count} by {per}")
    starts = [1 + level * per for level in range(count // per)]
    widths = [there(f"input_blocks.{i}.0.out_layers.3.weight", 4)[0] for i in starts]
    emb = there("input_blocks.1.0.emb_layers.1.weight", 2)[0]
    return _Plan(
        channels,
        first[1],
        last[0],
        shapes.get("label_emb.weight", (0,))[0],
        widths,
        [f"input_blocks.{i}.1.qkv.weight" in shapes for i in starts],
        per - 1,
        between,
        emb == 2 * widths[0],
    )


def _numbers(shapes: Mapping[str, tuple[int, ...]], way: str) -> set[int]:
    found = (re.match(rf"{way}\.(\d+)\.", name) for name in shapes)
    return {int(match[1]) for match in found if match}


def _network(
    plan: _Plan, size: int, heads: int | None, head_channels: int | None, null_label: bool
) -> Net:
    multipliers = tuple(width // plan.channels for width in plan.widths)
    if any(m * plan.channels != w for m, w in zip(multipliers, plan.widths, strict=True)):
        raise ValueError(
            f"weights must be of levels whose channels are multiples of {plan.channels} "
            f"(channel_mult must be whole), got {plan.widths}"
        )
    if plan.classes <= null_label and plan.classes + null_label:
        raise ValueError(f"null_label needs two classes or more, got {plan.classes}")
    fields = {
        "channels": plan.channels,
        "multipliers": multipliers,
        "blocks": plan.blocks,
        "attention": tuple(size >> i for i, attends in enumerate(plan.attends) if attends),
        "out_channels": None if plan.outputs == plan.inputs else plan.outputs,
        "num_classes": plan.classes - null_label,
    }
    if plan.between != "blocks":
        return UNet(
            **fields,
            heads=heads or 1,
            head_channels=head_channels,
            scale_shift=plan.scale_shift,
            resample="conv_around" if plan.between == "conv" else "pool",
            endpoint=False,
            middle_attention=None if any(plan.attends) else True,
        )
    if not plan.scale_shift:
        raise ValueError("weights with resblock_updown must have use_scale_shift_norm, too")
    if null_label:
        raise ValueError("null_label is of networks without resblock_updown: label -1 adds nothing")
    _check_wide(min(plan.widths))
    attentive = {w for w, a in zip(plan.widths, plan.attends, strict=True) if a}
    each = {w // heads for w in attentive | {plan.widths[-1]}} if heads else {head_channels}
    if len(each) > 1:
        raise ValueError(f"heads={heads} must be of as many channels at every level, got {each}")
    return DhariwalUNet(**fields, head_channels=each.pop())


def _check_order(order: str) -> None:
    if order not in ("legacy", "new"):
        raise ValueError(f"order must be legacy or new, got {order!r}")


def _check_wide(least: int) -> None:
    """DhariwalUNet has fewer groups where a group had fewer than 4 channels; ADM has not."""
    if least < 4 * _GROUPS:
        raise ValueError(
            f"levels of ADM with resblock_updown must have {4 * _GROUPS} channels or more, for "
            f"{_GROUPS} groups, got {least}"
        )


def _check(net: Net, **wanted: Any) -> None:
    for name, value in wanted.items():
        found = getattr(net, name)
        if name == "middle_attention" and found is None:
            found = bool(net.attention)
        if found != value:
            raise ValueError(f"net must have {name}={value!r}, got {found!r}")


def _table(
    net: Net, shapes: Mapping[str, tuple[int, ...]], size: int, order: Order, *, whole: bool
) -> dict[str, names.Link]:
    if isinstance(net, UNet):
        return adm_tables.unet(net, shapes, order, whole=whole)
    return adm_tables.dhariwal(net, size, shapes, order)
