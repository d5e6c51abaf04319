"""Changing what a model says of `x_t`, so that x_t = alpha x0 + sigma eps goes on to hold.

    x0 <- x0',              eps <- (x_t - alpha x0') / sigma
    score <- score + g:     x0 <- x0 + (sigma**2 / alpha) g,    eps <- eps - sigma g

Whatever changed it, the heads keep the network's own eps as "eps_model".
"""

from jax import Array

from jaxdiff.arrays import expand_to, safe_divide
from jaxdiff.typing import Denoised, NoiseLevel

__all__ = ["add_score", "own_heads", "with_x0"]


def with_x0(d: Denoised, x0: Array, x_t: Array, level: NoiseLevel) -> Denoised:
    """`d` with another x0; eps follows from x_t, and is 0 at sigma = 0.

    Args:
        d: what the model says.
        x0: [B, ...], what it shall say instead.
        x_t: [B, ...], what it was asked.
        level: fields [] or [B].
    """
    alpha, sigma = expand_to(level.alpha, x0), expand_to(level.sigma, x0)
    return Denoised(x0, safe_divide(x_t - alpha * x0, sigma), own_heads(d))


def add_score(d: Denoised, score: Array, level: NoiseLevel) -> Denoised:
    """`d` with something added to the score -eps / sigma of x_t.

    At alpha = 0 nothing changes: x_t is noise alone, which determines eps, and what the score
    there says of x_0 is a limit 0 / 0 that no number of the level holds.

    Args:
        d: what the model says.
        score: [B, ...], what is added.
        level: fields [] or [B].

    Source: Tweedie's formula (Efron 2011, doi:10.1198/jasa.2011.tm11181, eq. 1.4).
    """
    alpha, sigma = expand_to(level.alpha, score), expand_to(level.sigma, score)
    shift = safe_divide(sigma, alpha) * score
    return Denoised(d.x0 + sigma * shift, d.eps - alpha * shift, own_heads(d))


def own_heads(d: Denoised) -> dict[str, Array]:
    """The heads of `d`, with the network's own eps, whatever has changed it before."""
    return {**d.heads, "eps_model": d.heads.get("eps_model", d.eps)}
