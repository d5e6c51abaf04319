"""What of a level a network is told. It belongs to the network that was trained with it."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from jaxdiff.typing import NoiseLevel

__all__ = [
    "TIME_FEATURES",
    "clock",
    "log_half_sigma",
    "log_snr",
    "quarter_log_sigma",
    "resolve_feature",
    "rounded_steps",
    "steps",
    "thousandths",
    "unit_steps",
]


def clock(level: NoiseLevel) -> Array:
    """The schedule's own t."""
    return level.t


def thousandths(level: NoiseLevel) -> Array:
    """1000 t: a unit clock in the range that sinusoidal embeddings are made for."""
    return 1000 * level.t


def steps(level: NoiseLevel) -> Array:
    """t - 1: the zero-based index of a chain, fractional between its steps."""
    return level.t - 1


def rounded_steps(level: NoiseLevel) -> Array:
    """The nearest zero-based index of a chain, for networks with a table of steps."""
    return jnp.round(level.t) - 1


def log_snr(level: NoiseLevel) -> Array:
    """log SNR, held within +-20 so that the ends of a path stay finite."""
    return jnp.clip(level.log_snr, -20, 20)


def quarter_log_sigma(level: NoiseLevel) -> Array:
    """log(sigma / alpha) / 4, EDM's c_noise (Karras et al. 2022, arXiv:2206.00364, table 1)."""
    return -log_snr(level) / 8


def unit_steps(level: NoiseLevel) -> Array:
    """999 t: the index of 1000 steps over a unit clock (Song et al. 2021, their code)."""
    return 999 * level.t


def log_half_sigma(level: NoiseLevel) -> Array:
    """log(sigma / (2 alpha)): log sigma for images in [0, 1] (Song et al. 2021, their code)."""
    return -log_snr(level) / 2 - jnp.log(2.0)


TIME_FEATURES: dict[str, Callable[[NoiseLevel], Array]] = {
    "clock": clock,
    "thousandths": thousandths,
    "steps": steps,
    "rounded_steps": rounded_steps,
    "log_snr": log_snr,
    "quarter_log_sigma": quarter_log_sigma,
    "unit_steps": unit_steps,
    "log_half_sigma": log_half_sigma,
}


def resolve_feature(feature: Callable[[NoiseLevel], Array] | str) -> Callable[[NoiseLevel], Array]:
    """The feature of that name, a function as it is.

    Raises:
        ValueError: an unknown name.
    """
    if not isinstance(feature, str):
        return feature
    if feature not in TIME_FEATURES:
        raise ValueError(f"time_feature must be one of {', '.join(TIME_FEATURES)}, got {feature!r}")
    return TIME_FEATURES[feature]
