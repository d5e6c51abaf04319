"""score_sde_pytorch's NCSNpp, which is DDPM++ and NCSN++, as `models.SongUNet`, and back.

Its modules are numbered as they come, "all_modules.7", so that a walk through the network names
them. Only the configurations that EDM's SongUNet is equal to: residual blocks of BigGAN, sums
scaled, no progressive output, the image carried down by convolutions or not at all.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxdiff import arrays
from jaxdiff.interop import given, names
from jaxdiff.models import SongUNet

__all__ = ["from_score_sde", "table", "to_score_sde"]

_BLOCK = {
    "norm0": (names.NORM, "GroupNorm_0"),
    "conv0": (names.CONV, "Conv_0"),
    "affine": (names.DENSE, "Dense_0"),
    "norm1": (names.NORM, "GroupNorm_1"),
    "conv1": (names.CONV, "Conv_1"),
    "skip": (names.CONV, "Conv_2"),
}
_WAVES: names.Layer = {"freqs": ("W", names.SAME)}
_CARRIED: names.Layer = {
    leaf: (f"Conv2d_0.{end}", kind) for leaf, (end, kind) in names.CONV.items()
}
_NIN: names.Layer = {
    "kernel": ("W", names.Kind(lambda a: (a[0, 0],), lambda t: t[0][None, None])),
    "bias": ("b", names.SAME),
}
_LAYERS = (_WAVES, _CARRIED, names.DENSE, names.CONV, names.NORM)


def _apart(n: int) -> np.ndarray:
    """Outputs ordered (channel, which of three) as (which of three, channel)."""
    return np.arange(n).reshape(-1, 3).T.ravel()


_ATTENTION = {
    "norm2": (names.NORM, "GroupNorm_0"),
    "qkv": (names.ordered(names.parts(_NIN, 3), _apart), "NIN_0", "NIN_1", "NIN_2"),
    "proj": (_NIN, "NIN_3"),
}


def from_score_sde(
    weights: Mapping[str, Any], *, size: int, taps: tuple[float, ...] | None = None
) -> names.Network:
    """Our network and parameters from a checkpoint or a state dictionary of theirs.

    Args:
        weights: tensors by name, or what their checkpoints hold, {"model": ..., "ema": ...}, whose
            average is taken.
        size: the height and width of its images.
        taps: the filter of resampling (fir_kernel), (1, 1) where there is none (fir=False); unless
            given, (1, 3, 3, 1) where the image is carried down, else (1, 1).

    Returns:
        The network on images in [-1, 1]. Its output is theirs before any division by sigma. Its
        time feature is 999 t for DDPM++ (VP), and log sigma in units of images in [0, 1], which is
        log(sigma / 2) here, for NCSN++ (VE).

    Raises:
        ValueError: a network that ours cannot be, or tensors that are missing, too many or wrong,
            all of them counted.

    Source: Song et al. 2021, arXiv:2011.13456, appendix H.
    """
    arrays.check_count("size", size)
    with given.described("weights are no checkpoint of score_sde's"):
        weights = _averaged(weights) if "model" in weights else weights
    weights = given.tensors(weights, "module.")
    weights.pop("sigmas", None)  # of the schedule
    shapes = {name: np.shape(a) for name, a in weights.items()}
    with given.described("weights are of no network of score_sde's"):
        net, inputs = _network(shapes, size, taps)
        shape = (size, size, inputs)
        ours = names.shapes_of(net, shape)
    return names.Network(net, names.read(weights, ours, table(net, size)), shape)


def to_score_sde(
    net: SongUNet, params: Mapping[str, Any], shape: tuple[int, int, int]
) -> dict[str, np.ndarray]:
    """Their state dictionary of our network: what `from_score_sde` read, to the bit.

    Args:
        net: a `SongUNet` without labels and augmentation.
        params: its parameters.
        shape: of its images, (H, W, C).

    Raises:
        ValueError: a field that theirs do not have, or parameters of another network.
    """
    if not isinstance(net, SongUNet):
        raise ValueError(f"net must be a SongUNet, got {type(net).__name__}")
    waves = 2 if net.embedding == "fourier" else 1
    for name, value in {"num_classes": 0, "cond_dim": 0, "waves": waves}.items():
        if getattr(net, name) != value:
            raise ValueError(f"net must have {name}={value}, got {getattr(net, name)}")
    return names.write(params, names.shapes_of(net, shape), table(net, shape[0]))


def _averaged(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The weights of a checkpoint, those that learn replaced by their averages."""
    model = dict(checkpoint["model"])
    shadow = checkpoint.get("ema", {}).get("shadow_params", [])
    fixed = ("sigmas", "all_modules.0.W")
    learn = [name for name in model if not name.endswith(fixed)]
    if not shadow:
        return model
    if len(shadow) != len(learn):
        raise ValueError(
            f"ema.shadow_params must be one for each of {len(learn)} tensors that learn, got "
            f"{len(shadow)}"
        )
    return model | dict(zip(learn, shadow, strict=True))


