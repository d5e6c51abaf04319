"""What every schedule needs of its clock: float times, range checks, whole steps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff.arrays import check_range, float_dtype, is_traced, wide_float
from jaxdiff.typing import Schedule

__all__ = ["check_end", "cleanest_time", "clock", "log_alpha_bar", "noisiest_time", "whole_steps"]


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


def check_spread(schedule: Schedule, x: Any) -> None:
    """Raises ValueError if data are spread wider than the noise that shall drown them.

    What is left of them at t_max, alpha times their root mean square, must lie within prior_std;
    nothing is checked while either is being traced, or x is a shape alone.
    """
    problem = too_little_noise(schedule, x)
    if problem:
        raise ValueError(problem)


def too_little_noise(schedule: Schedule, x: Any) -> str | None:
    """What `check_spread` would raise, or None."""
    if is_traced((schedule, x)) or isinstance(x, jax.ShapeDtypeStruct):
        return None
    with jax.ensure_compile_time_eval():  # numbers, even where the caller is being traced
        alpha = schedule(jnp.asarray(schedule.t_max, float_dtype())).alpha
        std = float(np.min(schedule.prior_std))
        left = float(np.max(alpha)) * float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))
    if left <= std:
        return None
    return (
        "schedule must end with noise beyond the data's spread: their root mean square there"
        f" is {left:.3g}, prior_std (sigma_max) is {std:.3g}; raise sigma_max or scale the data"
    )


def whole_steps(schedule: Schedule) -> int | None:
    """N where the clock counts the steps of a chain 0..N, None where it is continuous."""
    return getattr(schedule, "num_steps", None)


def of_levels(schedule: Schedule) -> Schedule:
    """The schedule on whose clock the levels are: those of a shifted one carry its base's."""
    return getattr(schedule, "of_levels", schedule)


def cleanest_time(schedule: Schedule) -> Any:
    """The smallest time with noise worth working at; where log-SNR grids and training end.

    t_min where that holds noise; else step 1 of a chain, or a thousandth of a continuous clock
    (score_sde's sampling epsilon 1e-3, Song et al. 2021, appendix C).
    """
    step = 1.0 if whole_steps(schedule) else 1e-3 * (schedule.t_max - schedule.t_min)
    noisy = schedule(schedule.t_min).sigma > 0
    return jnp.where(noisy, schedule.t_min, schedule.t_min + step)


def noisiest_time(schedule: Schedule) -> Any:
    """The largest time with signal worth working at: where work in log SNR ends.

    t_max where that holds signal; under zero terminal SNR step N - 1 of a chain, or a thousandth
    of a continuous clock before its end.
    """
    step = 1.0 if whole_steps(schedule) else 1e-3 * (schedule.t_max - schedule.t_min)
    audible = schedule(schedule.t_max).alpha > 0
    return jnp.where(audible, schedule.t_max, schedule.t_max - step)
