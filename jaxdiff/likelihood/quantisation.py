"""Whole numbers as points of a line: dequantisation, and what a bin counts.

    P(n) = integral of p over the bin of n >= exp E_u log(w p(x_n + w u)),    u ~ U[-1/2, 1/2]

with w the width of a bin in the model's units. Hence bits/dim = -(log p / D + log w) / log 2: bytes
as images in [-1, 1] give an offset of log2(127.5) where values are bin centres at both ends, and
of 7 where bins fill [-1, 1].
"""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.schedules import too_little_noise
from jaxdiff.typing import Schedule

__all__ = ["Quantisation", "model_units", "quantised", "warn_of_little_noise"]


@arrays.pytree
class Quantisation:
    """See `quantised`."""

    low: Any
    high: Any
    bins: int = arrays.static()

    @property
    def width(self) -> Any:
        """Of a bin, in the model's units."""
        return (self.high - self.low) / (self.bins - 1)

    def dequantise(self, keys: Array, x: Array) -> Array:
        """x [B, ...] at bin centres, spread uniformly over their bins; example i by keys[i]."""
        draw = lambda key: jax.random.uniform(key, x.shape[1:], x.dtype)  # noqa: E731
        return x + jnp.asarray(self.width, x.dtype) * (jax.vmap(draw)(keys) - 0.5)


def quantised(bins: int = 256, low: Any = -1.0, high: Any = 1.0) -> Quantisation:
    """Data of `bins` values, evenly over [low, high], each the centre of its bin.

    Args:
        bins: static, >= 2: 256 for bytes, 17 for the digits of scikit-learn.
        low, high: the outermost values in the model's units. Where bins fill [-1, 1] instead, as
            in score_sde, they are -1 + 1 / bins and 1 - 1 / bins.

    Returns:
        A Quantisation.

    Raises:
        ValueError: bins below 2, or low not below high.

    Source: Uria et al. 2013, arXiv:1306.0186, section 5; Theis et al. 2016, arXiv:1511.01844,
        section 3.1.
    """
    arrays.check_count("bins", bins, 2)
    top = arrays.concrete(high)
    if top is not None:
        arrays.check_range("low", low, -np.inf, float(np.min(top)), "()")
    return Quantisation(low, high, int(bins))


def model_units(x: Any, quantisation: Quantisation | None) -> Array:
    """Data as a float batch in the model's units.

    Raises:
        ValueError: integers without a quantisation, integers beyond its bins, floats that lie
            between its values, half precision, no batch, or NaN.
    """
    x = x if hasattr(x, "dtype") else np.asarray(x)
    if x.ndim < 2 or x.size == 0:
        raise ValueError(f"x must have shape [B, ...] with B >= 1, got {list(x.shape)}")
    if x.dtype == bool or jnp.issubdtype(x.dtype, jnp.integer):
        return _of_integers(x, quantisation)
    x = jnp.asarray(x)
    if x.dtype not in (jnp.float32, jnp.float64):
        raise ValueError(
            f"x must be float32 or float64, got {x.dtype}: so few digits leave no log-likelihood"
        )
    numbers = arrays.concrete(x)
    if numbers is not None and not np.isfinite(numbers).all():
        raise ValueError("x must be finite, got NaN or infinity")
    if quantisation is not None and numbers is not None and not arrays.is_traced(quantisation):
        _check_centres(numbers, quantisation)
    return x


def warn_of_little_noise(schedule: Schedule, x: Array) -> None:
    """Warns of data wider than the prior: a warning, since one far point is no mistake."""
    problem = too_little_noise(schedule, x)
    if problem:
        warnings.warn(problem, stacklevel=4)


def _of_integers(x: Array, quantisation: Quantisation | None) -> Array:
    if quantisation is None:
        raise ValueError(
            f"x holds whole numbers ({x.dtype}), of which no density is finite: give"
            " quantisation=quantised(bins), which spreads them over their bins"
        )
    arrays.check_range("x", x, 0, quantisation.bins - 1)
    x = jnp.asarray(x, arrays.float_dtype())
    return jnp.asarray(quantisation.low, x.dtype) + quantisation.width * x


def _check_centres(numbers: np.ndarray, quantisation: Quantisation) -> None:
    places = (numbers - np.asarray(quantisation.low)) / np.asarray(quantisation.width)
    off = np.abs(places - np.round(places)) > 1e-2  # float32 of [-1, 1] knows places to 1e-5
    if np.any(off) or places.min() < -0.5 or places.max() > quantisation.bins - 0.5:
        bad = numbers[off].flat[0] if np.any(off) else numbers.flat[np.argmax(np.abs(numbers))]
        raise ValueError(
            f"x must hold the {quantisation.bins} values of its quantisation, evenly over"
            f" [{float(quantisation.low):g}, {float(quantisation.high):g}], got {bad:g}; without"
            " quantisation x is taken as it is"
        )
