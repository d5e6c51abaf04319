"""How strong guidance is: a number, a number an example, or a function of the level."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import check_range, expand_to
from jaxdiff.typing import NoiseLevel

__all__ = ["Limited", "Scale", "as_scale", "limited", "scale_at"]

Scale = Any
"""[], [B], what `limited` gives, or any function level -> [] or [B]."""


@arrays.pytree
class Limited:
    """See `limited`."""

    scale: Scale
    low: Any
    high: Any

    def inside(self, level: NoiseLevel) -> Array:
        """Whether a level lies in the interval, of the level's shape."""
        ratio = level.sigma / level.alpha  # infinite at alpha = 0
        return (ratio > self.low) & (ratio <= self.high)


def limited(scale: Scale, low: Any, high: Any) -> Limited:
    """A scale that holds in an interval of noise alone; elsewhere there is no guidance.

        scale where low < sigma / alpha <= high,    else what leaves the model as it is

    That is 1 for `cfg` and `autoguidance` (the conditional model), 0 for `classifier` and for
    measurements. It is a selection of the result: the network is asked for both halves at every
    level, since examples of a batch may stand at different ones.

    Args:
        scale: the scale inside.
        low: in [0, high), in the clock sigma / alpha, which is EDM's sigma on every schedule.
        high: up to infinity.

    Returns:
        A scale, for `cfg`, `autoguidance`, `classifier` and the posterior samplers.

    Raises:
        ValueError: low is negative or not below high.

    Source: Kynkaanniemi et al. 2024, arXiv:2404.07724, section 3 (there a schedule with alpha = 1).
    """
    check_range("low", low, 0, np.inf, "[)")
    floor = arrays.concrete(low)
    if floor is not None:
        check_range("high", high, float(np.max(floor)), np.inf, "(]")
    return Limited(as_scale(scale), low, high)


def as_scale(scale: Scale) -> Scale:
    """`scale`, checked; a plain function as a pytree.

    Raises:
        ValueError: it is not finite, or neither [] nor [B].
    """
    if isinstance(scale, Limited):
        return scale
    if isinstance(scale, Callable):
        return arrays.as_pytree(scale)
    if jnp.ndim(scale) > 1:
        raise ValueError(f"scale must be [] or [B], got shape {list(jnp.shape(scale))}")
    number = arrays.concrete(scale)
    if number is not None and not np.isfinite(number).all():
        raise ValueError(f"scale must be finite, got {scale}")
    return scale


def scale_at(scale: Scale, level: NoiseLevel, x: Array, *, neutral: float) -> Array:
    """The scale at a level, shaped to multiply `x`; `neutral` is the one that changes nothing.

    Raises:
        ValueError: a scale or level for another number of examples.
    """
    if isinstance(scale, Limited):
        inside = expand_to(scale.inside(level), x) > 0
        return jnp.where(inside, scale_at(scale.scale, level, x, neutral=neutral), neutral)
    value = scale(level) if callable(scale) else scale
    if jnp.shape(value) not in ((), x.shape[:1]):
        raise ValueError(
            f"scale must be [] or [{x.shape[0]}], one an example, got {list(jnp.shape(value))}"
        )
    return expand_to(value, x)
