"""What differs between what was saved and what is wanted, in words."""

from collections.abc import Mapping
from typing import Any

import jax

__all__ = ["config_differences", "leaf_differences", "leaves", "named"]


def named(tree: Any) -> dict[str, Any]:
    """Leaves by their path, such as params/conv/kernel."""
    found, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): a for path, a in found}


def leaves(tree: Any) -> dict[str, list]:
    """From each leaf's path to [shape, dtype]; a key's dtype names its implementation."""
    found, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): [list(a.shape), str(a.dtype)] for path, a in found}


def leaf_differences(saved: dict[str, list], wanted: dict[str, list]) -> list[str]:
    """What keeps `saved` from being read as `wanted`, leaf by leaf, in words."""
    show = "{1}{0}".format
    missing = [f"{p} is not in it" for p in wanted if p not in saved]
    unknown = [f"{p} is in it, but not wanted" for p in saved if p not in wanted]
    changed = [
        f"{p} is {show(*saved[p])}, wanted {show(*wanted[p])}"
        for p in wanted
        if p in saved and saved[p] != wanted[p]
    ]
    return missing + unknown + changed


def config_differences(
    saved: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = ""
) -> str:
    """What differs between two configs of JSON values, in words; "" if nothing does."""
    parts = []
    for name in [*saved, *(name for name in wanted if name not in saved)]:
        old, new = saved.get(name), wanted.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            parts.append(config_differences(old, new, f"{prefix}{name}."))
        elif old != new:
            parts.append(f"{prefix}{name} {old!r} -> {new!r}")
    return "; ".join(part for part in parts if part)
