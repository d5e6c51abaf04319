"""Exact nearest neighbours in blocks, and how often each point is one.

    d(a, b)^2 = |a - m|^2 + |b - m|^2 - 2 (a - m).(b - m),   m the mean of the reference

is one matrix product, and cancels where a is near b. So it only chooses whom to measure by
differences, see `search`. Points that are equally far are taken at random, by the key, for each
query anew: in the order of the points the first ones would be hubs of data that have none.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxdiff import arrays
from jaxdiff.hubness import search

__all__ = ["METRICS", "Neighbours", "k_occurrence", "nearest"]

METRICS = ("euclidean", "sqeuclidean", "cosine", "inner")
"""How far two points are: |a - b|, its square, 1 - a.b / (|a| |b|), -a.b."""

_BLOCK = 2**24  # scores at once: 64 MB


class Neighbours(NamedTuple):
    """The k nearest points of each query, nearest first.

    Attributes:
        distance: [N, k].
        index: [N, k], int, rows of the reference.
    """

    distance: Array
    index: Array


def nearest(
    x: Any,
    reference: Any = None,
    *,
    k: int,
    metric: str = "euclidean",
    key: Array | None = None,
    block: int | None = None,
    mesh: Mesh | None = None,
) -> Neighbours:
    """The k nearest neighbours of each point, exactly.

    Args:
        x: [N, D], float, the queries; half precision counts as float32.
        reference: [M, D], the points to be found; None for `x` itself, where no point is a
            neighbour of its own.
        k: how many, 1 <= k <= M, or < M among themselves.
        metric: a name of `METRICS`.
        key: for ties; equal keys break them alike. `jax.random.key(0)` unless given.
        block: queries at once, so many that their scores fill 64 MB unless given.
        mesh: devices along whose only axis queries are divided.

    Returns:
        `Neighbours`; the distance of "inner" is minus the product.

    Raises:
        ValueError: no points, other widths, k out of range, values that are not finite, an unknown
            metric, or zero vectors under "cosine".

    Source: the definition; the split of the square: Johnson et al. 2017, arXiv:1702.08734, eq. 2.
    """
    found = _searched(x, reference, k, metric, key, block, mesh, counts=False)
    return Neighbours(*found)


def k_occurrence(
    x: Any,
    reference: Any = None,
    *,
    k: int,
    metric: str = "euclidean",
    key: Array | None = None,
    block: int | None = None,
    mesh: Mesh | None = None,
) -> Array:
    """How many points have each one among their k nearest; its mean is k N / M.

        N_k(b) = #{a : b among the k nearest of a}

    Memory is that of a block: neither distances nor neighbours of all points are held.

    Args:
        x, reference, k, metric, key, block, mesh: as `nearest` has them.

    Returns:
        [M], int32.

    Raises:
        ValueError: as `nearest`.

    Source: Radovanovic et al. 2010, JMLR 11, section 2.
    """
    return _searched(x, reference, k, metric, key, block, mesh, counts=True)


def _searched(x, reference, k, metric, key, block, mesh, *, counts):
    among = reference is None
    x = search.checked("x", x)
    reference = x if among else search.checked("reference", reference)
    if x.shape[1] != reference.shape[1]:
        raise ValueError(
            f"x and reference must have one width, got {x.shape[1]} and {reference.shape[1]}"
        )
    dtype = jnp.promote_types(x.dtype, reference.dtype)
    x, reference = x.astype(dtype), reference.astype(dtype)
    arrays.check_count("k", k)
    most = reference.shape[0] - among
    if k > most:
        raise ValueError(f"k must be at most {most}, the number of other points, got {k}")
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
    if metric == "cosine":
        _check_lengths(x, reference)
    rows = max(1, _BLOCK // reference.shape[0]) if block is None else block
    arrays.check_count("block", rows)
    rows = min(rows, x.shape[0])
    key = jax.random.key(0) if key is None else key
    how = {"k": k, "metric": metric, "rows": rows, "among": among, "counts": counts}
    total = jnp.asarray(x.shape[0])
    if mesh is None:
        return _one_device(x, reference, key, jnp.asarray(0), total, **how)
    if len(mesh.axis_names) != 1:
        raise ValueError(f"mesh must have one axis, got {mesh.axis_names}")
    mesh = Mesh(mesh.devices, mesh.axis_names)  # of no explicit axes, whose arrays cannot be cut
    share = -(-x.shape[0] // mesh.size)
    padded = jnp.pad(x, ((0, share * mesh.size - x.shape[0]), (0, 0)), mode="edge")
    here, there = (NamedSharding(mesh, spec) for spec in (_along(mesh), PartitionSpec()))
    padded, everywhere = jax.device_put(padded, here), (reference, key, total)
    found = _devices(mesh, **how)(padded, *jax.device_put(everywhere, there))
    return found if counts else tuple(a[: x.shape[0]] for a in found)


def _along(mesh: Mesh) -> PartitionSpec:
    return PartitionSpec(mesh.axis_names[0])


@functools.cache
def _devices(mesh, *, counts, **how):
    """The program in which each device has its share of the queries, and all of the reference."""
    (axis,), here, there = mesh.axis_names, _along(mesh), PartitionSpec()

    def part(own, reference, key, total):
        first = jax.lax.axis_index(axis) * own.shape[0]
        found = search.blocks(own, reference, key, first, total, counts=counts, **how)
        return jax.lax.psum(found, axis) if counts else found

    out = there if counts else (here, here)
    specs = {"in_specs": (here, there, there, there), "out_specs": out, "check_vma": False}
    return jax.jit(jax.shard_map(part, mesh=mesh, **specs))


_one_device = jax.jit(search.blocks, static_argnames=("k", "metric", "rows", "among", "counts"))


def _check_lengths(*points: Array) -> None:
    for x in points:
        known = arrays.concrete(x)
        if known is not None and not (known != 0).any(axis=-1).all():
            raise ValueError("cosine needs vectors that are not zero, got one that is")
