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
from jaxdiff.samplers.dpm_solver import dpmpp_2m
from jaxdiff.samplers.steps import audible, check_sampler, log_step, steps_left
from jaxdiff.typing import Denoised, Grid, NoiseLevel, Sampler

__all__ = ["unic", "unipc"]

VARIANTS = ("bh1", "bh2")


@arrays.pytree
class UniP:
    """The predictor; see `unipc`."""

    order: int = arrays.static()
    variant: str = arrays.static()
    warm_down: bool = arrays.static()
    noises = 0

    def init(self, x_T: Array, denoise: Any, grid: Grid) -> tuple[Array, Array]:
        """The last x0 and their log-SNR, newest first."""
        dtype = arrays.wide_float(grid.levels.alpha).dtype
        return jnp.zeros((self.order, *x_T.shape), x_T.dtype), jnp.zeros(self.order, dtype)

    def step(self, x, memory, denoise, noise, *, k, t, s, grid):
        """The formula of the module with the answers at hand."""
        x0, t = denoise(x, t).x0, audible(t)
        lam, _, clean = log_step(t, s)
        x0s, lams = _remembered(memory, x0, lam)
        known = jnp.where(clean, 1, _known(self, grid, k))
        return _move(self.variant, x, t, s, x0s, lams, known, None), (x0s, lams)


@arrays.pytree
class UniC:
    """The corrector; see `unic`."""

    sampler: Sampler
    order: int = arrays.static()
    variant: str = arrays.static()
    warm_down: bool = arrays.static()
    noises = 0

    def init(self, x_T: Array, denoise: Any, grid: Grid) -> tuple:
        """The solver's memory; the last x, its level and what came of it; x0 and log-SNR."""
        dtype = arrays.wide_float(grid.levels.alpha).dtype
        level = NoiseLevel(*jnp.ones((3, 1), dtype)[:, 0])
        past = jnp.zeros((self.order, *x_T.shape), x_T.dtype), jnp.zeros(self.order, dtype)
        return self.sampler.init(x_T, denoise, grid), x_T, level, x_T, past

    def step(self, x, memory, denoise, noise, *, k, t, s, grid):
        """Corrects the step that led here, then takes the solver's."""
        inner, last_x, last, predicted, past = memory
        d, heard = denoise(x, t), audible(t)
        lam, _, _ = log_step(heard, s)
        known = _known(self, grid, k - 1)  # answers before this one that the corrector uses
        noisier = heard._replace(sigma=2 * heard.sigma)  # there is no step before the first
        last = NoiseLevel(*(jnp.where(k > 0, a, b) for a, b in zip(last, noisier, strict=True)))
        better = _move(self.variant, last_x, last, heard, *past, known, (d.x0, lam))
        # a difference: what another has done to x since (Langevin, inpainting) stays
        x = jnp.where(k > 0, x + (better - predicted), x)
        denoise = _answering(denoise, x, t, d)
        x_s, inner = self.sampler.step(x, inner, denoise, noise, k=k, t=t, s=s, grid=grid)
        return x_s, (inner, x, heard, x_s, _remembered(past, d.x0, lam))

    def check(self, grid: Grid) -> None:
        """Raises what the solver refuses."""
        if hasattr(self.sampler, "check"):
            self.sampler.check(grid)


def _known(part: UniP | UniC, grid: Grid, k: Array) -> Array:
    """How many answers step k uses."""
    known = jnp.minimum(k + 1, part.order)
    return jnp.minimum(known, steps_left(grid, k)) if part.warm_down else known


def _answering(denoise: Any, x: Array, t: NoiseLevel, d: Denoised) -> Any:
    """`denoise`, which at t itself gives the answer that is known, with eps to fit the new x."""
    eps = (x - expand_to(t.alpha, x) * d.x0) / expand_to(t.sigma, x)
    answer = Denoised(d.x0, eps, d.heads)
    return lambda y, level: answer if level is t else denoise(y, level)


