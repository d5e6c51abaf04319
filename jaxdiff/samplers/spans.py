"""Between which times an equation is solved, and from what state: defaults and what is refused."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.denoiser import Denoiser
from jaxdiff.samplers.integrators import Integrator
from jaxdiff.schedules import cleanest_time
from jaxdiff.typing import Denoise, NoiseLevel, Schedule

__all__ = ["check", "ends", "in_dtype"]


def ends(how: Integrator, start: Any, end: Any) -> tuple[Any, Any]:
    """Start and end, those of the steps where they are given as times.

    Raises:
        ValueError: both are given, and differ.
    """
    if how.times is None:
        return start, end
    for name, given, own in (("start", start, how.times[0]), ("end", end, how.times[-1])):
        if given is not None and not arrays.is_traced((given, own)) and float(given) != float(own):
            raise ValueError(f"{name} must be that of steps, {float(own):g}, got {float(given):g}")
    return how.times[0], how.times[-1]


def check(
    denoise: Denoise | None,
    schedule: Schedule,
    x: Array,
    start: Any,
    end: Any,
    *,
    noisy: bool = False,
    signal: bool = False,
    rising: bool | None = None,
) -> tuple[Any, Any]:
    """(start, end) of a solve, t_max and `cleanest_time` where None.

    Raises:
        ValueError: x no float batch or not finite; a time outside the clock; without noise where
            noisy, without signal where signal; times that fall where rising, or rise where not; a
            level that the parametrization refuses.
    """
    _check_state(x)
    if arrays.is_traced((start, end, schedule)):
        start = schedule.t_max if start is None else start
        return start, cleanest_time(schedule) if end is None else end
    with jax.ensure_compile_time_eval():  # numbers, even where the caller is being traced
        start = schedule.t_max if start is None else start
        end = cleanest_time(schedule) if end is None else end
        for name, t in (("start", start), ("end", end)):
            if np.ndim(t):
                raise ValueError(f"{name} must be a number, got shape {list(np.shape(t))}")
            low, high = (float(np.max(np.asarray(v))) for v in (schedule.t_min, schedule.t_max))
            arrays.check_range(name, t, min(low, 0.0), high + 1e-6 * abs(high))
            level = schedule(jnp.asarray(t, arrays.float_dtype()))
            _check_level(name, t, level, schedule, noisy, signal)
            for part in jax.tree.leaves(denoise, is_leaf=lambda node: isinstance(node, Denoiser)):
                if isinstance(part, Denoiser):
                    part.check(jax.tree.map(lambda a: a[None], level))
        if float(start) == float(end):
            raise ValueError(f"start and end must differ, got {float(start):g} twice")
        if rising is not None and (float(start) < float(end)) != rising:
            way = "below" if rising else "above"
            raise ValueError(f"start must lie {way} end, got {float(start):g} and {float(end):g}")
    return start, end


def _check_level(
    name: str, t: Any, level: NoiseLevel, schedule: Schedule, noisy: bool, signal: bool
) -> None:
    if noisy and not float(level.sigma) > 0:
        raise ValueError(
            f"{name} must be a time with noise, where the score is defined, got t = {t} with"
            f" sigma = 0; wanted such as {float(cleanest_time(schedule)):g}"
        )
    if signal and not float(level.alpha) > 0:
        raise ValueError(
            f"{name} must be a time with signal, got t = {t} with alpha = 0, where f is"
            " infinite; begin a little before t_max"
        )


def _check_state(x: Array) -> None:
    if not hasattr(x, "dtype") or x.dtype not in (jnp.float32, jnp.float64):
        raise ValueError(f"x must be float32 or float64, got {getattr(x, 'dtype', type(x))}")
    if x.ndim < 1 or x.size == 0:
        raise ValueError(f"x must be a batch [B, ...] with B >= 1, got {list(x.shape)}")
    numbers = arrays.concrete(x)
    if numbers is not None and not np.isfinite(numbers).all():
        raise ValueError("x must be finite, got NaN or infinity")


def in_dtype(dtype: Any, start: Any, end: Any, times: Any) -> tuple[Array, Array, Array | None]:
    """The times in the dtype of the state, those to save checked for their order."""
    start, end = jnp.asarray(start, dtype), jnp.asarray(end, dtype)
    if times is None:
        return start, end, None
    times = jnp.asarray(times, dtype)
    if times.ndim != 1 or times.shape[0] == 0:
        raise ValueError(f"times must be [T] with T >= 1, got {list(times.shape)}")
    if not arrays.is_traced((start, end, times)):
        walk = np.concatenate([[start], times, [end]]) * np.sign(end - start)
        if np.any(np.diff(walk) < 0):
            raise ValueError(
                f"times must lie between start and end, {start:g} and {end:g}, in that order,"
                f" got {np.asarray(times)}"
            )
    return start, end, times
