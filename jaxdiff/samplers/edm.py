"""EDM's samplers in the clock rho = sigma / alpha, where the flow is d(x / alpha) = eps d rho.

    rho^ = rho_t (1 + gamma),  y = x / alpha + sqrt(rho^**2 - rho_t**2) s_noise noise      churn
    euler   y + (rho_s - rho^) eps
    heun    y + (rho_s - rho^) (eps + eps at s) / 2
    dpm2    y + (rho_s - rho^) eps at the geometric middle

Into a clean end all take Euler's step. For alpha = 1 this is the published algorithm; elsewhere it
is the same algorithm on x / alpha.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import check_range, expand_to, safe_sqrt
from jaxdiff.samplers.ancestral import Ancestral, ddim
from jaxdiff.samplers.steps import refuse_zero_snr
from jaxdiff.typing import Grid, NoiseLevel

__all__ = ["dpm2", "dpm2_ancestral", "euler", "euler_ancestral", "heun"]


def _rho(level: NoiseLevel) -> Array:
    return level.sigma / level.alpha


def _scaled(grid: Grid, t: NoiseLevel, factor: Array) -> NoiseLevel:
    """The level at which rho is `factor` times that at t; t itself, to the bit, at factor 1.

    Levels given as numbers keep their alpha, and their clock is taken to grow with sigma.
    """
    if grid.schedule is None:
        return NoiseLevel(t.t * factor, t.alpha, t.sigma * factor)
    moved = grid.schedule(grid.schedule.time(t.log_snr - 2 * jnp.log(factor)))
    return NoiseLevel(*(jnp.where(factor == 1, a, b) for a, b in zip(t, moved, strict=True)))


@arrays.pytree
class Edm:
    """See `euler`, `heun` and `dpm2`."""

    s_churn: Any
    s_min: Any
    s_max: Any
    s_noise: Any
    method: str = arrays.static()
    noises: int = arrays.static()

    def init(self, x_T: Array, denoise: Any, grid: Grid) -> tuple:
        """No memory."""
        return ()

    def step(self, x, memory, denoise, noise, *, k, t, s, grid):
        """Churn, if there is any, then one step of the method."""
        y = x / expand_to(t.alpha, x)
        if self.noises:
            rho = _rho(t)
            steps = jnp.sum(grid.levels.sigma[:-1] > 0).astype(rho.dtype)
            gamma = jnp.minimum(self.s_churn / steps, 2**0.5 - 1)
            gamma = jnp.where((rho >= self.s_min) & (rho <= self.s_max), gamma, 0)
            t = _scaled(grid, t, 1 + gamma)
            std = self.s_noise * rho * safe_sqrt(gamma * (2 + gamma))
            y = y + expand_to(std, x) * noise[0]
        return _solve(self.method, y, denoise, t, s, _rho(s), grid), memory

    def check(self, grid: Grid) -> None:
        """Raises ValueError on a grid that holds alpha = 0."""
        refuse_zero_snr(self.method, grid)


def _solve(method, y, denoise, t, s, rho_s, grid):
    """From y = x / alpha at t to x with noise rho_s; `s` is the level that lies at rho_s."""

    def eps(y: Array, level: NoiseLevel) -> Array:
        return denoise(expand_to(level.alpha, y) * y, level).eps

    h, clean = expand_to(rho_s - _rho(t), y), rho_s <= 0
    here = eps(y, t)
    ends = NoiseLevel(*(jnp.where(clean, a, b) for a, b in zip(t, s, strict=True)))

    def higher() -> Array:
        if method == "heun":
            return 0.5 * (here + eps(y + h * here, ends))
        middle = grid.between(t, ends, 0.5)
        return eps(y + expand_to(_rho(middle) - _rho(t), y) * here, middle)

    slope = here if method == "euler" else jax.lax.cond(clean, lambda: here, higher)
    return expand_to(s.alpha, y) * (y + h * slope)


@arrays.pytree
class Dpm2Ancestral:
    """See `dpm2_ancestral`."""

    eta: Any
    noises = 1

    def init(self, x_T: Array, denoise: Any, grid: Grid) -> tuple:
        """No memory."""
        return ()

    def step(self, x, memory, denoise, noise, *, k, t, s, grid):
        """Down to the deterministic share of the noise, then up to the level with fresh noise."""
        y, rho_t, rho_s = x / expand_to(t.alpha, x), _rho(t), _rho(s)
        share = self.eta * safe_sqrt(1 - (rho_s / rho_t) ** 2)  # of rho_s, whose square overflows
        fresh, kept = rho_s * share, rho_s * safe_sqrt((1 - share) * (1 + share))
        lower = jnp.where(kept > 0, kept / rho_t, 1)
        down = _scaled(grid, t, lower)
        x_s = _solve("dpm2", y, denoise, t, down, kept, grid) / expand_to(down.alpha, x)
        return expand_to(s.alpha, x) * (x_s + expand_to(fresh, x) * noise[0]), memory

    def check(self, grid: Grid) -> None:
        """Raises ValueError on a grid that holds alpha = 0."""
        refuse_zero_snr("dpm2_ancestral", grid)


def _edm(method: str, s_churn: Any, s_min: Any, s_max: Any, s_noise: Any) -> Edm:
    for name, value in (("s_churn", s_churn), ("s_min", s_min), ("s_noise", s_noise)):
        check_range(name, value, 0, np.inf, "[]")
    low = arrays.concrete(s_min)
    check_range("s_max", s_max, 0 if low is None else float(np.max(low)), np.inf)
    churn = arrays.concrete(s_churn)
    noises = int(churn is None or bool(np.any(churn > 0)))
    return Edm(s_churn, s_min, s_max, s_noise, method, noises)


def euler(s_churn=0.0, s_min=0.0, s_max=np.inf, s_noise=1.0) -> Edm:
    """Euler's method in sigma / alpha, with EDM's churn; DDIM without it.

    Args, Returns and Raises as for `heun`.

    Source: Karras et al. 2022, arXiv:2206.00364, algorithm 2 without its lines 6-8.
    """
    return _edm("euler", s_churn, s_min, s_max, s_noise)


def heun(s_churn=0.0, s_min=0.0, s_max=np.inf, s_noise=1.0) -> Edm:
    """EDM's stochastic sampler: churn, then Heun's method; deterministic without churn.

    Args:
        s_churn: [], >= 0, spread over the steps: gamma = min(s_churn / K, sqrt(2) - 1). A run
            that is compiled with a concrete 0 draws no noise.
        s_min, s_max: [], the range of sigma / alpha in which there is churn.
        s_noise: [], the deviation of the noise, slightly above 1 in the paper.

    Returns:
        A Sampler.

    Raises:
        ValueError: a negative number, or s_max below s_min.

    Source: Karras et al. 2022, arXiv:2206.00364, algorithms 1 and 2.
    """
    return _edm("heun", s_churn, s_min, s_max, s_noise)


def dpm2(s_churn=0.0, s_min=0.0, s_max=np.inf, s_noise=1.0) -> Edm:
    """The midpoint method with its middle at the geometric mean, with EDM's churn.

    Args, Returns and Raises as for `heun`.

    Source: the DPM2 sampler of k-diffusion (K. Crowson), after Lu et al. 2022, arXiv:2206.00927.
    """
    return _edm("dpm2", s_churn, s_min, s_max, s_noise)


def euler_ancestral(eta=1.0) -> Ancestral:
    """Euler down to the deterministic share of the noise, then fresh noise; which is DDIM(eta).

    Source: the ancestral sampler of k-diffusion (K. Crowson).
    """
    return ddim(eta)


def dpm2_ancestral(eta=1.0) -> Dpm2Ancestral:
    """DPM2 down to the deterministic share of the noise, then fresh noise.

    Args:
        eta: [], in [0, 1].

    Returns:
        A Sampler.

    Raises:
        ValueError: eta outside [0, 1].

    Source: the DPM2-ancestral sampler of k-diffusion (K. Crowson).
    """
    check_range("eta", eta, 0, 1)
    return Dpm2Ancestral(eta)
