"""What every schedule needs of its clock: float times, range checks, whole steps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff.arrays import check_range, wide_float
from jaxdiff.typing import Schedule

__all__ = ["check_end", "cleanest_time", "clock", "log_alpha_bar", "whole_steps"]


def clock(t: Any, high: float = np.inf) -> Array:
    """`t` as a float array of at least float32.

    Raises:
        ValueError: a concrete time lies outside 0..high, where JAX would clamp in silence.
    """
    check_range("t", t, 0, high)
    return wide_float(t)


def log_alpha_bar(log_snr: Any) -> Array:
    """log alpha**2 of the variance-preserving level with this log-SNR, -softplus(-log_snr)."""
    return jax.nn.log_sigmoid(wide_float(log_snr))


def check_end(alpha_bar: Any, limit: float = 1e-2) -> None:
    """Raises ValueError if the noisiest level still holds signal, alpha**2 > limit."""
    if np.any(alpha_bar > limit):
        raise ValueError(
            f"the schedule ends with signal left: alpha**2 = {np.max(alpha_bar):.3g} at its noisy"
            f" end, wanted at most {limit:g}; use larger betas or more steps"
        )


def whole_steps(schedule: Schedule) -> int | None:
    """N where the clock counts the steps of a chain 0..N, None where it is continuous."""
    return getattr(schedule, "num_steps", None)


def cleanest_time(schedule: Schedule) -> Any:
    """The smallest time with noise worth working at; where log-SNR grids and training end.

    t_min where that holds noise; else step 1 of a chain, or a thousandth of a continuous clock
    (score_sde's sampling epsilon 1e-3, Song et al. 2021, appendix C).
    """
    step = 1.0 if whole_steps(schedule) else 1e-3 * (schedule.t_max - schedule.t_min)
    noisy = schedule(schedule.t_min).sigma > 0
    return jnp.where(noisy, schedule.t_min, schedule.t_min + step)
