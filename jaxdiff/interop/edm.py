"""NVlabs/edm's SongUNet and DhariwalUNet, whose names are ours but for their dots.

`models.edm` says how names map. Their filters of resampling are buffers, here constants.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxdiff.interop import given, names
from jaxdiff.models import DhariwalUNet, SongUNet

__all__ = ["from_edm", "network_of_edm", "to_edm"]

Net = SongUNet | DhariwalUNet

_HEAD = 64  # the channels of a head of DhariwalUNet, which they do not let choose


def from_edm(weights: Mapping[str, Any], net: Net | None = None) -> names.Network:
    """Our network and parameters from a state dictionary of their network.

    Their published files are pickled source code, which is not read here: their own code loads
    them, and `net.state_dict()` is what is wanted.

    Args:
        weights: tensors by name, of SongUNet, DhariwalUNet or EDMPrecond ("model." before all).
        net: the network they must be of; found from names and shapes unless given. Its dropout is
            nowhere in the tensors and 0 if found.

    Returns:
        The network; its time feature is EDM's log(sigma) / 4.

    Raises:
        ValueError: a network that ours cannot be, such as one with the encoder or decoder "skip";
            or tensors that are missing, too many or wrong, all of them counted.

    Source: Karras et al. 2022, arXiv:2206.00364, table 7.
    """
    weights = given.tensors(weights, "module.", "model.")
    with given.described("weights are of no network of EDM's"):
        found, shape = network_of_edm(weights)
    net = found if net is None else net
    shapes = names.shapes_of(net, shape)
    params = names.read(weights, shapes, _table(shapes), _constants(net, shapes))
    return names.Network(net, params, shape)


def to_edm(net: Net, params: Mapping[str, Any], shape: tuple[int, int, int]) -> dict[str, Any]:
    """Their state dictionary of our network: what `from_edm` read, to the bit.

    Args:
        net: a `SongUNet`, or a `DhariwalUNet` with 64 channels a head.
        params: its parameters.
        shape: of its images, (H, W, C).

    Raises:
        ValueError: another network or heads, or parameters of another network.
    """
    if not isinstance(net, Net):
        raise ValueError(f"net must be a SongUNet or a DhariwalUNet, got {type(net).__name__}")
    if isinstance(net, DhariwalUNet) and net.head_channels != _HEAD:
        raise ValueError(f"net must have head_channels={_HEAD}, got {net.head_channels}")
    shapes = names.shapes_of(net, shape)
    return names.write(params, shapes, _table(shapes), _constants(net, shapes))


def network_of_edm(weights: Mapping[str, Any]) -> tuple[Net, tuple[int, int, int]]:
    """The network and the shape of its images, from names and shapes alone.

    Raises:
        ValueError: what says so is missing, or ours cannot be it.
    """
    shapes = {name: np.shape(a) for name, a in weights.items()}
    first = [name for name in shapes if re.fullmatch(r"enc\.\d+x\d+_conv\.weight", name)]
    known = ("map_layer0.weight", *first)
    if len(first) != 1 or any(len(shapes.get(name, ())) not in (2, 4) for name in known):
        raise ValueError("weights must hold enc.HxW_conv.weight and map_layer0.weight of EDM's")
    for part in ("aux_down", "aux_skip", "aux_up"):
        if any(part in name for name in shapes):
            raise ValueError(
                f"weights are of the encoder or decoder 'skip' ({part}), not supported"
            )
    height, width = map(int, re.findall(r"\d+", first[0]))
    levels, blocks = _levels(shapes)
    song = "out_conv.weight" not in shapes
    emb, waves = shapes["map_layer0.weight"]
    out = shapes.get(f"dec.{height}x{width}_aux_conv.weight" if song else "out_conv.weight", (0,))
    inputs = shapes[first[0]][1]
    channels = shapes[first[0]][0] if song else waves
    fields = {
        "channels": channels,
        "multipliers": tuple(o // channels for o, _ in levels),
        "blocks": blocks,
        "attention": tuple(height >> i for i, (_, attends) in enumerate(levels) if attends),
        "out_channels": None if out[0] == inputs else out[0],
        "num_classes": shapes.get("map_label.weight", (0, 0))[1],
        "cond_dim": shapes.get("map_augment.weight", (0, 0))[1],
    }
    for what, got, wanted in (
        ("channels of its embedding", emb, 4 * channels),
        (
            "channels of its levels",
            [o for o, _ in levels],
            [m * channels for m in fields["multipliers"]],
        ),
        ("features of its time", waves, max(1, waves // channels) * channels),
    ):
        if got != wanted:
            raise ValueError(f"weights are of a network whose {what} are {got}, ours {wanted}")
    if not song:
        return DhariwalUNet(**fields, head_channels=_HEAD), (height, width, inputs)
    net = SongUNet(
        **fields,
        embedding="fourier" if "map_noise.freqs" in shapes else "sinusoidal",
        waves=waves // channels,
        encoder="residual" if any("aux_residual" in name for name in shapes) else "standard",
        taps=_taps(weights),
    )
    return net, (height, width, inputs)


def _levels(shapes: Mapping[str, tuple[int, ...]]) -> tuple[list[tuple[int, bool]], int]:
    """(channels, whether it has attention) of each level, and the blocks of a level."""
    found: dict[int, dict[int, bool]] = {}
    channels: dict[int, int] = {}
    for name, shape in shapes.items():
        match = re.fullmatch(r"enc\.(\d+)x\d+_block(\d+)\.conv0\.weight", name)
        if match:
            size, block = map(int, match.groups())
            channels[size] = shape[0]
            attends = name.replace("conv0", "qkv") in shapes
            found.setdefault(size, {})[block] = attends
    if not found:
        raise ValueError("weights must hold enc.HxW_block0.conv0.weight of EDM's, got none")
    sizes = sorted(found, reverse=True)
    return [(channels[s], found[s].get(0, False)) for s in sizes], max(map(len, found.values()))


def _taps(weights: Mapping[str, Any]) -> tuple[float, ...]:
    """The filter of which the buffers are the outer product, its first number being 1."""
    for name, a in weights.items():
        if name.endswith("resample_filter") and np.ndim(a) == 4:
            row = np.asarray(a, np.float64)[0, 0, 0]
            return tuple(round(float(v), 6) for v in row / row[0])
    return (1.0, 1.0)


def _table(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, names.Link]:
    kinds = {2: names.DENSE, 4: names.CONV, 1: names.NORM}
    rows: dict[str, names.Link] = {}
    for path, shape in shapes.items():
        ours, leaf = path.rsplit("/", 1)
        theirs = re.sub("^(enc|dec)_", r"\1.", ours.replace("/", "."))
        if leaf == "freqs":
            rows |= names.layer(ours, {leaf: (leaf, names.SAME)}, theirs)
        elif leaf != "bias":
            made = kinds[len(shape)]
            rows |= names.layer(ours, made, theirs)
    return rows


def _constants(net: Net, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The filters: of each block that halves or doubles, on its branch and beside it."""
    song = isinstance(net, SongUNet)
    taps = np.asarray(net.taps if song else (1, 1), np.float32)
    value = np.outer(taps, taps)[None, None] / np.square(taps.sum())
    places = set()
    for path in shapes:
        ours = path.split("/")[0]
        theirs = re.sub("^(enc|dec)_", r"\1.", ours)
        if ours.endswith(("_down", "_up")):
            places |= {f"{theirs}.conv0", f"{theirs}.skip"}
        elif ours.endswith("_aux_residual"):
            places.add(theirs)
    return {f"{place}.resample_filter": value for place in sorted(places)}
