"""Wrappers denoise -> denoise that hold x0 to the range of the data."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import as_pytree, check_range, expand_to
from jaxdiff.denoiser.revision import own_heads, with_x0
from jaxdiff.typing import Denoise, Denoised, NoiseLevel

__all__ = ["clip_x0", "dynamic_threshold"]


@arrays.pytree
class ClipX0:
    """See `clip_x0`."""

    denoise: Denoise
    low: Any
    high: Any
    keep_eps: bool = arrays.static()

    def __call__(self, x_t: Array, level: NoiseLevel) -> Denoised:
        """The model's answer with x0 held in [low, high]."""
        d = self.denoise(x_t, level)
        return _clipped(d, jnp.clip(d.x0, self.low, self.high), x_t, level, self.keep_eps)


@arrays.pytree
class DynamicThreshold:
    """See `dynamic_threshold`."""

    denoise: Denoise
    quantile: Any
    least: Any
    keep_eps: bool = arrays.static()

    def __call__(self, x_t: Array, level: NoiseLevel) -> Denoised:
        """The model's answer with x0 squeezed into [-least, least]."""
        d = self.denoise(x_t, level)
        flat = jnp.abs(d.x0).reshape(d.x0.shape[0], -1)
        bound = jnp.maximum(
            jax.vmap(lambda row: jnp.quantile(row, self.quantile))(flat), self.least
        )
        bound = expand_to(bound, d.x0)
        x0 = jnp.clip(d.x0, -bound, bound) * (self.least / bound)
        return _clipped(d, x0, x_t, level, self.keep_eps)


def _clipped(d: Denoised, x0: Array, x_t: Array, level: NoiseLevel, keep_eps: bool) -> Denoised:
    """`d` with another x0; eps follows from x_t unless the network's own is kept."""
    if keep_eps:
        return Denoised(x0, d.eps, own_heads(d))
    return with_x0(d, x0, x_t, level)


def clip_x0(denoise: Denoise, low=-1.0, high=1.0, *, keep_eps: bool = False) -> ClipX0:
    """Holds the estimate of x_0 to the range of the data; eps follows, so that both agree.

        x0 <- clip(x0, low, high),    eps <- (x_t - alpha x0) / sigma

    Args:
        denoise: the model.
        low, high: the range of the data.
        keep_eps: keeps the network's eps beside the clipped x0, the other published convention
            (Bao et al.'s code); the two then disagree.

    Returns:
        A denoise whose heads hold the network's own eps as "eps_model".

    Raises:
        ValueError: low >= high.

    Source: Ho et al. 2020, arXiv:2006.11239, code; the posterior mean is then of the clipped x0.
    """
    bound = arrays.concrete(high)
    if bound is not None:
        check_range("low", low, -np.inf, float(np.min(bound)), "[)")
    return ClipX0(as_pytree(denoise), low, high, keep_eps)


def dynamic_threshold(
    denoise: Denoise, quantile=0.995, *, least=1.0, keep_eps: bool = False
) -> DynamicThreshold:
    """Squeezes each example's x0 so that a quantile of its pixels fits the range of the data.

        b = max(least, quantile of |x0|),    x0 <- clip(x0, -b, b) least / b

    Args:
        denoise: the model.
        quantile: in (0, 1], over the pixels of one example.
        least: the bound of the data, > 0.
        keep_eps: as in `clip_x0`.

    Returns:
        A denoise.

    Raises:
        ValueError: quantile outside (0, 1] or least not positive.

    Source: Saharia et al. 2022, arXiv:2205.11487, section 2.3.
    """
    check_range("quantile", quantile, 0, 1, "(]")
    check_range("least", least, 0, np.inf, "()")
    return DynamicThreshold(as_pytree(denoise), quantile, least, keep_eps)
