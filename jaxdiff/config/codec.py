"""Configurations as JSON values and back, every name and type checked on the way in."""

import dataclasses
import types
import typing
from typing import Any, Literal

from jaxdiff.config.fields import Config
from jaxdiff.config.networks import MODELS

__all__ = ["changes", "decode", "from_json", "plain", "to_json"]

_OF_DENOISING = ("begins", "parametrization", "loss", "variance", "sampling")
_LEFT_OUT = {"classifier": _OF_DENOISING, "autoencoder": (*_OF_DENOISING, "schedule")}


def to_json(config: Config) -> dict[str, Any]:
    """The configuration as dicts, lists and numbers; the kind of network is "kind".

    A classifier's and an autoencoder's have no parts that are of denoising alone; what is not
    tuned, none of tuning; and what does not learn in latents, no word of them.
    """
    values = dataclasses.asdict(config)
    if config.tuning.method is None:
        del values["tuning"]
    if config.data.latents is None:
        del values["data"]["latents"], values["data"]["codec"]
    left_out = _LEFT_OUT.get(config.model.kind, ())
    values = {k: v for k, v in values.items() if k not in left_out}
    values["model"] = {"kind": config.model.kind, **values["model"]}
    return plain(values)


def plain(value: Any) -> Any:
    """Tuples as lists, as JSON has them."""
    if isinstance(value, dict):
        return {name: plain(v) for name, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


def from_json(values: Any) -> Config:
    """The configuration that `to_json` wrote.

    Args:
        values: dicts, lists and numbers. What is left out takes its default.

    Returns:
        The Config.

    Raises:
        ValueError: a name that is not known or a value of the wrong type, with its path, what
            was given, and what was wanted.
    """
    return decode(Config, values, "config")


def changes(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """What differs, by dotted name: (old, new)."""

    def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        pairs: dict[str, Any] = {}
        for name, value in values.items():
            below = isinstance(value, dict) and not name.endswith("options")
            pairs |= flat(value, f"{prefix}{name}.") if below else {f"{prefix}{name}": value}
        return pairs

    before, after = flat(to_json(old)), flat(to_json(new))
    names = [*before, *(name for name in after if name not in before)]
    pairs = {name: (before.get(name), after.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def decode(kind: Any, value: Any, path: str) -> Any:
    """JSON values as a type: a dataclass, or what stands in the fields of one.

    Args:
        kind: the type.
        value: dicts, lists and numbers. What a dataclass has besides takes its default.
        path: what messages call it.

    Raises:
        ValueError: a name that is not known or a value of the wrong type, with its path, what
            was given, and what was wanted.
    """
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _decode_fields(kind, value, path)
    if origin in (typing.Union, types.UnionType):
        return _decode_union(args, value, path)
    if origin is Literal:
        return _require(value in args, value, path, f"one of {', '.join(map(str, args))}")
    if origin is dict:
        _require(isinstance(value, dict), value, path, "names and numbers")
        return {name: decode(args[1], v, f"{path}.{name}") for name, v in value.items()}
    if origin is tuple:
        _require(isinstance(value, list | tuple), value, path, "a list")
        many = args[-1] is Ellipsis
        _require(many or len(value) == len(args), value, path, f"a list of {len(args)}")
        parts = args[:1] * len(value) if many else args
        pairs = enumerate(zip(parts, value, strict=True))
        return tuple(decode(part, v, f"{path}[{i}]") for i, (part, v) in pairs)
    if kind is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return float(_require(number, value, path, "a number"))
    exact = type(value) is kind  # a bool is not an int here
    return _require(exact, value, path, {int: "a whole number", str: "a name"}.get(kind, "a bool"))


def _decode_union(args: tuple[Any, ...], value: Any, path: str) -> Any:
    """`T | None`, or the networks, told apart by "kind"."""
    if type(None) in args:
        return None if value is None else decode(args[0], value, path)
    _require(isinstance(value, dict) and "kind" in value, value, path, "a network with its kind")
    kind = value["kind"]
    known = isinstance(kind, str) and kind in MODELS
    _require(known, kind, f"{path}.kind", f"one of {', '.join(MODELS)}")
    rest = {name: v for name, v in value.items() if name != "kind"}
    return decode(MODELS[kind], rest, path)


def _decode_fields(kind: type, value: Any, path: str) -> Any:
    _require(isinstance(value, dict), value, path, "names and values")
    hints = typing.get_type_hints(kind)
    known = [f.name for f in dataclasses.fields(kind)]
    for name in value:
        _require(name in known, name, path, f"one of {', '.join(known)}")
    return kind(**{name: decode(hints[name], v, f"{path}.{name}") for name, v in value.items()})


def _require(holds: bool, value: Any, path: str, wanted: str) -> Any:
    if not holds:
        raise ValueError(f"{path} must be {wanted}, got {value!r}")
    return value
