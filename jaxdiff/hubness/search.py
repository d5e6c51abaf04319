"""The search for neighbours on one device: candidates by a product, and a proof for each query.

    low(q, r) = (1 - slack) |r|^2 - 2 q.r   <=   |q - r|^2 - (1 - slack) |q|^2

`slack` being more than the rounding of such a product, without the squares for inner products.
The points of least `low` are candidates, a few more than k, and are measured by differences. If
their k-th distance leaves room for the `low` of no further point, they hold the k nearest.
A query that has no such proof is measured to all points.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxdiff import arrays

__all__ = ["blocks", "checked", "scale_of"]

_SPARE = 8  # candidates beyond k
_GROUP = 16  # points that are one, by the least `low` of them, until the candidates are chosen


def checked(name: str, x: Any) -> Array:
    """Points [N, D] in float32 or wider.

    Raises:
        ValueError: no points, no floats, or values that are not finite.
    """
    x = jnp.asarray(x)
    if x.ndim != 2 or not x.shape[0] or not x.shape[1]:
        raise ValueError(f"{name} must be points [N, D], got shape {list(x.shape)}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{name} must be float, got {x.dtype}")
    known = arrays.concrete(x)
    if known is not None and not jnp.isfinite(known).all():
        raise ValueError(f"{name} must be finite, got NaN or infinite values")
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class _Points(NamedTuple):
    """The reference, padded to whole groups.

    Attributes:
        at: [M, D], as they are measured.
        near: [M, D], as they are multiplied: about their mean, where a distance has no origin.
        share: |r|^2 counts in `low` by this.
        seen: [M], that part of `low`; infinite for padding.
        centre: [1, D], what was taken off.
    """

    at: Array
    near: Array
    share: float
    seen: Array
    centre: Array


def blocks(
    x: Array,
    reference: Array,
    key: Array,
    first: Array,
    total: Array,
    *,
    k: int,
    metric: str,
    rows: int,
    among: bool,
    counts: bool,
) -> Any:
    """All queries of one device, `rows` at once.

    Args:
        x: [N, D], the queries.
        reference: [M, D], the points to be found.
        key: for ties.
        first: [], the number of the first query among those of all devices.
        total: [], how many those are; what is beyond them is padding.
        k: how many neighbours.
        metric: a name of `neighbours.METRICS`.
        rows: queries at once.
        among: whether query i is point i, which is no neighbour of its own.
        counts: whether counts are wanted, or else distances and indices.

    Returns:
        [M] counts, or [N, k] distances and indices.
    """
    scale = scale_of(x, reference)
    x, reference = (_unit(a) if metric == "cosine" else a / scale for a in (x, reference))
    points = _points(reference, metric)
    several = min(k + _SPARE, reference.shape[0] - among)
    whole = jnp.pad(x, ((0, -x.shape[0] % rows), (0, 0)), mode="edge")

    def one(carry: Array, inputs: Any) -> Any:
        start, query = inputs
        place = start + jnp.arange(rows)
        number = first + place
        own = number if among else jnp.full_like(number, -1)
        index = _nearest(
            query, points, own, _seeds(key, number), k=k, several=several, metric=metric
        )
        if not counts:
            return carry, (_far(_apart(query, reference, index, metric), scale, metric), index)
        real = (place < x.shape[0]) & (number < total)
        index = jnp.where(real[:, None], index, reference.shape[0])
        return carry.at[index.ravel()].add(1, mode="drop"), None

    start = jnp.zeros(reference.shape[0] if counts else (), jnp.int32)
    parts = whole.reshape(-1, rows, x.shape[1])
    found, listed = jax.lax.scan(one, start, (rows * jnp.arange(parts.shape[0]), parts))
    if counts:
        return found
    return tuple(a.reshape(-1, k)[: x.shape[0]] for a in listed)


def scale_of(*points: Array) -> Array:
    """A power of two near the largest number, by which squares neither overflow nor vanish."""
    largest = functools.reduce(jnp.maximum, [jnp.max(jnp.abs(x)) for x in points])
    least = jnp.finfo(largest.dtype).minexp
    exponent = jnp.clip(jnp.frexp(jax.lax.stop_gradient(largest))[1] - 1, least, -least)
    return jnp.ldexp(jnp.ones((), largest.dtype), exponent)


def _unit(x: Array) -> Array:
    """Vectors of length 1, for "cosine", whose half squared distance is 1 - cos."""
    largest = jnp.max(jnp.abs(x), axis=-1, keepdims=True)
    x = x / jnp.where(largest > 0, largest, 1)
    length = jnp.sqrt(jnp.sum(x**2, axis=-1, keepdims=True))
    return x / jnp.where(length > 0, length, 1)


def _points(reference: Array, metric: str) -> _Points:
    points, dim = reference.shape
    at = jax.lax.stop_gradient(jnp.pad(reference, ((0, -points % _GROUP), (0, 0))))
    centre = jnp.zeros((1, dim), at.dtype)
    if "euclidean" in metric:
        centre = jnp.mean(at[:points], axis=0, keepdims=True)
    near = at - centre
    share = float(metric != "inner") - _slack(at)
    seen = jnp.where(jnp.arange(at.shape[0]) < points, share * jnp.sum(near**2, axis=-1), jnp.inf)
    return _Points(at, near, share, seen, centre)


def _slack(x: Array) -> float:
    """Of |q|^2 + |r|^2: four deviations of a sum of D rounded products, and the centre's rounding.

    Source: Higham and Mary 2019, doi:10.1137/18M1226312, theorem 2.4 (lambda sqrt(D) eps / 2).
    """
    return (2 * x.shape[-1] ** 0.5 + 4) * float(jnp.finfo(x.dtype).eps)


def _nearest(
    query: Array, points: _Points, own: Array, seed: Array, *, k: int, several: int, metric: str
) -> Array:
    """Indices of the k nearest of a block of queries, [rows, k]; none is `own`."""
    query = jax.lax.stop_gradient(query)
    rows, size = query.shape[0], points.at.shape[0]
    numbers = jnp.arange(size)
    shifted = query - points.centre
    product = jnp.matmul(shifted, points.near.T, precision=jax.lax.Precision.HIGHEST)
    low = jnp.where(numbers[None] == own[:, None], jnp.inf, points.seen[None] - 2 * product)
    low = low.reshape(rows, _GROUP, size // _GROUP)
    # Minima of whole arrays: XLA is slow to reduce an axis that is not the last on a CPU.
    least = functools.reduce(jnp.minimum, [low[:, i] for i in range(_GROUP)])
    groups = jax.lax.top_k(-least, min(several, least.shape[1]))[1][:, None]
    member = groups + least.shape[1] * jnp.arange(_GROUP)[None, :, None]
    lows = jnp.take_along_axis(low, groups, axis=2).reshape(rows, -1)
    place = jax.lax.top_k(-lows, several)[1]
    index = jnp.take_along_axis(member.reshape(rows, -1), place, axis=1)
    apart = _apart(query, points.at, index, metric)

    furthest = _kth(apart, k)
    room = furthest + _slack(query) * jnp.abs(furthest)
    room = (room - points.share * jnp.sum(shifted**2, axis=-1))[:, None]
    unsure = jnp.maximum(jnp.sum(lows <= room, axis=-1), jnp.sum(least <= room, axis=-1)) > several

    def settle(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        """Other candidates for one query: of all points, those at its k-th distance by lot."""
        unsure, apart, index = state
        i = jnp.argmax(unsure)
        out = (numbers == own[i]) | jnp.isinf(points.seen)
        every = jnp.where(out, jnp.inf, _measured(query[i][None], points.at, metric))
        last = _kth(every, k)
        lots = jnp.where(every == last, _lots(seed[i], numbers), jnp.inf)
        best = jax.lax.top_k(-jnp.where(every < last, -1, lots), several)[1]
        return unsure.at[i].set(False), apart.at[i].set(every[best]), index.at[i].set(best)

    state = (unsure, apart, index)
    _, apart, index = jax.lax.while_loop(lambda state: jnp.any(state[0]), settle, state)
    lots = _lots(seed[:, None], index)
    return jax.lax.sort((apart, lots, index), dimension=-1, num_keys=2)[2][:, :k]


def _kth(apart: Array, k: int) -> Array:
    """The k-th of distances; as a minimum, since XLA sorts all if top_k's result is cut."""
    return -jnp.min(jax.lax.top_k(-apart, k)[0], axis=-1)


