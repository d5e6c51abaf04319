"""DPM-Solver and DPM-Solver++ singlestep: the model is asked between the two levels, too.

    noise prediction, order 2, at a fraction r = 1/2 of the way in log-SNR (level m):
        u   = (alpha_m / alpha_t) x_t - sigma_m (exp(r h) - 1) eps_t
        x_s = (alpha_s / alpha_t) x_t - sigma_s (exp(h) - 1) (eps_t + (eps_m - eps_t) / (2 r))

    data prediction, order 2:
        u   = (sigma_m / sigma_t) x_t + alpha_m (1 - exp(-r h)) x0_t
        x_s = (sigma_s / sigma_t) x_t + alpha_s (1 - exp(-h)) (x0_t + (x0_m - x0_t) / (2 r))

Order 3 asks at 1/3 and 2/3.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import expand_to
from jaxdiff.samplers.ancestral import Ancestral, ddim
from jaxdiff.samplers.steps import audible, log_step, refuse_zero_snr
from jaxdiff.typing import Grid, NoiseLevel

__all__ = ["dpm_solver", "dpmpp_1s", "dpmpp_2s", "dpmpp_3s"]


def _by_eps(x: Array, t: NoiseLevel, to: NoiseLevel, h: Array, eps: Array) -> Array:
    """(alpha_to / alpha_t) x - sigma_to (exp(h) - 1) eps."""
    grow = to.sigma * jnp.expm1(h)
    return expand_to(to.alpha / t.alpha, x) * x - expand_to(grow, x) * eps


def _by_x0(x: Array, t: NoiseLevel, to: NoiseLevel, h: Array, x0: Array) -> Array:
    """(sigma_to / sigma_t) x + alpha_to (1 - exp(-h)) x0."""
    gain = -to.alpha * jnp.expm1(-h)
    return expand_to(to.sigma / t.sigma, x) * x + expand_to(gain, x) * x0


@arrays.pytree
class Singlestep:
    """See `dpm_solver`, `dpmpp_2s` and `dpmpp_3s`."""

    order: int = arrays.static()
    data: bool = arrays.static()
    noises = 0

    def init(self, x_T: Array, denoise: Any, grid: Grid) -> tuple:
        """No memory."""
        return ()

    def step(self, x, memory, denoise, noise, *, k, t, s, grid):
        """Order 2 or 3 by calls in between; DDIM into a clean end."""
        d, t = denoise(x, t), audible(t)
        _, h, clean = log_step(t, s)
        # into a clean end no more is asked; under vmap it is, of levels that are finite
        inner = NoiseLevel(*(jnp.where(clean, 0.9 * a, b) for a, b in zip(t, s, strict=True)))
        inner = inner._replace(alpha=jnp.where(clean, t.alpha, s.alpha))
        h = jnp.where(clean, log_step(t, inner).h, h)
        solve = self._third if self.order == 3 else self._second
        first = lambda: expand_to(s.alpha, x) * d.x0  # noqa: E731
        high = lambda: solve(x, d, denoise, t, inner, s, h, grid)  # noqa: E731
        return jax.lax.cond(clean, first, high), memory

    def _answer(self, d):
        return d.x0 if self.data else d.eps

    def _move(self, x, t, to, h, answer):
        return (_by_x0 if self.data else _by_eps)(x, t, to, h, answer)

    def _second(self, x, d, denoise, t, inner, s, h, grid):
        m = grid.between(t, inner, 0.5)
        here = self._answer(d)
        there = self._answer(denoise(self._move(x, t, m, 0.5 * h, here), m))
        return self._move(x, t, s, h, there)

    def _third(self, x, d, denoise, t, inner, s, h, grid):
        # D: answers less the first; the second stage and the end add phi_2 (r h) D / r
        m, n = (grid.between(t, inner, fraction) for fraction in (1 / 3, 2 / 3))
        here = self._answer(d)
        at_m = self._answer(denoise(self._move(x, t, m, h / 3, here), m)) - here
        u = self._move(x, t, n, 2 * h / 3, here) + 2 * self._bend(x, n, 2 * h / 3) * at_m
        at_n = self._answer(denoise(u, n)) - here
        return self._move(x, t, s, h, here) + 1.5 * self._bend(x, s, h) * at_n

    def _bend(self, x, to, h):
        """alpha (1 - (1 - exp(-h)) / h), or for noise -sigma ((exp(h) - 1) / h - 1)."""
        if self.data:
            return expand_to(to.alpha * (1 + jnp.expm1(-h) / h), x)
        return expand_to(-to.sigma * (jnp.expm1(h) / h - 1), x)

    def check(self, grid: Grid) -> None:
        """Raises ValueError on a grid that holds alpha = 0, where eps says nothing."""
        if not self.data:
            refuse_zero_snr("DPM-Solver", grid)


def dpm_solver(order: int = 2) -> Singlestep | Ancestral:
    """DPM-Solver (noise prediction) of order 1, 2 or 3; order 1 is DDIM.

    Args:
        order: 1 to 3; also the model calls a step.

    Returns:
        A Sampler.

    Raises:
        ValueError: another order.

    Source: Lu et al. 2022, arXiv:2206.00927, algorithms 1, 4 and 5 (r1 = 1/3, r2 = 2/3).
    """
    if order not in (1, 2, 3):
        raise ValueError(f"order must be 1, 2 or 3, got {order}")
    return ddim() if order == 1 else Singlestep(order, False)


def dpmpp_1s() -> Ancestral:
    """DPM-Solver++ of order 1, which is DDIM.

    Source: Lu et al. 2022, arXiv:2211.01095, section 4.
    """
    return ddim()


def dpmpp_2s() -> Singlestep:
    """DPM-Solver++(2S), r = 1/2, two model calls a step.

    Source: Lu et al. 2022, arXiv:2211.01095, algorithm 1.
    """
    return Singlestep(2, True)


def dpmpp_3s() -> Singlestep:
    """DPM-Solver++(3S), r1 = 1/3 and r2 = 2/3, three model calls a step.

    Source: Lu et al. 2022, arXiv:2211.01095, and the authors' code.
    """
    return Singlestep(3, True)