def _remembered(past: tuple[Array, Array], x0: Array, lam: Array) -> tuple[Array, Array]:
    """The past with one more answer, the oldest forgotten."""
    x0s, lams = past
    most = lams.shape[0]
    return jnp.concatenate([x0[None], x0s])[:most], jnp.concatenate([lam[None], lams])[:most]


def _move(variant, x, t, s, x0s, lams, known, end):
    """The formula of the module with `known` remembered answers, and the one at s if given."""
    lam, h, clean = log_step(t, s)
    points = [(x0s[i], lams[i], i < known) for i in range(1, lams.shape[0])]
    if end is not None:
        points.append((*end, jnp.full_like(clean, True)))
    gain = jnp.where(clean, 1, -jnp.expm1(-h))
    move = expand_to(gain, x) * x0s[0]
    if points:
        use = jnp.stack([p[2] for p in points])
        r = jnp.stack([(p[1] - lam) / h for p in points])
        weights = _weights(variant, h, r, use)
        for (answer, _, there), w in zip(points, weights, strict=True):
            difference = jnp.where(there, answer - x0s[0], 0)
            move = move + expand_to(jnp.where(clean, 0, w), x) * difference
    return expand_to(s.sigma / t.sigma, x) * x + expand_to(s.alpha, x) * move


def _weights(variant, h, r, use):
    """B rho_i / r_i for the points in use, 0 for the rest."""
    count, n = jnp.sum(use), r.shape[0]
    scale = h if variant == "bh1" else -jnp.expm1(-h)
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
    rho = jnp.where(count == 1, jnp.where(use, 0.5, 0), rho)
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


def unipc(
    order: int = 2, variant: str = "bh2", *, corrector: bool = True, warm_down: bool = False
) -> UniC | UniP:
    """UniPC-p: order p + 1 by its corrector, one model call a step.

    Args:
        order: 1 to 3.
        variant: "bh1" (B = h) or "bh2" (B = 1 - exp(-h)).
        corrector: False leaves the predictor alone (UniP).
        warm_down: takes the last steps at orders ..., 2, 1, as the authors' code does; into a
            clean end the last step is of first order anyway.

    Returns:
        A Sampler.

    Raises:
        ValueError: another order or variant.

    Source: Zhao et al. 2023, arXiv:2302.04867, algorithms 5 and 6 (data prediction), section 3.
    """
    _check(order, variant)
    predictor = UniP(order, variant, warm_down)
    return UniC(predictor, order, variant, warm_down) if corrector else predictor


def unic(sampler: Sampler | None = None, order: int = 2, variant: str = "bh2") -> UniC:
    """The corrector of UniPC on top of any deterministic solver, at no further model call.

    A solver of order p with the corrector of order p is of order p + 1.

    Args:
        sampler: a deterministic solver; `dpmpp_2m()` if None.
        order: 1 to 3, the order of the corrector.
        variant: as for `unipc`.

    Returns:
        A Sampler.

    Raises:
        ValueError: another order or variant, or a sampler that draws noise.
        TypeError: no sampler.

    Source: Zhao et al. 2023, arXiv:2302.04867, section 3.1 and table 2 (UniC on other solvers).
    """
    sampler = dpmpp_2m() if sampler is None else sampler
    check_sampler(sampler)
    _check(order, variant)
    if sampler.noises:
        raise ValueError(
            "sampler must draw no noise to be corrected (for DDIM take euler()), got"
            f" {type(sampler).__name__}, which draws {sampler.noises} a step"
        )
    return UniC(sampler, order, variant, False)


def _check(order: int, variant: str) -> None:
    if order not in (1, 2, 3):
        raise ValueError(f"order must be 1, 2 or 3, got {order}")
    if variant not in VARIANTS:
        raise ValueError(f"variant must be bh1 or bh2, got {variant!r}")
