"""Closed forms of high dimensions: where volume, norms and angles go."""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.scipy import special

__all__ = [
    "angle_log_density",
    "antihub_share_limit",
    "ball_cube_log_ratio",
    "cosine_std",
    "norm_mean",
    "norm_std",
    "shell_share",
]


def ball_cube_log_ratio(dim: Any) -> Array:
    """The logarithm of a ball's volume over that of the cube around it.

        log(pi**(d/2) / (Gamma(d/2 + 1) 2**d)):   .785 at d = 2, 2.5e-3 at 10, 2.5e-8 at 20

    Args:
        dim: d >= 1.

    Source: Su 2022, https://kexue.fm/archives/9147, and any table of integrals.
    """
    half = jnp.asarray(dim) / 2
    return half * jnp.log(jnp.pi) - special.gammaln(half + 1) - 2 * half * jnp.log(2.0)


def shell_share(dim: Any, thickness: Any) -> Array:
    """The share of a ball's volume within `thickness` of its surface: 1 - (1 - thickness)**d.

    Args:
        dim: d >= 1.
        thickness: as a share of the radius, in [0, 1].

    Source: the volume of a ball is proportional to the d-th power of its radius.
    """
    return -jnp.expm1(jnp.asarray(dim) * jnp.log1p(-jnp.asarray(thickness)))


def norm_mean(dim: Any) -> Array:
    """E |z| of z ~ N(0, I_d): sqrt(2) Gamma((d + 1) / 2) / Gamma(d / 2), near sqrt(d - 1/2).

    Args:
        dim: d >= 1.

    Source: the mean of the chi distribution.
    """
    d = jnp.asarray(dim, jnp.result_type(float))
    return jnp.sqrt(d) * jnp.exp(_log_ratio(d) / 2)


def norm_std(dim: Any) -> Array:
    """The deviation of |z|, z ~ N(0, I_d): sqrt(d - E|z|**2), near 1 / sqrt(2) for any large d.

    Args:
        dim: d >= 1.

    Source: the variance of the chi distribution.
    """
    d = jnp.asarray(dim, jnp.result_type(float))
    return jnp.sqrt(-d * jnp.expm1(_log_ratio(d)))


def _log_ratio(d: Array) -> Array:
    """log(E|z|**2 / d), near -1 / (2 d): by its series from d = 16 on, where log Gamma cancels."""
    half, numbers = d / 2, (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66)  # Bernoulli's B_2, B_4, ...
    terms = [
        2 * (0.5**n - 2) * b / (n * (n + 1)) / half**n
        for n, b in zip((1, 3, 5, 7, 9), numbers, strict=True)
    ]
    exact = 2 * (special.gammaln(half + 0.5) - special.gammaln(half)) - jnp.log(half)
    return jnp.where(d < 16, exact, sum(terms))


def angle_log_density(angle: Any, dim: Any) -> Array:
    """The log density of the angle between two random directions.

        log(Gamma(d/2) / (sqrt(pi) Gamma((d-1)/2))) + (d - 2) log sin(angle)

    Args:
        angle: in (0, pi).
        dim: d >= 2.

    Source: Su 2019, https://kexue.fm/archives/7076; Cai, Fan and Jiang 2013, JMLR 14, theorem 1.
    """
    d = jnp.asarray(dim, jnp.result_type(float))
    const = jnp.log(norm_mean(d - 1)) - 0.5 * jnp.log(2 * jnp.pi)
    return const + (d - 2) * jnp.log(jnp.sin(angle))


def cosine_std(dim: Any) -> Array:
    """The deviation of the cosine of two random directions: 1 / sqrt(d).

    Source: E cos**2 = 1/d, by symmetry.
    """
    return jnp.asarray(dim, jnp.result_type(float)) ** -0.5


def antihub_share_limit(k: Any) -> Array:
    """The share of points that are nobody's neighbour where points are many beyond any dimension.

        exp(-k): N_k is Poisson with mean k as first n, then d go to infinity

    At a fixed n the share grows with d instead, .49 at k = 5, n = 10,000, d = 512: hubs are what
    n points do in many dimensions, not what dimensions do to infinitely many.

    Args:
        k: of the neighbourhoods.

    Source: Newman, Rinott and Tversky 1983, Adv. Appl. Prob. 15 (k = 1), and Radovanovic et al.
    2010, JMLR 11.
    """
    return jnp.exp(-jnp.asarray(k, jnp.result_type(float)))
