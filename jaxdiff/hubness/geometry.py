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

    Source: the mean of the chi distribution.
    """
    half = jnp.asarray(dim) / 2
    return jnp.sqrt(2.0) * jnp.exp(special.gammaln(half + 0.5) - special.gammaln(half))


def norm_std(dim: Any) -> Array:
    """The deviation of |z|, z ~ N(0, I_d): sqrt(d - E|z|**2), near 1 / sqrt(2) for any large d.

    From d = 1000 on by its series, 1/2 - 1/(8 d): the difference cancels.

    Source: the variance of the chi distribution.
    """
    d = jnp.asarray(dim, jnp.result_type(float))
    exact = d - norm_mean(d) ** 2
    return jnp.sqrt(jnp.where(d < 1000, exact, 0.5 - 1 / (8 * d)))


def angle_log_density(angle: Any, dim: Any) -> Array:
    """The log density of the angle between two random directions.

        log(Gamma(d/2) / (sqrt(pi) Gamma((d-1)/2))) + (d - 2) log sin(angle)

    Args:
        angle: in (0, pi).
        dim: d >= 2.

    Source: Su 2019, https://kexue.fm/archives/7076; Cai, Fan and Jiang 2013, JMLR 14, theorem 1.
    """
    d = jnp.asarray(dim, jnp.result_type(float))
    const = special.gammaln(d / 2) - special.gammaln((d - 1) / 2) - 0.5 * jnp.log(jnp.pi)
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
