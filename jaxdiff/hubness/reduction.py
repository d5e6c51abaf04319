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
    radius = own[:, -1:] * other[..., -1]
    return -jnp.expm1(-(d**2) / jnp.where(radius > 0, radius, 1))


def nicdm(d: Array, own: Array, other: Array) -> Array:
    """d / sqrt(mean_i mean_j), the mean of a point's distances to its candidates.

    Source: Jegou et al. 2007; Schnitzer et al. 2012, JMLR 13.
    """
    scale = jnp.sqrt(jnp.mean(own, axis=-1, keepdims=True) * jnp.mean(other, axis=-1))
    return d / jnp.where(scale > 0, scale, 1)


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
        return stats.norm.sf((d - mean) / jnp.where(std > 0, std, 1))

    return 1 - beyond(own[:, None, :]) * beyond(other)


SCALINGS: dict[str, Callable[[Array, Array, Array], Array]] = {
    "local_scaling": local_scaling,
    "nicdm": nicdm,
    "mutual_proximity": mutual_proximity,
    "mutual_proximity_gaussian": mutual_proximity_gaussian,
}

REDUCTIONS = (*SCALINGS, "dis_sim_local")
"""Ways to rescale by name."""


def dis_sim_local(
    x: Array, y: Array, x_centre: Array, y_centre: Array, square: Array | None = None
) -> Array:
    """|x - y|**2 - |x - c(x)|**2 - |y - c(y)|**2, c the mean of a point's candidates.

    Args:
        x: [..., D].
        y: [..., D].
        x_centre, y_centre: c of each.
        square: |x - y|**2, where it is known.

    Source: Hara et al. 2016, AAAI 30.
    """
    apart = jnp.sum((x - y) ** 2, axis=-1) if square is None else square
    spread = jnp.sum((x - x_centre) ** 2, axis=-1) + jnp.sum((y - y_centre) ** 2, axis=-1)
    return apart - spread


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
    key = jax.random.key(0) if key is None else key
    near = nearest(x, k=candidates, metric=metric, key=key)
    return _reordered(jnp.asarray(x), near, jax.random.fold_in(key, 1), k=k, by=by)


def _reordered(x: Array, near: Neighbours, key: Array, *, k: int, by: str) -> Neighbours:
    """Row by row: [C, C] numbers at once."""
    centre = jax.lax.map(lambda i: jnp.mean(x[i], axis=0), near.index)

    def one(inputs: tuple[Array, Array, Array, Array]) -> tuple[Array, Array]:
        i, d, index, key = inputs
        if by == "dis_sim_local":
            new = dis_sim_local(x[i][None], x[index], centre[i][None], centre[index])
        else:
            new = SCALINGS[by](d[None], d[None], near.distance[index][None])[0]
        draw = jax.random.uniform(key, new.shape)
        new, _, index = jax.lax.sort((new, draw, index), num_keys=2)
        return new[:k], index[:k]

    numbers = jnp.arange(near.index.shape[0])
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(numbers)
    return Neighbours(*jax.lax.map(one, (numbers, *near, keys)))
