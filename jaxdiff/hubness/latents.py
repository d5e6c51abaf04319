"""Latents that many others are near to, and the simpler ways to stay in the middle.

Draw a pool, count N_k, keep the hubs. On a Gaussian hubs lie at a smaller radius (20.9 against
22.6 at d = 512), on the sphere there are next to none: compare `central` and `truncated`, which
need no neighbours, before crediting hubs. Generators that map latents first (StyleGAN's W) are
served by `transform`: counts are taken where it maps to.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxdiff import arrays
from jaxdiff.hubness.neighbours import k_occurrence

__all__ = ["PRIORS", "Latents", "Pool", "central", "draw", "hub_latents", "hub_pool", "truncated"]

PRIORS = ("normal", "sphere")


class Pool(NamedTuple):
    """Latents with their counts, the most popular first.

    Attributes:
        z: [P, D].
        counts: [P], N_k of each in the pool that it was drawn in.
    """

    z: Array
    counts: Array


class Latents(NamedTuple):
    """Selected latents, and what it took.

    Attributes:
        z: [n, D]; reshaped and times `grid.prior_std` it is the `x_T` of a sampler.
        counts: [n], N_k of each.
        drawn: how many latents were drawn in all.
        share: of those drawn that passed.
    """

    z: Array
    counts: Array
    drawn: int
    share: float


def draw(key: Array, n: int, dim: int, prior: str = "normal") -> Array:
    """Latents of a prior, [n, dim].

        normal    z ~ N(0, I)
        sphere    sqrt(dim) z / |z|, as StyleGAN normalises them

    Args:
        key: a PRNG key.
        n: how many.
        dim: D.
        prior: a name of `PRIORS`.

    Raises:
        ValueError: an unknown name, or counts below 1.
    """
    arrays.check_count("n", n)
    arrays.check_count("dim", dim)
    if prior not in PRIORS:
        raise ValueError(f"prior must be one of {', '.join(PRIORS)}, got {prior!r}")
    z = jax.random.normal(key, (n, dim), arrays.float_dtype())
    if prior == "normal":
        return z
    return z * jnp.sqrt(dim) / jnp.linalg.norm(z, axis=-1, keepdims=True)


def hub_pool(
    key: Array,
    pool: int,
    dim: int,
    *,
    k: int = 5,
    prior: str = "normal",
    transform: Callable[[Array], Array] | None = None,
    metric: str = "euclidean",
) -> Pool:
    """A pool of latents in the order of their counts; its first m are the top m hubs.

    Args:
        key: a PRNG key.
        pool: how many latents, more than k; counts grow with it.
        dim: D.
        k: of the neighbourhoods.
        prior: a name of `PRIORS`.
        transform: [P, D] to [P, any], where counts are taken; the latents themselves unless given.
        metric: as `nearest` has it.

    Raises:
        ValueError: a pool of k or fewer, or what `draw` and `nearest` raise.
    """
    arrays.check_count("k", k)
    arrays.check_count("pool", pool)
    if pool <= k:
        raise ValueError(f"pool must be more than k={k}, got {pool}")
    key_z, key_ties = jax.random.split(key)
    z = draw(key_z, pool, dim, prior)
    seen = z if transform is None else transform(z)
    if jnp.ndim(seen) != 2 or seen.shape[0] != pool:
        raise ValueError(f"transform must return [{pool}, any], got {list(jnp.shape(seen))}")
    counts = k_occurrence(seen, k=k, metric=metric, key=key_ties)
    order = jnp.argsort(-counts, stable=True)
    return Pool(z[order], counts[order])


def hub_latents(
    key: Array,
    n: int,
    dim: int,
    *,
    threshold: int | None = 50,
    top: int | None = None,
    pool: int = 10_000,
    k: int = 5,
    prior: str = "normal",
    transform: Callable[[Array], Array] | None = None,
    metric: str = "euclidean",
    tries: int = 100,
) -> Latents:
    """Latents that are hubs of the pools that they are drawn in.

    Pools are drawn until n latents have passed: those with N_k >= threshold, or the `top` first
    of each pool. A pool's number is folded into the key, so that more latents begin with fewer.
    How many pools a threshold takes is not known before: under `jit` give `top`, or use `hub_pool`.

    Args:
        key: a PRNG key.
        n: how many latents are wanted.
        dim: their length.
        threshold: the least count, below `pool`; None where `top` is given.
        top: how many of each pool pass, at most `pool`; None where `threshold` is given.
        pool: latents drawn at once; with k = 5 and a threshold of 50 some 1 to 2 % of 10,000 pass
            at d = 128 or more, .4 % at d = 32, and none at d = 8.
        k, prior, transform, metric: as `hub_pool` has them.
        tries: how many pools may be drawn; and 3 of them without any that passes are enough.

    Returns:
        `Latents`.

    Raises:
        ValueError: both or neither of threshold and top, or one that no pool can meet; nothing or
            too little that passes, with what was found and what would be needed.

    Source: Liang et al. 2022, arXiv:2206.06014: k = 5, threshold 50, pools of 10,000.
    """
    arrays.check_count("n", n)
    arrays.check_count("tries", tries)
    arrays.check_count("pool", pool)
    if (threshold is None) == (top is None):
        raise ValueError(f"one of threshold and top is wanted, got {threshold} and {top}")
    if threshold is not None:
        arrays.check_count("threshold", threshold)
        if threshold >= pool:
            raise ValueError(
                f"threshold must be below pool={pool}: no count can reach {threshold} of"
                f" {pool - 1} others"
            )
    else:
        arrays.check_count("top", top)
        if top > pool:
            raise ValueError(f"top must be at most pool={pool}, got {top}")
        if n > top * tries:
            raise ValueError(f"n must be at most top * tries = {top * tries}, got {n}")
    parts: list[Pool] = []
    best: list[Array] = []
    passed = made = 0
    while passed < n:
        key_pool = jax.random.fold_in(key, made)
        how = {"k": k, "prior": prior, "transform": transform, "metric": metric}
        found = hub_pool(key_pool, pool, dim, **how)
        many = top if threshold is None else int(jnp.sum(found.counts >= threshold))
        made, passed = made + 1, passed + many
        parts.append(Pool(found.z[:many], found.counts[:many]))
        best.append(found.counts[0])
        if passed < n and (made >= tries or (made >= 3 and not passed)):
            share = passed / (made * pool)
            needed = f"some {n / share / pool:.0f} pools" if passed else "a lower threshold"
            raise ValueError(
                f"threshold={threshold}: {passed} of {made * pool:,} latents passed in {made}"
                f" pools, wanted {n}; the greatest count was {max(best)}: give {needed}"
            )
    z, counts = (jnp.concatenate(a)[:n] for a in zip(*parts, strict=True))
    return Latents(z, counts, made * pool, passed / (made * pool))


def central(key: Array, n: int, dim: int, *, pool: int, prior: str = "normal") -> Array:
    """The n latents of a pool that are nearest to the prior's mean, nearest first: [n, dim].

    The control for hubs: it stays in the middle as they do, and asks for no neighbours.

    Args:
        key: a PRNG key.
        n: how many, at most `pool`.
        dim: D.
        pool: how many latents are drawn.
        prior: a name of `PRIORS`; on the sphere all are equally far.

    Raises:
        ValueError: n above pool, or what `draw` raises.
    """
    arrays.check_count("n", n)
    arrays.check_count("pool", pool)
    if n > pool:
        raise ValueError(f"n must be at most pool={pool}, got {n}")
    z = draw(key, pool, dim, prior)
    return z[jnp.argsort(jnp.sum(z**2, axis=-1))[:n]]


def truncated(w: Array, psi: Any, centre: Any = 0.0) -> Array:
    """Latents drawn towards a centre.

        w' = centre + psi (w - centre)

    Args:
        w: [..., D].
        psi: in [0, 1]; .7 is StyleGAN's.
        centre: [D] or [], the mean of w.

    Raises:
        ValueError: psi outside [0, 1], or a centre of another length.

    Source: Karras et al. 2019, arXiv:1812.04948, section B.
    """
    arrays.check_range("psi", psi, 0, 1, "[]")
    w = jnp.asarray(w)
    middle = jnp.asarray(centre, w.dtype)
    if middle.shape not in ((), w.shape[-1:]):
        raise ValueError(f"centre must be [] or {list(w.shape[-1:])}, got {list(middle.shape)}")
    middle = jnp.reshape(middle, (1,) * (w.ndim - middle.ndim) + middle.shape)
    return middle + psi * (w - middle)
