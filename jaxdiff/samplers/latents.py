"""Latents: from data to the x_T that generates them, and paths between latents.

    d(x / alpha) = eps d(sigma / alpha)

is the probability flow in its own clock. Euler from s to t reads

    x_t = (alpha_t / alpha_s) x_s + (sigma_t - alpha_t sigma_s / alpha_s) eps(x_s, s)

which is DDIM, in either direction, and does not mind alpha_t = 0. Upwards it begins at data, where
sigma = 0 and no network can be asked: the first slope is therefore taken at the first noisy level,
at the point alpha_t x_0.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import check_range, expand_to
from jaxdiff.denoiser import Denoiser
from jaxdiff.typing import Denoise, Grid, NoiseLevel

__all__ = ["circular", "ddim_encode", "heun_encode", "slerp"]


def ddim_encode(denoise: Denoise, grid: Grid, x_0: Array) -> Array:
    """The latent x_T of data by Euler steps up the grid, the inverse of `ddim(eta=0.)`.

    Encoding and decoding undo each other to O(1/K).

    Args:
        denoise: the model.
        grid: the grid that would be sampled with; it is climbed from its end.
        x_0: [B, ...], at the grid's last level.

    Returns:
        x_T, [B, ...].

    Raises:
        ValueError: an x_0 that is no float batch, or a grid the parametrization refuses.

    Source: Song et al. 2021, arXiv:2010.02502, section 4.3, eq. 14.
    """
    _check(denoise, grid, x_0)
    return _climb(arrays.as_pytree(denoise), grid, x_0, second_order=False)


def heun_encode(denoise: Denoise, grid: Grid, x_0: Array) -> Array:
    """The latent x_T of data by Heun steps up the grid; second order, twice the calls.

    Args, Returns and Raises as for `ddim_encode`.

    Source: Karras et al. 2022, arXiv:2206.00364, algorithm 1, run upwards.
    """
    _check(denoise, grid, x_0)
    return _climb(arrays.as_pytree(denoise), grid, x_0, second_order=True)


@functools.partial(jax.jit, static_argnames="second_order")
def _climb(denoise: Denoise, grid: Grid, x_0: Array, *, second_order: bool) -> Array:
    t, s = jax.tree.map(lambda a: a[::-1], grid.pairs)

    def body(x, pair):
        t, s = pair
        padding, clean = t.sigma <= 0, s.sigma <= 0
        t = t._replace(sigma=jnp.where(padding, 1, t.sigma))
        fall, rise = t.alpha / s.alpha, t.sigma - t.alpha * s.sigma / s.alpha
        fall, rise = expand_to(fall, x), expand_to(rise, x)
        start = NoiseLevel(*(jnp.where(clean, a, b) for a, b in zip(t, s, strict=True)))
        slope = denoise(jnp.where(clean, fall, 1) * x, start).eps
        up = fall * x + rise * slope
        if second_order:
            later = denoise(up, t).eps
            up = fall * x + rise * jnp.where(clean, later, 0.5 * (slope + later))
        return jnp.where(padding, x, up), None

    return jax.lax.scan(body, x_0, (t, s))[0]


def _check(denoise: Denoise, grid: Grid, x_0: Array) -> None:
    if x_0.ndim < 1 or x_0.size == 0 or x_0.dtype not in (jnp.float32, jnp.float64):
        raise ValueError(f"x_0 must be float [B, ...], got {x_0.dtype}{list(x_0.shape)}")
    for part in jax.tree.leaves(denoise, is_leaf=lambda node: isinstance(node, Denoiser)):
        if isinstance(part, Denoiser):
            part.check(grid.levels)


def slerp(a: Array, b: Array, fraction: Any) -> Array:
    """The great-circle path between latents, example by example, with the true angle.

        (sin((1 - f) w) a + sin(f w) b) / sin(w),    w the angle of a and b

    Parallel latents are joined by a straight line, the limit w -> 0.

    Args:
        a, b: [B, ...], nonzero and not antipodal.
        fraction: [] or [B], 0 gives a, 1 gives b.

    Returns:
        [B, ...].

    Raises:
        ValueError: shapes that differ, zero or antipodal vectors, fraction outside [0, 1].

    Source: Shoemake 1985, section 3.3; Song et al. 2021, arXiv:2010.02502, appendix D.5.
    """
    _check_pair(a, b, fraction)
    dots = [arrays.event_sum(u * v) for u, v in ((a, a), (b, b), (a, b))]
    cos = dots[2] / jnp.sqrt(dots[0] * dots[1])
    if (values := arrays.concrete(cos)) is not None:
        if not np.all(np.isfinite(values)):
            raise ValueError("slerp needs nonzero, finite vectors, got one that is not")
        if np.any(values < -1 + 1e-6):
            raise ValueError("slerp has no path between antipodal vectors, got cos(angle) = -1")
    parallel = jnp.abs(cos) > 1 - 1e-6
    angle = jnp.arccos(jnp.where(parallel, 0, cos))
    part = lambda f: jnp.where(parallel, f, jnp.sin(f * angle) / jnp.sin(angle))  # noqa: E731
    fraction = jnp.asarray(fraction, a.dtype)
    return expand_to(part(1 - fraction), a) * a + expand_to(part(fraction), b) * b


def circular(a: Array, b: Array, fraction: Any) -> Array:
    """The path between independent Gaussian latents on which every point is again N(0, I).

        cos(f pi/2) a + sin(f pi/2) b

    A straight line would have variance (1 - f)**2 + f**2, too little in the middle.

    Args:
        a, b: [B, ...].
        fraction: [] or [B] in [0, 1].

    Returns:
        [B, ...].

    Raises:
        ValueError: shapes that differ or fraction outside [0, 1].

    Source: Su 2022, kexue.fm article 9181.
    """
    _check_pair(a, b, fraction)
    angle = jnp.asarray(fraction, a.dtype) * (jnp.pi / 2)
    return expand_to(jnp.cos(angle), a) * a + expand_to(jnp.sin(angle), b) * b


def _check_pair(a: Array, b: Array, fraction: Any) -> None:
    if a.shape != b.shape or a.ndim < 1:
        raise ValueError(f"a and b must have one shape [B, ...], got {a.shape} and {b.shape}")
    check_range("fraction", fraction, 0, 1)
