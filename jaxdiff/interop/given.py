"""What is given as another network's weights, before anything is told from it."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["described", "tensors"]


def tensors(weights: Mapping[str, Any], *prefixes: str) -> dict[str, Any]:
    """The tensors without a prefix that every name has, such as "module.".

    Raises:
        ValueError: they are not tensors by name.
    """
    if not isinstance(weights, Mapping):
        raise ValueError(f"weights must be tensors by name, got {type(weights).__name__}")
    found = dict(weights)
    for name, a in found.items():
        if not isinstance(name, str) or not (hasattr(a, "dtype") and hasattr(a, "shape")):
            what = type(a).__name__
            raise ValueError(f"weights must be tensors by name, got {what} under {name!r}")
    for prefix in prefixes:
        if found and all(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): a for name, a in found.items()}
    return found


@contextlib.contextmanager
def described(what: str) -> Iterator[None]:
    """Turns errors of what tells a network from names, shapes or fields into ValueError."""
    try:
        yield
    except (TypeError, LookupError, ArithmeticError, AttributeError) as error:
        raise ValueError(f"{what}: {error!r}") from error
