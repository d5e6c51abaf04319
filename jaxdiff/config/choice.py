"""A name in a configuration that is one of several by a number, so that it can be traced.

A study puts it in place of the name of a schedule, a parametrization or a weight: members of other
names then share a program. No configuration that is written to a file holds one.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from jaxdiff import arrays

__all__ = ["OneOf", "made", "names"]

T = TypeVar("T")


@arrays.pytree
class OneOf:
    """The name at `index`, [] int."""

    names: tuple[str, ...] = arrays.static()
    index: Any


def names(name: str | OneOf) -> tuple[str, ...]:
    """All that it may be."""
    return name.names if isinstance(name, OneOf) else (name,)


def made(name: str | OneOf, make: Callable[[str], T], one_of: Callable[[list[T], Any], T]) -> T:
    """`make(name)`, or the one of several that a number chooses."""
    if isinstance(name, OneOf):
        return one_of([make(each) for each in name.names], name.index)
    return make(name)
