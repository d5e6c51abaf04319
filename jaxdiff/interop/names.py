"""Parameters of ours as tensors of others and back, by one table of names for both directions.

    path of ours                their tensors                         kind
    down_0_0/conv_in/kernel     down_blocks.0.resnets.0.conv1.weight  [k, k, I, O] <-> [O, I, k, k]
    down_0_0_attention/qkv/bias to_q.bias, to_k.bias, to_v.bias       parts of one array

A format is a function from a network to such a table (`diffusers`, `edm`, `adm`, `score_sde`). A
kind is an invertible move of numbers, never arithmetic, so there and back is the identity to the
bit. Shapes follow from ours by the kind, and need not be written down.
"""

import functools
import math
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = [
    "CONV",
    "DENSE",
    "EMBED",
    "NORM",
    "SAME",
    "TRANSPOSED",
    "WITHOUT_LAST",
    "Kind",
    "Layer",
    "Link",
    "Network",
    "chunks",
    "dense_as_conv",
    "layer",
    "module",
    "ordered",
    "parts",
    "read",
    "shapes_of",
    "swapped",
    "write",
]

_FLOATS = ("float32", "float16", "bfloat16")


class Kind(NamedTuple):
    """How one array of ours is laid out as tensors of theirs.

    Attributes:
        theirs: our array to their tensors.
        ours: their tensors to our array, its inverse.
    """

    theirs: Callable[[np.ndarray], tuple[np.ndarray, ...]]
    ours: Callable[[tuple[np.ndarray, ...]], np.ndarray]


class Link(NamedTuple):
    """A row of the table.

    Attributes:
        names: of their tensors, one or more.
        kind: how ours is laid out in them.
        copies: further tensors that hold the same numbers as the first.
    """

    names: tuple[str, ...]
    kind: Kind
    copies: tuple[str, ...] = ()


class Network(NamedTuple):
    """A network of ours with the weights of another.

    Attributes:
        net: the network.
        params: float32, for `net.apply({"params": params}, x, t, label)`.
        shape: of its images, (H, W, C).
    """

    net: Any
    params: dict[str, Any]
    shape: tuple[int, int, int]


Layer = dict[str, tuple[str, Kind]]
"""Our leaves of a layer by name: the end of their name, and the kind."""


SAME = Kind(lambda a: (a,), lambda t: t[0])
TRANSPOSED = Kind(lambda a: (a.T,), lambda t: t[0].T)
_IMAGE = Kind(lambda a: (a.transpose(3, 2, 0, 1),), lambda t: t[0].transpose(2, 3, 1, 0))

CONV: Layer = {"kernel": ("weight", _IMAGE), "bias": ("bias", SAME)}
"""[k, k, I, O] and [O, I, k, k]."""
DENSE: Layer = {"kernel": ("weight", TRANSPOSED), "bias": ("bias", SAME)}
"""[I, O] and [O, I]."""
NORM: Layer = {"scale": ("weight", SAME), "bias": ("bias", SAME)}
EMBED: Layer = {"embedding": ("weight", SAME)}
_LESS = Kind(lambda a: (a[:-1],), lambda t: np.concatenate([t[0], np.zeros_like(t[0][:1])]))
WITHOUT_LAST: Layer = {"embedding": ("weight", _LESS)}
"""A table without our last row, the null label, which is read as zeros."""


def dense_as_conv(axes: int) -> Layer:
    """A dense layer that is a convolution of one pixel there: [I, O] and [O, I, 1, ...]."""
    ones = (1,) * axes
    point = Kind(
        lambda a: (a.T.reshape(a.shape[::-1] + ones),), lambda t: t[0].reshape(t[0].shape[:2]).T
    )
    return {**DENSE, "kernel": ("weight", point)}


