"""Distances that hubs do not win: rescaled by what is near each point.

Each takes the `candidates` nearest of every point, rescales their distances, and orders them anew.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy import stats

from jaxdiff import arrays
from jaxdiff.hubness import search
from jaxdiff.hubness.neighbours import Neighbours, nearest

__all__ = [
    "REDUCTIONS",
    "dis_sim_local",
    "local_scaling",
    "mutual_proximity",
    "mutual_proximity_gaussian",
    "nicdm",
    "reduced",
]


def local_scaling(d: Array, own: Array, other: Array) -> Array:
    """1 - exp(-d**2 / (r_i r_j)), r the distance of a point to its last candidate.

    Args:
        d: [N, C], distances of candidates.
        own: [N, C], those of the queries, sorted: `d` itself.
        other: [N, C, C], those of each candidate.

    Source: Zelnik-Manor and Perona 2004; Schnitzer et al. 2012, JMLR 13.
    """
    ratio = d**2 / _positive(own[:, -1:] * other[..., -1])
    return -jnp.expm1(-ratio)


def nicdm(d: Array, own: Array, other: Array) -> Array:
    """d / sqrt(mean_i mean_j), the mean of a point's distances to its candidates.

    Source: Jegou et al. 2007; Schnitzer et al. 2012, JMLR 13.
    """
    scale = jnp.sqrt(jnp.mean(own, axis=-1, keepdims=True) * jnp.mean(other, axis=-1))
    return d / _positive(scale)


def mutual_proximity(d: Array, own: Array, other: Array) -> Array:
    """1 - P(X > d) P(Y > d) by counting candidates: X is i's distances, Y those of j.

    The two are taken to be independent, since candidates of i and j are others.

    Source: Schnitzer et al. 2012, JMLR 13.
    """
    beyond = jnp.mean(own[:, None, :] > d[:, :, None], axis=-1)
    return 1 - beyond * jnp.mean(other > d[:, :, None], axis=-1)


def mutual_proximity_gaussian(d: Array, own: Array, other: Array) -> Array:
    """1 - P(X > d) P(Y > d), of normals with the moments of i's and j's distances.

    Source: Schnitzer et al. 2012, JMLR 13 (independent normals).
    """

    def beyond(among: Array) -> Array:
        mean, std = jnp.mean(among, axis=-1), jnp.std(among, axis=-1)
        return stats.norm.sf((d - mean) / _positive(std))

    return 1 - beyond(own[:, None, :]) * beyond(other)


SCALINGS: dict[str, Callable[[Array, Array, Array], Array]] = {
    "local_scaling": local_scaling,
    "nicdm": nicdm,
    "mutual_proximity": mutual_proximity,
    "mutual_proximity_gaussian": mutual_proximity_gaussian,
}

REDUCTIONS = (*SCALINGS, "dis_sim_local")
"""Ways to rescale by name."""


def dis_sim_local(square: Array, own: Array, other: Array) -> Array:
    """|x - y|**2 - |x - c(x)|**2 - |y - c(y)|**2, c the mean of a point's candidates.

    Args:
        square: [N, C], |x - y|**2 of candidates.
        own: [N, 1], |x - c(x)|**2 of the queries.
        other: [N, C], that of each candidate.

    Source: Hara et al. 2016, AAAI 30.
    """
    return square - own - other


def _positive(x: Array) -> Array:
    """1 in place of 0, which is the scale of equal points."""
    return jnp.where(x > 0, x, 1)


def reduced(
    x: Any,
    *,
    k: int,
    by: str,
    candidates: int = 100,
    metric: str = "euclidean",
    key: Array | None = None,
) -> Neighbours:
    """The k nearest neighbours of each point among the others, by rescaled distances.

    Args:
        x: [N, D], float.
        k: how many, at most `candidates`.
        by: a name of `REDUCTIONS`.
        candidates: how many nearest points are looked at again, at most N - 1; all others lose.
        metric: of `neighbours.METRICS` but "inner"; "dis_sim_local" is of squared distances.
        key: for ties.

    Returns:
        `Neighbours`, with the rescaled distances.

    Raises:
        ValueError: k or candidates out of range, an unknown name, or what `nearest` raises.

    Source: Feldbauer and Flexer 2019, doi:10.1007/s10115-018-1205-y, for the comparison of all.
    """
    if by not in REDUCTIONS:
        raise ValueError(f"by must be one of {', '.join(REDUCTIONS)}, got {by!r}")
    arrays.check_count("k", k)
    arrays.check_count("candidates", candidates)
    if k > candidates:
        raise ValueError(f"k must be at most candidates={candidates}, got {k}")
    if metric == "inner":
        raise ValueError("metric must be a distance, got 'inner', which may be negative")
    x = search.checked("x", x)
    if candidates >= x.shape[0]:
        raise ValueError(
            f"candidates must be at most {x.shape[0] - 1}, the number of other points,"
            f" got {candidates}"
        )
    key = jax.random.key(0) if key is None else key
    scale = search.scale_of(x)
    near = nearest(x / scale, k=candidates, metric=metric, key=key)
    distance, index = _reordered(x / scale, near, jax.random.fold_in(key, 1), k=k, by=by)
    return Neighbours(distance * scale**2 if by == "dis_sim_local" else distance, index)


def _reordered(x: Array, near: Neighbours, key: Array, *, k: int, by: str) -> Neighbours:
    """Row by row: [C, C] numbers at once."""
    spread = jax.lax.map(
        lambda a: jnp.sum(jnp.mean(x[a[1]] - a[0][None], axis=0) ** 2), (x, near.index)
    )

    def one(inputs: tuple[Array, Array, Array, Array]) -> tuple[Array, Array]:
        i, d, index, key = inputs
        if by == "dis_sim_local":
            square = jnp.sum((x[i][None] - x[index]) ** 2, axis=-1)
            new = dis_sim_local(square, spread[i], spread[index])
        else:
            new = SCALINGS[by](d[None], d[None], near.distance[index][None])[0]
        draw = jax.random.uniform(key, new.shape)
        new, _, index = jax.lax.sort((new, draw, index), num_keys=2)
        return new[:k], index[:k]

    numbers = jnp.arange(near.index.shape[0])
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(numbers)
    return Neighbours(*jax.lax.map(one, (numbers, *near, keys)))
