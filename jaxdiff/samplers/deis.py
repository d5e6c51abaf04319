"""DEIS and LMS: Adams-Bashforth in the clock rho = sigma / alpha, with a choice of polynomial.

    x_s / alpha_s = x_t / alpha_t + int eps d rho,    eps extrapolated from its last p values

The polynomial is in a coordinate c of the level; its integral against d rho is a row of numbers a
step, worked out once over the grid by Gauss-Legendre quadrature in c:

    c = t          DEIS, tAB
    c = log rho    DEIS as other libraries carry it
    c = rho        LMS of k-diffusion
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import expand_to
from jaxdiff.samplers.steps import refuse_zero_snr, steps_left
from jaxdiff.typing import Grid, NoiseLevel

__all__ = ["deis", "lms"]

# 24 nodes integrate exp(c) times a cubic over 8 units of log rho to 1e-14 in float64.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)


def _rho(level: NoiseLevel) -> Array:
    return level.sigma / level.alpha


class _Coordinate:
    """A coordinate c of levels, with d rho / dc."""

    def __init__(self, of: Callable, slope: Callable, ends: bool):
        self.of, self.slope, self.ends = of, slope, ends


def _of_t(grid: Grid) -> _Coordinate:
    if grid.schedule is None:
        raise ValueError(
            'deis(clock="t") needs a grid on a schedule, got levels alone; use clock="log_rho"'
        )
    log_rho = lambda t: -0.5 * grid.schedule(t).log_snr  # noqa: E731

    def slope(t: Array) -> Array:  # by the logarithm: alpha**2 may be too small for a float32
        value, rate = jax.jvp(log_rho, (t,), (jnp.ones_like(t),))
        return jnp.exp(value) * rate

    return _Coordinate(lambda level: level.t, slope, ends=False)


def _of_log_rho(grid: Grid) -> _Coordinate:
    return _Coordinate(lambda level: -0.5 * level.log_snr, jnp.exp, ends=False)


def _of_rho(grid: Grid) -> _Coordinate:
    return _Coordinate(_rho, jnp.ones_like, ends=True)


CLOCKS = {"t": _of_t, "log_rho": _of_log_rho, "rho": _of_rho}


@arrays.pytree
class AdamsBashforth:
    """See `deis` and `lms`."""

    order: int = arrays.static()
    clock: str = arrays.static()
    warm_down: bool = arrays.static()
    noises = 0

    def init(self, x_T: Array, denoise: Any, grid: Grid) -> tuple[Array, Array]:
        """The table [K, order] of coefficients, and the last eps [order - 1, B, ...]."""
        past = jnp.zeros((self.order - 1, *x_T.shape), x_T.dtype)
        return self._table(grid), past

    def step(self, x, memory, denoise, noise, *, k, t, s, grid):
        """One row of the table times the last answers."""
        table, past = memory
        eps = jnp.concatenate([denoise(x, t).eps[None], past])
        rise = jnp.tensordot(table[k].astype(x.dtype), eps, axes=1)
        x_s = expand_to(s.alpha, x) * (x / expand_to(t.alpha, x) + rise)
        return x_s, (table, eps[: self.order - 1])

    def _table(self, grid: Grid) -> Array:
        coordinate = CLOCKS[self.clock](grid)
        t, s = grid.pairs
        noisy, lands = t.sigma > 0, s.sigma > 0
        t, s = (
            level._replace(sigma=jnp.where(ok, level.sigma, 1))
            for level, ok in ((t, noisy), (s, lands))
        )
        here = coordinate.of(t)
        there = coordinate.of(s) if not coordinate.ends else jnp.where(lands, coordinate.of(s), 0)
        # padded steps stand at the clean end: their rows are dropped, and must be finite before
        here, there = (jnp.where(noisy, c, c[0]) for c in (here, there))
        k = jnp.arange(grid.num_steps)
        # the answers at hand: step k has k + 1 of them, at most `order`
        index = k[:, None] - jnp.arange(self.order)[None, :]
        at = here[jnp.maximum(index, 0)]
        known = index >= 0
        if self.warm_down:
            known &= jnp.arange(self.order)[None, :] < steps_left(grid, k)[:, None]
        rows = jax.vmap(self._row, (0, 0, 0, 0, None))(here, there, at, known, coordinate)
        euler = jnp.where(lands, _rho(s), 0) - _rho(t)
        plain = jnp.concatenate([euler[:, None], jnp.zeros_like(rows[:, 1:])], axis=1)
        keep = jnp.full_like(lands, True) if coordinate.ends else lands
        return jnp.where((keep & noisy)[:, None], rows, plain)

    def _row(self, here, there, at, known, coordinate):
        """int L_j(c) d rho over one step, for the Lagrange polynomials of the known points."""
        middle, half = (here + there) / 2, (there - here) / 2
        c = middle + half * jnp.asarray(_NODES, here.dtype)
        weight = half * jnp.asarray(_WEIGHTS, here.dtype) * coordinate.slope(c)
        row = []
        for j in range(self.order):
            value = jnp.ones_like(c)
            for i in range(self.order):
                if i != j:
                    use = known[i] & known[j] & (at[i] != at[j])
                    gap = jnp.where(use, at[j] - at[i], 1)
                    value = value * jnp.where(use, (c - at[i]) / gap, 1)
            row.append(jnp.where(known[j], jnp.sum(weight * value), 0))
        return jnp.stack(row)

    def check(self, grid: Grid) -> None:
        """Raises ValueError on alpha = 0, or where the clock needs a schedule that is not there."""
        refuse_zero_snr("DEIS" if self.clock != "rho" else "LMS", grid)
        CLOCKS[self.clock](grid)


def _check_order(order: int, most: int) -> None:
    if order not in range(1, most + 1):
        raise ValueError(f"order must be a whole number in 1..{most}, got {order}")


def deis(order: int = 3, *, clock: str = "t", warm_down: bool = False) -> AdamsBashforth:
    """DEIS with Adams-Bashforth polynomials; order 1 is DDIM.

    Args:
        order: 1 to 4, of the polynomial plus one; lower while answers are few.
        clock: "t", the paper's tAB, or "log_rho", what other libraries carry.
        warm_down: takes the last steps at orders ..., 2, 1, as other libraries do; into a clean
            end the last step is of first order anyway.

    Returns:
        A Sampler.

    Raises:
        ValueError: another order or clock.

    Source: Zhang and Chen 2023, arXiv:2204.13902, eq. 15 (tAB-DEIS).
    """
    _check_order(order, 4)
    if clock not in ("t", "log_rho"):
        raise ValueError(f"clock must be t or log_rho, got {clock!r}")
    return AdamsBashforth(order, clock, warm_down)


def lms(order: int = 4) -> AdamsBashforth:
    """The linear multistep method in sigma / alpha.

    Args:
        order: 1 to 4; lower while answers are few.

    Returns:
        A Sampler.

    Raises:
        ValueError: another order.

    Source: the linear multistep sampler of k-diffusion (K. Crowson), for any alpha.
    """
    _check_order(order, 4)
    return AdamsBashforth(order, "rho", False)
