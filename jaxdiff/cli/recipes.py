"""Commands that train something else than a model of data, by parts of a configuration as flags."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import tyro

from jaxdiff.config import Config

__all__ = ["parse"]


def parse(flags: type, parts: type, base: Config, prog: str, arguments: Sequence[str]) -> Any:
    """The flags of such a command, and the configuration that they make of its recipe.

    Args:
        flags: a dataclass with `data` and with `parts`, the latter's flags by dotted names.
        parts: a dataclass of those parts of a configuration that such a training has.
        base: the recipe.
        prog: the command, for its help.
        arguments: what was given.

    Returns:
        (flags by name, without `parts`; the configuration).
    """
    names = [field.name for field in dataclasses.fields(parts)]
    given = parts(**{name: getattr(base, name) for name in names})
    default = flags(data=tyro.MISSING, parts=given)
    found = {**vars(tyro.cli(flags, prog=prog, args=arguments, default=default))}
    return found, dataclasses.replace(base, **vars(found.pop("parts")))