def parts(made: Layer, count: int) -> Layer:
    """A layer whose outputs are `count` layers there, one behind the other."""

    def split(kind: Kind) -> Kind:
        return Kind(
            lambda a: tuple(t for part in np.split(a, count, -1) for t in kind.theirs(part)),
            lambda t: np.concatenate([kind.ours((one,)) for one in t], -1),
        )

    return {leaf: (name, split(kind)) for leaf, (name, kind) in made.items()}


def ordered(made: Layer, order: Callable[[int], np.ndarray], axis: int = -1) -> Layer:
    """A layer whose outputs, or with axis -2 inputs, stand in another order there.

    Args:
        made: the layer.
        order: from how many there are to which of ours is which of theirs.
        axis: of the kernel; biases are of outputs alone.
    """

    def moved(kind: Kind) -> Kind:
        return Kind(
            lambda a: kind.theirs(np.take(a, order(a.shape[axis]), axis)),
            lambda t: _back(kind.ours(t), order, axis),
        )

    touched = [leaf for leaf in made if axis == -1 or leaf == "kernel"]
    moves = {leaf: (made[leaf][0], moved(made[leaf][1])) for leaf in touched}
    return {**made, **moves}


def _back(a: np.ndarray, order: Callable[[int], np.ndarray], axis: int) -> np.ndarray:
    return np.take(a, np.argsort(order(a.shape[axis])), axis)


def chunks(*order: int) -> Callable[[int], np.ndarray]:
    """For `ordered`: equal chunks in another order."""
    return lambda n: np.arange(n).reshape(len(order), -1)[list(order)].ravel()


def swapped(n: int) -> np.ndarray:
    """For `ordered`: cosines before sines, where the last of an odd number is neither."""
    half = n // 2
    return np.concatenate([np.arange(half, 2 * half), np.arange(half), np.arange(2 * half, n)])


def layer(ours: str, made: Layer, *theirs: str, copies: tuple[str, ...] = ()) -> dict[str, Link]:
    """The rows of a layer.

    Args:
        ours: the path of our module.
        made: the layer.
        *theirs: names of their modules; more than one for `parts`.
        copies: names of their modules that hold the same numbers.
    """
    return {
        f"{ours}/{leaf}": Link(
            tuple(f"{name}.{end}" for name in theirs),
            kind,
            tuple(f"{name}.{end}" for name in copies),
        )
        for leaf, (end, kind) in made.items()
    }


def module(ours: str, made: Mapping[str, tuple[Any, ...]], theirs: str) -> dict[str, Link]:
    """The rows of a module: from the names of our layers to (layer, their names ...)."""
    rows: dict[str, Link] = {}
    for part, (kind, *ends) in made.items():
        rows |= layer(f"{ours}/{part}", kind, *(f"{theirs}.{end}" for end in ends))
    return rows