def _seeds(key: Array, number: Array) -> Array:
    """A random word for each query, by its number."""
    salt = jax.random.bits(key, (2,), jnp.uint32)
    return _mixed(_mixed(number.astype(jnp.uint32) ^ salt[0]) ^ salt[1])


def _lots(seed: Array, index: Array) -> Array:
    """What decides between points that are equally far, in [0, 1): a hash of query and point.

    Threefry would take longer to compile than all else here.

    Source: Appleby's MurmurHash3, its last mixing.
    """
    spread = index.astype(jnp.uint32) * jnp.uint32(0x9E3779B1)
    return (_mixed(spread ^ seed) >> 8).astype(jnp.float32) / 2**24


def _mixed(h: Array) -> Array:
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h = (h ^ (h >> shift)) * jnp.uint32(factor)
    return h ^ (h >> 16)


def _apart(query: Array, reference: Array, index: Array, metric: str) -> Array:
    """From each query to its own points: one after another, so that no [rows, any, D] is held."""
    column = lambda index: _measured(query, reference[index], metric)  # noqa: E731
    return jax.lax.map(column, index.T).T


def _measured(x: Array, y: Array, metric: str) -> Array:
    """|x - y|^2, or -2 x.y, what is left of it but for squares."""
    return jnp.sum(-2 * x * y if metric == "inner" else (x - y) ** 2, axis=-1)


def _far(apart: Array, scale: Array, metric: str) -> Array:
    """Distances from what `_apart` says."""
    if metric == "euclidean":
        positive = apart > 0  # the root has no slope at 0
        return jnp.where(positive, scale * jnp.sqrt(jnp.where(positive, apart, 1)), 0)
    factor = {"sqeuclidean": scale**2, "cosine": 0.5, "inner": scale**2 / 2}[metric]
    return factor * apart
