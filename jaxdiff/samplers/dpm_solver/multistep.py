"""DPM-Solver and DPM-Solver++ multistep: one model call a step, the last answers remembered.

With h' = (1 + eta) h and differences D1, D2 of the last answers (h times the first derivative and
h**2 times the second), data prediction is

    x_s = exp(-eta h) (sigma_s / sigma_t) x_t
          + alpha_s ((1 - exp(-h')) x0 + phi_2 D1 + phi_3 D2)
          + sigma_s sqrt(1 - exp(-2 eta h)) noise

    phi_2 = 1 - (1 - exp(-h')) / h',    phi_3 = 1/2 - phi_2 / h'

and noise prediction, with z = h, G = exp(z) - 1, G_2 = G / z - 1 and G_3 = G_2 / z - 1/2,

    x_s = (alpha_s / alpha_t) x_t - (1 + eta) sigma_s (G eps + G_2 D1 + G_3 D2)
          + sigma_s sqrt(eta (exp(2 h) - 1)) noise

The first is of the same form, with z = -h': -G = 1 - exp(-h'), -G_2 = phi_2, -G_3 = phi_3.

eta = 0 is the ODE; eta = 1 the SDE.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import check_range, expand_to, safe_sqrt
from jaxdiff.samplers.steps import audible, log_step, refuse_zero_snr, steps_left
from jaxdiff.typing import Grid

__all__ = [
    "dpm_solver_2m",
    "dpm_solver_2m_sde",
    "dpm_solver_3m",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_3m",
    "dpmpp_3m_sde",
]

FORMS = {2: ("midpoint", "heun"), 3: ("ported", "corrected")}


@arrays.pytree
class Multistep:
    """See `dpmpp_2m`, `dpmpp_3m`, `dpm_solver_2m` and their SDE forms."""

    eta: Any
    order: int = arrays.static()
    form: str = arrays.static()
    warm_down: bool = arrays.static()
    noises: int = arrays.static()
    data: bool = arrays.static()  # whether x0 is extrapolated, or eps

    def check(self, grid: Grid) -> None:
        """Raises ValueError on a grid that holds alpha = 0, where eps says nothing."""
        if not self.data:
            refuse_zero_snr("DPM-Solver", grid)

    def init(self, x_T: Array, denoise: Any, grid: Grid) -> tuple[Array, Array]:
        """The last answers [order - 1, B, ...] and where in log-SNR they were, newest first."""
        past = self.order - 1
        lam = jnp.zeros(past, arrays.wide_float(grid.levels.alpha).dtype)
        return jnp.zeros((past, *x_T.shape), x_T.dtype), lam

    def step(self, x, memory, denoise, noise, *, k, t, s, grid):
        """The formula of the module, at the order that k and the end allow."""
        past, lams = memory
        d, t = denoise(x, t), audible(t)
        answer = d.x0 if self.data else d.eps
        lam, h, clean = log_step(t, s)
        second = (k >= 1) & ~clean
        third = (k >= 2) & ~clean & (self.order == 3)
        if self.warm_down:
            second &= steps_left(grid, k) >= 2
            third &= steps_left(grid, k) >= 3
        slope, bend = self._differences(answer, past, lam, lams, h, second, third)
        decay, weight, z, std = self._coefficients(t, s, h)
        gain = jnp.expm1(z)
        gain_2 = gain / z - 1
        halved = self.form in ("midpoint", "ported")
        first = jnp.where(third, gain_2, 0.5 * gain) if halved else gain_2
        move = expand_to(gain, x) * answer + expand_to(first, x) * slope
        move = move + expand_to(gain_2 / z - 0.5, x) * bend
        x_s = expand_to(decay, x) * x - expand_to(weight, x) * move
        if self.noises:
            x_s = x_s + expand_to(std, x) * noise[0]
        x_s = jnp.where(clean, expand_to(s.alpha, x) * d.x0, x_s)
        past = jnp.concatenate([answer[None], past])[: self.order - 1]
        return x_s, (past, jnp.concatenate([lam[None], lams])[: self.order - 1])

    def _coefficients(self, t, s, h):
        """(factor of x, weight of the integral, its z, deviation of the noise)."""
        if self.data:
            decay = jnp.exp(-self.eta * h) * s.sigma / t.sigma
            std = s.sigma * safe_sqrt(-jnp.expm1(-2 * self.eta * h))
            return decay, s.alpha, -(1 + self.eta) * h, std
        std = s.sigma * safe_sqrt(self.eta * jnp.expm1(2 * h))
        return s.alpha / t.alpha, (1 + self.eta) * s.sigma, h, std

    def _differences(self, x0, x0s, lam, lams, h, second, third):
        """D1 and D2, zero where there are too few answers to tell."""
        r0 = jnp.where(second, lam - lams[0], h) / h
        slope = expand_to(jnp.where(second, 1 / r0, 0), x0) * (x0 - x0s[0])
        if self.order == 2:
            return slope, jnp.zeros_like(slope)
        r1 = jnp.where(third, lams[0] - lams[1], h) / h
        turn = slope - expand_to(jnp.where(third, 1 / r1, 0), x0) * (x0s[0] - x0s[1])
        turn = turn * expand_to(jnp.where(third, 1 / (r0 + r1), 0), x0)
        bend = 2 * turn if self.form == "corrected" else turn
        return slope + expand_to(r0, x0) * turn, bend


def _multistep(
    order: int, form: str, eta: Any, noises: int, warm_down: bool, data: bool = True
) -> Multistep:
    if form not in FORMS[order]:
        raise ValueError(f"form must be one of {', '.join(FORMS[order])}, got {form!r}")
    check_range("eta", eta, 0, np.inf, "[)")
    return Multistep(eta, order, form, warm_down, noises, data)


def dpmpp_2m(form: str = "midpoint", *, warm_down: bool = False) -> Multistep:
    """DPM-Solver++(2M), the common choice at 10 to 25 steps.

    Args:
        form: "midpoint", the paper's, or "heun", the Taylor coefficient phi_2; both second order.
        warm_down: takes the last step at first order also where the end is noisy, as the authors'
            code does on short grids; into a clean end it is of first order anyway.

    Returns:
        A Sampler.

    Raises:
        ValueError: another form.

    Source: Lu et al. 2022, arXiv:2211.01095, algorithm 2.
    """
    return _multistep(2, form, 0.0, 0, warm_down)


def dpmpp_3m(form: str = "corrected", *, warm_down: bool = False) -> Multistep:
    """DPM-Solver++(3M).

    Args:
        form: "corrected", or "ported": as other libraries carry it by default, whose second
            difference lacks a factor 2, so that it is of second order, and whose second step and
            warm-down are of the midpoint form.
        warm_down: takes the last two steps at orders 2 and 1, as the authors' code does on short
            grids.

    Returns:
        A Sampler.

    Raises:
        ValueError: another form.

    Source: Lu et al. 2022, arXiv:2211.01095, appendix B, and the authors' code.
    """
    return _multistep(3, form, 0.0, 0, warm_down)


def dpmpp_2m_sde(eta=1.0, form: str = "midpoint", *, warm_down: bool = False) -> Multistep:
    """SDE-DPM-Solver++(2M).

    Args:
        eta: [], >= 0, the strength of the noise; 1 is the reverse SDE, 0 the ODE.
        form, warm_down: as for `dpmpp_2m`.

    Returns:
        A Sampler.

    Raises:
        ValueError: negative eta or another form.

    Source: Lu et al. 2022, arXiv:2211.01095, eq. 14 and appendix; eta as in k-diffusion.
    """
    return _multistep(2, form, eta, 1, warm_down)


def dpmpp_3m_sde(eta=1.0, form: str = "corrected", *, warm_down: bool = False) -> Multistep:
    """SDE-DPM-Solver++(3M).

    Args:
        eta: as for `dpmpp_2m_sde`.
        form, warm_down: as for `dpmpp_3m`.

    Returns:
        A Sampler.

    Raises:
        ValueError: negative eta or another form.

    Source: the third-order multistep SDE solver of k-diffusion, from Lu et al. 2022.
    """
    return _multistep(3, form, eta, 1, warm_down)


def dpm_solver_2m(form: str = "midpoint", *, warm_down: bool = False) -> Multistep:
    """Multistep DPM-Solver of order 2 (noise prediction).

    Args, Returns and Raises as for `dpmpp_2m`.

    Source: Lu et al. 2022, arXiv:2206.00927, in the multistep form of the authors' code.
    """
    return _multistep(2, form, 0.0, 0, warm_down, data=False)


def dpm_solver_3m(form: str = "corrected", *, warm_down: bool = False) -> Multistep:
    """Multistep DPM-Solver of order 3 (noise prediction).

    Args, Returns and Raises as for `dpmpp_3m`.

    Source: as for `dpm_solver_2m`.
    """
    return _multistep(3, form, 0.0, 0, warm_down, data=False)


def dpm_solver_2m_sde(eta=1.0, form: str = "midpoint", *, warm_down: bool = False) -> Multistep:
    """SDE-DPM-Solver of order 2 (noise prediction, multistep).

    Its noise is not that of `dpmpp_2m_sde` between 0 and 1: here eta multiplies the variance
    sigma_s**2 (exp(2 h) - 1), there it stands in the exponent.

    Args:
        eta: [], >= 0; 1 is the reverse SDE, 0 the ODE.
        form, warm_down: as for `dpmpp_2m`.

    Returns:
        A Sampler.

    Raises:
        ValueError: negative eta or another form.

    Source: Lu et al. 2022, arXiv:2211.01095, section 5 and the authors' code.
    """
    return _multistep(2, form, eta, 1, warm_down, data=False)
