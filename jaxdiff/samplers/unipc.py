"""UniPC: a predictor and a corrector of one order from the same model calls (data prediction).

With lam = log(alpha / sigma), h = lam_s - lam_t, points r_i = (lam_i - lam_t) / h and differences
D_i = x0_i - x0_t of remembered answers,

    x_s = (sigma_s / sigma_t) x_t + alpha_s ((1 - exp(-h)) x0_t + B sum_i rho_i D_i / r_i)

where rho solves sum_i rho_i r_i**(n-1) = n! h phi_{n+1}(-h) / B for n = 1, 2, ..., and B is h (bh1)
or 1 - exp(-h) (bh2). The corrector of a step has the answer at s itself as one more point
(r = 1); that answer is the next step's first, so it costs no call.
"""

import math
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import expand_to
from jaxdiff.samplers.steps import audible, log_step
from jaxdiff.typing import Grid, NoiseLevel

__all__ = ["unipc"]

VARIANTS = ("bh1", "bh2")


@arrays.pytree
class UniPC:
    """See `unipc`."""

    order: int = arrays.static()
    variant: str = arrays.static()
    corrector: bool = arrays.static()
    noises = 0

    def init(self, x_T: Array, denoise: Any, grid: Grid) -> tuple:
        """The last corrected x and its level, and the last x0 with their log-SNR, newest first."""
        dtype = arrays.wide_float(grid.levels.alpha).dtype
        level = NoiseLevel(*jnp.ones((3, 1), dtype)[:, 0])
        x0s = jnp.zeros((self.order, *x_T.shape), x_T.dtype)
        return x_T, level, x0s, jnp.zeros(self.order, dtype)

    def step(self, x, memory, denoise, noise, *, k, t, s, grid):
        """Corrects the step that led here, then predicts the next."""
        last_x, last, x0s, lams = memory
        x0, t = denoise(x, t).x0, audible(t)
        lam, _, clean = log_step(t, s)
        if self.corrector:
            known = jnp.minimum(k, self.order)  # answers before this one that the corrector uses
            better = self._move(last_x, last, t, x0s, lams, known, (x0, lam))
            x = jnp.where(k > 0, better, x)
        x0s = jnp.concatenate([x0[None], x0s])[: self.order]
        lams = jnp.concatenate([lam[None], lams])[: self.order]
        known = jnp.where(clean, 1, jnp.minimum(k + 1, self.order))
        return self._move(x, t, s, x0s, lams, known, None), (x, t, x0s, lams)

    def _move(self, x, t, s, x0s, lams, known, end):
        """The formula of the module with `known` remembered answers, and the one at s if given."""
        lam, h, clean = log_step(t, s)
        points = [(x0s[i], lams[i], i < known) for i in range(1, self.order)]
        if end is not None:
            points.append((*end, jnp.full_like(clean, True)))
        gain = jnp.where(clean, 1, -jnp.expm1(-h))
        move = expand_to(gain, x) * x0s[0]
        if points:
            use = jnp.stack([p[2] for p in points])
            r = jnp.stack([(p[1] - lam) / h for p in points])
            weights = self._weights(h, r, use)
            for (answer, _, there), w in zip(points, weights, strict=True):
                difference = jnp.where(there, answer - x0s[0], 0)
                move = move + expand_to(jnp.where(clean, 0, w), x) * difference
        return expand_to(s.sigma / t.sigma, x) * x + expand_to(s.alpha, x) * move

    def _weights(self, h, r, use):
        """B rho_i / r_i for the points in use, 0 for the rest."""
        count, n = jnp.sum(use), r.shape[0]
        scale = h if self.variant == "bh1" else -jnp.expm1(-h)
        r = jnp.where(use, r, jnp.arange(2.0, 2 + n, dtype=r.dtype))  # distinct, never singular
        rows, right = [], []
        phi = _phis(-h, n + 1)
        for i in range(n):
            # equation i for the first `count` unknowns; the rest are set to zero
            active = i < count
            unit = ~use & (jnp.cumsum(~use) == i - count + 1)
            rows.append(jnp.where(active, jnp.where(use, r**i, 0), unit.astype(r.dtype)))
            # n = i + 1: int exp(lam - lam_s) (lam - lam_t)**n d lam = n! h**(n + 1) phi_{n+1}(-h)
            value = math.factorial(i + 1) * phi[i + 2] * h / scale
            right.append(jnp.where(active, value, 0))
        rho = jnp.linalg.solve(jnp.stack(rows), jnp.stack(right))
        # one remembered answer: the authors' code takes 1/2 for the predictor's second order, and
        # for the corrector's first, in place of the solution; both are of the same order
        half = jnp.where(use, 0.5, 0)
        rho = jnp.where(count == 1, half, rho)
        return jnp.where(use, scale * rho / r, 0)


def _phis(z: Array, most: int) -> list[Array]:
    """phi_0..phi_most of z: phi_{n+1} = (phi_n - 1/n!) / z, by series where z is small."""
    small = jnp.abs(z) < 0.5
    near, far = jnp.where(small, z, 0.0), jnp.where(small, 1.0, z)
    out, phi = [], jnp.exp(far)
    for n in range(most + 1):
        series = sum(near**j * (1.0 / math.factorial(j + n)) for j in range(18))
        out.append(jnp.where(small, series, phi))
        phi = (phi - 1.0 / math.factorial(n)) / far
    return out


def unipc(order: int = 2, variant: str = "bh2", *, corrector: bool = True) -> UniPC:
    """UniPC-p: order p + 1 by its corrector, one model call a step.

    Args:
        order: 1 to 3.
        variant: "bh1" (B = h) or "bh2" (B = 1 - exp(-h)).
        corrector: False leaves the predictor alone (UniP).

    Returns:
        A Sampler.

    Raises:
        ValueError: another order or variant.

    Source: Zhao et al. 2023, arXiv:2302.04867, algorithms 5 and 6 (data prediction), section 3.
    """
    if order not in (1, 2, 3):
        raise ValueError(f"order must be 1, 2 or 3, got {order}")
    if variant not in VARIANTS:
        raise ValueError(f"variant must be bh1 or bh2, got {variant!r}")
    return UniPC(order, variant, corrector)
