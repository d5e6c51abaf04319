"""What samplers share: step sizes in log-SNR, and what they refuse."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.typing import Grid, NoiseLevel

__all__ = [
    "LogStep",
    "audible",
    "check_pytree",
    "check_sampler",
    "log_step",
    "refuse_zero_snr",
    "steps_left",
    "without_memory",
]

_FAINT = 1e-30


class LogStep(NamedTuple):
    """A step in lam = log(alpha / sigma).

    Attributes:
        lam: [], where it begins.
        h: [], its length; 1 into a clean end, where the true one is infinite.
        clean: [], whether it leads there.
    """

    lam: Array
    h: Array
    clean: Array


def audible(t: NoiseLevel) -> NoiseLevel:
    """The level with 1e-30 for alpha = 0, so that its log SNR is finite.

    A data-prediction step out of alpha = 0 thereby is DDIM's: there
    x_s = (sigma_s / sigma_t) x_t + alpha_s x0, whatever the log SNR.
    """
    return t._replace(alpha=jnp.where(t.alpha > 0, t.alpha, _FAINT))


def log_step(t: NoiseLevel, s: NoiseLevel) -> LogStep:
    """The step from t to s, with nothing infinite in it (nor in its gradient).

    Args:
        t: the noisier level, alpha_t > 0 (see `audible`) and sigma_t > 0.
        s: the cleaner level.
    """
    clean = s.sigma <= 0
    noisy = s._replace(sigma=jnp.where(clean, 1, s.sigma))
    lam = t.log_snr / 2
    return LogStep(lam, jnp.where(clean, 1, noisy.log_snr / 2 - lam), clean)


def steps_left(grid: Grid, k: Array) -> Array:
    """How many steps are to be taken from step k on, itself included; padding is none."""
    return jnp.sum(grid.levels.sigma[:-1] > 0) - k


def refuse_zero_snr(name: str, grid: Grid) -> None:
    """Raises ValueError if a concrete grid holds a level without signal."""
    alpha = arrays.concrete(grid.levels.alpha)
    if alpha is not None and np.any(alpha <= 0):
        raise ValueError(
            f"{name} runs in the clock sigma / alpha and cannot begin at alpha = 0 (zero terminal"
            " SNR), got it on the grid; use ddim, dpmpp_2m or unipc, or a grid with t_first below"
            " t_max"
        )


def check_sampler(sampler: Any) -> None:
    """Raises TypeError unless `sampler` has a sampler's methods and passes through jit."""
    if not all(hasattr(sampler, name) for name in ("init", "step", "noises")):
        raise TypeError(f"sampler must be a Sampler such as ddim(), got {sampler!r}")
    check_pytree("sampler", sampler)


def check_pytree(name: str, value: Any) -> None:
    """Raises TypeError unless JAX looks inside `value`."""
    if not arrays.is_pytree(value):
        raise TypeError(
            f"{name} must be a pytree, so that it passes through jit: decorate"
            f" {type(value).__name__} with jaxdiff.arrays.pytree"
        )


def without_memory(name: str, sampler: Any, x_T: Any, denoise: Any, grid: Grid) -> tuple:
    """The empty memory of a sampler that walks back and forth; raises if it remembers."""
    memory = sampler.init(x_T, denoise, grid)
    if jax.tree.leaves(memory):
        raise ValueError(
            f"{name} walks back and forth and needs a sampler without memory, such as ddim, heun,"
            f" dpm_solver or dpmpp_2s, got {type(sampler).__name__}"
        )
    return memory
