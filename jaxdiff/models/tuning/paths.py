"""Modules and parameters by their path, and which of them a pattern names.

    "out"           the module of that name at the top, with all that is below it
    "*/query"       modules of that name, however deep
    "*/bias"        parameters of that name

`*` stands for anything, `/` too.
"""

import fnmatch
from collections.abc import Iterable, Sequence
from typing import Any

import jax
from flax import traverse_util

__all__ = ["FROZEN", "TRAINED", "flat", "hold", "labels", "matching", "modules", "nested"]

TRAINED, FROZEN = "trained", "frozen"
_SHOWN = 30  # names in a message


def flat(tree: Any) -> dict[str, Any]:
    """Nested dicts as one, its keys the paths of the leaves."""
    return traverse_util.flatten_dict(tree, sep="/")


def nested(leaves: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `flat`."""
    return traverse_util.unflatten_dict(leaves, sep="/")


def modules(params: Any) -> list[str]:
    """The paths of all modules with parameters, in the order of the parameters."""
    found: dict[str, None] = {}
    for leaf in flat(params):
        found.update(dict.fromkeys(_above(leaf)[:-1]))
    return list(found)


def matching(name: str, patterns: Sequence[str], known: Iterable[str]) -> list[str]:
    """Those of the known paths that a pattern names, in their own order.

    Args:
        name: what the message calls the patterns.
        patterns: the patterns.
        known: paths.

    Raises:
        ValueError: no tuple of names, or a pattern that names none; the known ones are listed.
    """
    if not isinstance(patterns, tuple) or not all(isinstance(p, str) for p in patterns):
        raise ValueError(f'{name} must be a tuple such as ("*/query",), got {patterns!r}')
    known = list(known)
    for pattern in patterns:
        if not fnmatch.filter(known, pattern):
            some = ", ".join(known[:_SHOWN]) + (", ..." if len(known) > _SHOWN else "")
            raise ValueError(f"{name} must name some of {some or 'none'}, got {pattern!r}")
    return [path for path in known if any(fnmatch.fnmatchcase(path, p) for p in patterns)]


def labels(params: Any, patterns: Sequence[str]) -> Any:
    """A tree of "trained" for what the patterns name, itself or by a module above, else "frozen".

    Raises:
        ValueError: a pattern that names nothing.
    """
    leaves = flat(params)
    above = {leaf: _above(leaf) for leaf in leaves}
    every = dict.fromkeys(path for paths in above.values() for path in paths)
    named = set(matching("trained", patterns, every))
    marks = {leaf: TRAINED if named & set(paths) else FROZEN for leaf, paths in above.items()}
    return nested(marks)


def hold(params: Any, patterns: Sequence[str]) -> Any:
    """The parameters, without gradients but for those that the patterns name."""
    marks = labels(params, patterns)
    return jax.tree.map(
        lambda p, mark: p if mark == TRAINED else jax.lax.stop_gradient(p), params, marks
    )


def _above(leaf: str) -> list[str]:
    """The path of a parameter, and those of the modules that it is in, the outermost first."""
    parts = leaf.split("/")
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]
