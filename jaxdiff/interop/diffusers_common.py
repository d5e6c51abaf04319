"""What diffusers' networks have in common as configurations."""

from collections.abc import Mapping
from typing import Any

__all__ = ["check", "completed", "out_channels", "shape_of"]


def completed(config: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Every field, their defaults where none is given, all of them supported."""
    given = {name: value for name, value in config.items() if not str(name).startswith("_")}
    for name, value in given.items():
        if name not in known:
            raise ValueError(f"{name}={repr(value)[:80]} is no field that is known")
        if isinstance(known[name], tuple) and value not in known[name]:
            can = " or ".join(map(repr, known[name]))
            raise ValueError(f"{name} must be {can}, got {value!r}")
    defaults = {n: v[0] if isinstance(v, tuple) else v for n, v in known.items()}
    return {**defaults, **given}


def shape_of(fields: Mapping[str, Any]) -> tuple[int, int, int]:
    """(H, W, C) of the images."""
    size = fields["sample_size"]
    size = [size, size] if isinstance(size, int) else size
    if not isinstance(size, list | tuple) or len(size) != 2 or size[0] != size[1]:
        raise ValueError(f"sample_size must be the side of a square, got {fields['sample_size']}")
    return size[0], size[1], fields["in_channels"]


def out_channels(fields: Mapping[str, Any]) -> int | None:
    """The field of ours, None where they are as many as go in."""
    out = fields["out_channels"]
    return None if out == fields["in_channels"] else out


def check(net: Any, **known: tuple[Any, ...]) -> None:
    """Raises ValueError unless fields of our network have values that theirs can be."""
    for name, values in known.items():
        if getattr(net, name) not in values:
            can = " or ".join(map(repr, values))
            raise ValueError(f"net must have {name}={can}, got {getattr(net, name)!r}")