@functools.lru_cache(maxsize=16)
def shapes_of(net: Any, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
    """The shapes of a network's parameters by their paths, nothing allocated.

    Args:
        net: a network of `models`.
        shape: of an image, (H, W, C).

    Raises:
        ValueError: fields that do not fit together, or not this image, which has less than 2**31
            numbers.
    """
    if not 0 < math.prod(shape) < 2**31:
        raise ValueError(f"images must be of 1 to 2**31 - 1 numbers, got shape {list(shape)}")
    inputs: list[Any] = [jnp.zeros((1, *shape)), jnp.zeros((1,))]
    if net.num_classes:
        inputs.append(jnp.zeros((1,), jnp.int32))
    made = jax.eval_shape(lambda key: net.init(key, *inputs), jax.random.key(0))
    found = {path: leaf.shape for path, leaf in _flat(made["params"]).items()}
    return types.MappingProxyType(found)


def read(
    weights: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    table: Mapping[str, Link],
    constants: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Our parameters from their tensors, each taken once.

    Args:
        weights: their tensors by name; float16 and bfloat16 are widened.
        shapes: of our parameters by path (`shapes_of`).
        table: a row for each of these paths; others are passed over.
        constants: tensors that they hold and we compute: may be missing, must be equal.

    Returns:
        The parameters, float32, for `net.apply({"params": ...}, ...)`.

    Raises:
        ValueError: tensors are missing, too many, not finite, of another shape, dtype or constant:
            all of them are counted and the first eight named.
    """
    left, constants = dict(weights), constants or {}
    faults = [
        _constant_fault(name, left.pop(name), a) for name, a in constants.items() if name in left
    ]
    params: dict[str, Any] = {}
    for path, shape in shapes.items():
        link = table[path]
        wanted = [part.shape for part in link.kind.theirs(np.zeros(shape, np.bool_))]
        names = (*link.names, *link.copies)
        wanted += [wanted[0]] * len(link.copies)
        found = [left.pop(name, None) for name in names]
        wrong = [_fault(*one) for one in zip(names, found, wanted, strict=True)]
        faults += wrong
        if any(wrong):
            continue
        wide = [np.asarray(a).astype(np.float32) for a in found]
        for name, copy in zip(link.copies, wide[len(link.names) :], strict=True):
            if not np.array_equal(copy, wide[0]):
                faults.append(f"{name} must be equal to {link.names[0]}")
        made = link.kind.ours(tuple(wide[: len(link.names)]))
        params[path] = np.ascontiguousarray(made)
    faults += [f"there is no place for {name} {_described(a)}" for name, a in left.items()]
    faults = [fault for fault in faults if fault]
    if faults:
        shown = "; ".join(faults[:8]) + ("; ..." if len(faults) > 8 else "")
        raise ValueError(f"weights do not fit the network, {len(faults)} in all: {shown}")
    return _nested(params)


def write(
    params: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    table: Mapping[str, Link],
    constants: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Their tensors from our parameters: what `read` reads, to the bit.

    Raises:
        ValueError: parameters of another network.
    """
    flat = _flat(params)
    found = {path: tuple(np.shape(a)) for path, a in flat.items()}
    differences = sorted(dict(found.items() ^ dict(shapes).items()))
    if differences:
        raise ValueError(
            f"params must be those of the network, {len(differences)} differ: "
            + ", ".join(differences[:8])
        )
    return dict(_written(flat, table)) | dict(constants or {})


def _written(
    flat: Mapping[str, Any], table: Mapping[str, Link]
) -> Iterator[tuple[str, np.ndarray]]:
    for path, a in flat.items():
        link = table[path]
        made = [np.ascontiguousarray(t) for t in link.kind.theirs(np.asarray(a))]
        yield from zip(link.names, made, strict=True)
        yield from ((name, made[0]) for name in link.copies)


def _flat(tree: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        inner = isinstance(value, Mapping)
        found |= _flat(value, f"{before}{name}/") if inner else {f"{before}{name}": value}
    return found


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, a in flat.items():
        *modules, leaf = path.split("/")
        place = tree
        for module in modules:
            place = place.setdefault(module, {})
        place[leaf] = a
    return tree


def _fault(name: str, found: Any, wanted: tuple[int, ...]) -> str:
    """What is wrong with a tensor, nothing if nothing is."""
    if found is None:
        return f"{name} {list(wanted)} is missing"
    if np.shape(found) != wanted or str(found.dtype) not in _FLOATS:
        of = "" if str(found.dtype) in _FLOATS else f" of {', '.join(_FLOATS)}"
        return f"{name} must be {list(wanted)}{of}, got {_described(found)}"
    if not np.isfinite(found).all():
        return f"{name} must be finite, got NaN or infinite numbers"
    return ""


def _constant_fault(name: str, found: Any, wanted: np.ndarray) -> str:
    if np.shape(found) == wanted.shape and np.allclose(found, wanted, rtol=1e-5, atol=1e-5):
        return ""
    return f"{name} must be the constant {_described(wanted)} of the network, got other numbers"


def _described(a: Any) -> str:
    return f"{getattr(a, 'dtype', type(a).__name__)} {list(np.shape(a))}"
