"""DPM-Solver++ multistep: one model call a step, the last answers remembered; ODE and SDE.

With h' = (1 + eta) h and differences D1, D2 of the last x0 (approximations of h x0' and h**2 x0''),

    x_s = exp(-eta h) (sigma_s / sigma_t) x_t
          + alpha_s ((1 - exp(-h')) x0 + phi_2 D1 + phi_3 D2)
          + sigma_s sqrt(1 - exp(-2 eta h)) noise

    phi_2 = 1 - (1 - exp(-h')) / h',    phi_3 = 1/2 - phi_2 / h'

eta = 0 is the ODE; eta = 1 the SDE.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import check_range, expand_to, safe_sqrt
from jaxdiff.samplers.steps import audible, log_step, steps_left
from jaxdiff.typing import Grid

__all__ = ["dpmpp_2m", "dpmpp_2m_sde", "dpmpp_3m", "dpmpp_3m_sde"]

FORMS = {2: ("midpoint", "heun"), 3: ("ported", "corrected")}


@arrays.pytree
class Multistep:
    """See `dpmpp_2m`, `dpmpp_3m` and their SDE forms."""

    eta: Any
    order: int = arrays.static()
    form: str = arrays.static()
    warm_down: bool = arrays.static()
    noises: int = arrays.static()

    def init(self, x_T: Array, denoise: Any, grid: Grid) -> tuple[Array, Array]:
        """The last x0 [order - 1, B, ...] and where in log-SNR they were, newest first."""
        past = self.order - 1
        lam = jnp.zeros(past, arrays.wide_float(grid.levels.alpha).dtype)
        return jnp.zeros((past, *x_T.shape), x_T.dtype), lam

    def step(self, x, memory, denoise, noise, *, k, t, s, grid):
        """The formula of the module, at the order that k and the end allow."""
        x0s, lams = memory
        x0, t = denoise(x, t).x0, audible(t)
        lam, h, clean = log_step(t, s)
        second = (k >= 1) & ~clean
        third = (k >= 2) & ~clean
        if self.warm_down:
            second &= steps_left(grid, k) >= 2
            third &= steps_left(grid, k) >= 3
        slope, bend = self._differences(x0, x0s, lam, lams, h, second, third)
        stretched = (1 + self.eta) * h
        gain = jnp.where(clean, 1, -jnp.expm1(-stretched))
        phi_2 = 1 + jnp.expm1(-stretched) / stretched
        first = 0.5 * gain if self.form == "midpoint" else phi_2
        move = expand_to(gain, x) * x0 + expand_to(first, x) * slope
        move = move + expand_to(0.5 - phi_2 / stretched, x) * bend
        decay = jnp.exp(-self.eta * h) * s.sigma / t.sigma
        x_s = expand_to(decay, x) * x + expand_to(s.alpha, x) * move
        if self.noises:
            std = s.sigma * safe_sqrt(-jnp.expm1(-2 * self.eta * h))
            x_s = x_s + expand_to(std, x) * noise[0]
        past = self.order - 1
        x0s = jnp.concatenate([x0[None], x0s])[:past]
        return x_s, (x0s, jnp.concatenate([lam[None], lams])[:past])

    def _differences(self, x0, x0s, lam, lams, h, second, third):
        """D1 and D2 of x0, zero where there are too few answers to tell."""
        r0 = jnp.where(second, lam - lams[0], h) / h
        slope = expand_to(jnp.where(second, 1 / r0, 0), x0) * (x0 - x0s[0])
        if self.order == 2:
            return slope, jnp.zeros_like(slope)
        r1 = jnp.where(third, lams[0] - lams[1], h) / h
        turn = slope - expand_to(jnp.where(third, 1 / r1, 0), x0) * (x0s[0] - x0s[1])
        turn = turn * expand_to(jnp.where(third, 1 / (r0 + r1), 0), x0)
        bend = 2 * turn if self.form == "corrected" else turn
        return slope + expand_to(r0, x0) * turn, bend


def _multistep(order: int, form: str, eta: Any, noises: int, warm_down: bool) -> Multistep:
    if form not in FORMS[order]:
        raise ValueError(f"form must be one of {', '.join(FORMS[order])}, got {form!r}")
    check_range("eta", eta, 0, np.inf, "[)")
    return Multistep(eta, order, form, warm_down, noises)


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
        form: "corrected", or "ported": as other libraries carry it, whose second difference lacks
            a factor 2, so that it is of second order.
        warm_down: takes the last two steps at orders 2 and 1, as the authors' code does on short
            grids.

    Returns:
        A Sampler.

    Raises:
        ValueError: another form.

    Source: Lu et al. 2022, arXiv:2211.01095, appendix B, and the authors' code.
    """
    return _multistep(3, form, 0.0, 0, warm_down)


def dpmpp_2m_sde(eta=1.0, form: str = "midpoint") -> Multistep:
    """SDE-DPM-Solver++(2M).

    Args:
        eta: [], >= 0, the strength of the noise; 1 is the reverse SDE, 0 the ODE.
        form: as for `dpmpp_2m`.

    Returns:
        A Sampler.

    Raises:
        ValueError: negative eta or another form.

    Source: Lu et al. 2022, arXiv:2211.01095, eq. 14 and appendix; eta as in k-diffusion.
    """
    return _multistep(2, form, eta, 1, False)


def dpmpp_3m_sde(eta=1.0, form: str = "corrected") -> Multistep:
    """SDE-DPM-Solver++(3M).

    Args:
        eta: as for `dpmpp_2m_sde`.
        form: as for `dpmpp_3m`.

    Returns:
        A Sampler.

    Raises:
        ValueError: negative eta or another form.

    Source: the third-order multistep SDE solver of k-diffusion, from Lu et al. 2022.
    """
    return _multistep(3, form, eta, 1, False)
