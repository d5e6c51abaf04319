"""Where the leaves of a state lie on a mesh: copied, cut fully, or cut by the layers' own rules.

A mesh has an axis "data", over which batches are split, and may have one "model". Fully sharded, a
leaf (a parameter, its moments, its average) is cut along "data": each device keeps a part, and the
compiler gathers the whole where a layer needs it. By rules, a layer's matrices are cut along
"model", so that each device computes some of its heads or hidden units.

The step itself knows nothing of it: the same function, compiled for another layout, differs by the
order of sums.

Source: Rajbhandari et al. 2020, arXiv:1910.02054 (states in parts); Shoeybi et al. 2019,
arXiv:1909.08053, section 3 (columns, then rows); Xu et al. 2021, arXiv:2105.04663 (by annotations).
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdiff.training.comparison import named

__all__ = ["TRANSFORMER", "Rules", "layout", "made"]

Rules = Sequence[tuple[str, P]]
"""Pairs of a pattern, which is searched in a leaf's path, and how such a leaf is cut."""

TRANSFORMER: Rules = (
    (r"attention/(query|key|value)/kernel$", P(None, "model")),
    (r"attention/(query|key|value)/bias$", P("model")),
    (r"attention/out/kernel$", P("model", None)),
    (r"perceptron/expand/kernel$", P(None, "model")),
    (r"perceptron/expand/bias$", P("model")),
    (r"perceptron/contract/kernel$", P("model", None)),
)
"""Of `models.DiT` and `models.Transformer`: heads and hidden units over "model"."""

_LEAST = 2**10  # numbers below which a leaf is copied: gathering it would cost more than it saves


def layout(tree: Any, over: Mesh, *, full: bool = False, rules: Rules = ()) -> Any:
    """A sharding for each leaf.

    Args:
        tree: a state, or its shapes and dtypes.
        over: the mesh, with an axis "data", and "model" where rules name it.
        full: whether leaves are cut along "data" as well, each along its longest axis that its
            devices divide; leaves of fewer than 1024 numbers, and those without such an axis, are
            copied.
        rules: how leaves are cut besides; the first that fits counts.

    Returns:
        A tree of NamedSharding like `tree`.

    Raises:
        ValueError: a rule that names an axis that the mesh lacks, or that does not divide a leaf.
    """
    for pattern, spec in rules:
        unknown = [axis for axis in spec if axis is not None and axis not in over.axis_names]
        if unknown:
            raise ValueError(
                f"rules: {pattern} is over {unknown[0]!r}, the mesh has"
                f" {', '.join(over.axis_names)}"
            )
    leaves = named(tree)
    specs = [_spec(path, np.shape(leaf), over, full, rules) for path, leaf in leaves.items()]
    shardings = [NamedSharding(over, spec) for spec in specs]
    return jax.tree.unflatten(jax.tree.structure(tree), shardings)


def made(make: Callable[[], Any], over: Mesh, *, full: bool = False, rules: Rules = ()) -> Any:
    """What a function returns, computed straight into its layout: no device ever holds all of it.

    Args:
        make: such as `lambda: init_state(...)`.
        over, full, rules: as for `layout`.
    """
    where = layout(jax.eval_shape(make), over, full=full, rules=rules)
    return jax.jit(make, out_shardings=where)()


def _spec(path: str, shape: tuple[int, ...], over: Mesh, full: bool, rules: Rules) -> P:
    spec = next((list(s) for pattern, s in rules if re.search(pattern, path)), [])
    if len(spec) > len(shape):
        raise ValueError(f"rules: {path} of shape {list(shape)} has fewer axes than {P(*spec)}")
    spec += [None] * (len(shape) - len(spec))
    for axis, size in zip(spec, shape, strict=True):
        if axis is not None and size % over.shape[axis]:
            raise ValueError(
                f"rules: {path} of shape {list(shape)} must divide by the {over.shape[axis]}"
                f" devices of {axis!r}"
            )
    devices = over.shape["data"]
    if full and devices > 1 and np.prod(shape) >= _LEAST:
        free = [i for i, a in enumerate(spec) if a is None and not shape[i] % devices]
        if free:
            spec[max(free, key=lambda i: shape[i])] = "data"
    return P(*spec)