def _network(
    shapes: Mapping[str, tuple[int, ...]], size: int, taps: tuple[float, ...] | None
) -> tuple[SongUNet, int]:
    kinds = _kinds(shapes)
    fourier = kinds[:1] == ["fourier"]
    front = kinds[fourier : fourier + 3]
    if front != ["plain"] * 3:
        raise ValueError("weights must be of a network conditioned on its noise: all_modules begin")
    residual = [i for i, kind in enumerate(kinds) if kind.startswith("block")]
    turns = kinds.count("block, resampling")
    levels = turns // 2 + 1
    blocks, rest = divmod(len(residual) - 3 * levels, 2 * levels)
    if turns % 2 or rest or blocks < 1:
        raise ValueError(
            f"weights must be of as many blocks a level, got {len(residual)} blocks in all, "
            f"{turns} of which change the size"
        )
    place = fourier + 3
    first = f"all_modules.{place - 1}.weight"
    if len(shapes[first]) != 4:
        raise ValueError(f"{first} must be a convolution of 4 axes, got {list(shapes[first])}")
    channels, inputs = shapes[first][:2]
    widths, attends = [], []
    carried = False
    for level in range(levels):
        widths.append(shapes.get(f"all_modules.{place}.Conv_0.weight", (0,))[0])
        attends.append(kinds[place + 1 : place + 2] == ["attention"])
        place += blocks * (1 + attends[-1])
        if level < levels - 1:
            carried = kinds[place + 1 : place + 2] == ["carried"]
            place += 1 + carried
    multipliers = tuple(width // channels for width in widths)
    if [m * channels for m in multipliers] != widths:
        raise ValueError(f"weights must be of levels of multiples of {channels}, got {widths}")
    last = shapes[max((n for n in shapes if n.endswith(".weight")), key=_number)]
    net = SongUNet(
        channels=channels,
        multipliers=multipliers,
        blocks=blocks,
        attention=tuple(size >> i for i, attentive in enumerate(attends) if attentive),
        out_channels=None if last[0] == inputs else last[0],
        embedding="fourier" if fourier else "sinusoidal",
        waves=2 if fourier else 1,
        encoder="residual" if carried else "standard",
        taps=((1.0, 3.0, 3.0, 1.0) if carried else (1.0, 1.0)) if taps is None else tuple(taps),
    )
    return net, inputs


def _number(name: str) -> int:
    return int(name.split(".")[1])


def _kinds(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """What each module is, told by its tensors."""
    modules: dict[int, dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        first, *rest = name.split(".")
        if first != "all_modules" or not rest or not rest[0].isdecimal():
            raise ValueError(f"weights must be named all_modules.N, got {name}")
        modules.setdefault(int(rest[0]), {})[".".join(rest[1:])] = shape
    if sorted(modules) != list(range(len(modules))):
        raise ValueError(
            "all_modules must be numbered without gaps: resampling without weights is of residual "
            "blocks or networks that are not supported"
        )
    return [_kind(number, modules[number]) for number in range(len(modules))]


def _kind(number: int, tensors: Mapping[str, tuple[int, ...]]) -> str:
    if "Conv_0.weight" in tensors and "GroupNorm_0.weight" in tensors:
        if "NIN_0.W" in tensors:
            raise ValueError(f"all_modules.{number} is of resblock_type 'ddpm', not supported")
        skip = tensors.get("Conv_2.weight", (0, 1))
        return "block, resampling" if skip[0] == skip[1] else "block"
    if "NIN_0.W" in tensors:
        return "attention"
    if "Conv2d_0.weight" in tensors:
        return "carried"
    if "weight" in tensors:
        return "plain"
    if "W" in tensors:
        return "fourier"
    raise ValueError(
        f"all_modules.{number} is not supported, with {', '.join(sorted(tensors))}: only "
        "resblock_type 'biggan', progressive 'none', progressive_input 'none' or 'residual'"
    )


def table(net: SongUNet, size: int) -> dict[str, names.Link]:
    """Where our parameters are there, for images of this height."""
    rows: dict[str, names.Link] = {}
    for number, (ours, kind) in enumerate(_walk(net, size)):
        make = names.layer if kind in _LAYERS else names.module
        rows |= make(ours, kind, f"all_modules.{number}")
    return rows


def _walk(net: SongUNet, size: int) -> Iterator[tuple[str, Any]]:
    """Our modules and what they are there, in the order of their numbers."""
    last = len(net.multipliers) - 1
    sides = [f"{size >> level}x{size >> level}" for level in range(last + 1)]
    if net.embedding == "fourier":
        yield "map_noise", _WAVES
    yield "map_layer0", names.DENSE
    yield "map_layer1", names.DENSE
    yield f"enc_{sides[0]}_conv", names.CONV
    for level, side in enumerate(sides):
        if level:
            yield f"enc_{side}_down", _BLOCK
            if net.encoder == "residual":
                yield f"enc_{side}_aux_residual", _CARRIED
        for i in range(net.blocks):
            yield f"enc_{side}_block{i}", _BLOCK
            if size >> level in net.attention:
                yield f"enc_{side}_block{i}", _ATTENTION
    yield f"dec_{sides[-1]}_in0", _BLOCK
    yield f"dec_{sides[-1]}_in0", _ATTENTION
    yield f"dec_{sides[-1]}_in1", _BLOCK
    for level, side in reversed(list(enumerate(sides))):
        if level < last:
            yield f"dec_{side}_up", _BLOCK
        for i in range(net.blocks + 1):
            yield f"dec_{side}_block{i}", _BLOCK
        if size >> level in net.attention:
            yield f"dec_{side}_block{net.blocks}", _ATTENTION
    yield f"dec_{sides[0]}_aux_norm", names.NORM
    yield f"dec_{sides[0]}_aux_conv", names.CONV
