"""What the solvers in log-SNR and in sigma / alpha share: step sizes, and what they refuse."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.typing import Grid, NoiseLevel

__all__ = ["LogStep", "audible", "log_step", "refuse_zero_snr"]

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


def refuse_zero_snr(name: str, grid: Grid) -> None:
    """Raises ValueError if a concrete grid holds a level without signal."""
    alpha = arrays.concrete(grid.levels.alpha)
    if alpha is not None and np.any(alpha <= 0):
        raise ValueError(
            f"{name} runs in the clock sigma / alpha and cannot begin at alpha = 0 (zero terminal"
            " SNR), got it on the grid; use ddim, dpmpp_2m or unipc, or a grid with t_first below"
            " t_max"
        )
