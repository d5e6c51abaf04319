"""Posterior sampling: data given a measurement y = A(x_0) + std noise, from an unconditional model.

The score of p(x_t | y) is that of the model plus grad log p(y | x_t), and what x_t says of x_0 is
its mean x0(x_t) and a covariance C_t. With p(x_0 | x_t) = N(x0, C_t), J = d x0 / d x_t, and A its
own linearisation at x0,

    grad log p(y | x_t) = J^T A^T (A C_t A^T + std**2 I)^-1 (y - A(x0))

(C_t held fixed). The methods differ in what they take C_t to be:

    dps     0                                      as if x0 were certain
    pigdm   s**2 sigma**2 / (sigma**2 + alpha**2 s**2) I,  exact for white data of deviation s
    mmps    (sigma**2 / alpha) J                   Tweedie's, exact for all Gaussian data

Each is a gradient through the network: one more pass backwards, for `mmps` one an iteration more.
At alpha = 0, where x_t is noise alone, the model's answer passes as it is.

Not here: samplers that put data back into x_t (replacement, RePaint), which are samplers.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import check_range, event_sum, expand_to, safe_divide, safe_sqrt
from jaxdiff.denoiser import add_score
from jaxdiff.guidance.measurement import Mask
from jaxdiff.guidance.scale import Scale, as_scale, scale_at
from jaxdiff.typing import Denoise, Denoised, NoiseLevel

__all__ = ["dps", "dps_normalised", "mmps", "pigdm"]

Linear = Callable[[Array], Array]


class Here(NamedTuple):
    """The linear maps at one x_t: J^T, A and A^T."""

    level: NoiseLevel
    jacobian_t: Linear
    a: Linear
    a_t: Linear


@arrays.pytree
class Posterior:
    """A model with grad log p(y | x_t) in its score; `weigh` says (A C A^T + std**2 I)^-1."""

    denoise: Denoise
    y: Array
    operator: Callable[[Array], Array]
    weigh: Callable[[Here, Array], Array]
    scale: Scale

    def __call__(self, x_t: Array, level: NoiseLevel) -> Denoised:
        """The model's answer, given y."""

        def x0_of(x: Array) -> tuple[Array, Denoised]:
            d = self.denoise(x, level)
            return d.x0, d

        x0, jacobian_t, d = jax.vjp(x0_of, x_t, has_aux=True)
        predicted, a = jax.linearize(self.operator, x0)
        if predicted.shape != jnp.shape(self.y):
            raise ValueError(
                f"y must be {list(predicted.shape)}, as the measurement of x_t"
                f" {list(x_t.shape)} is, got {list(jnp.shape(self.y))}"
            )
        transposed = jax.linear_transpose(a, x0)
        here = Here(level, lambda v: jacobian_t(v)[0], a, lambda u: transposed(u)[0])
        weighed = self.weigh(here, jnp.asarray(self.y, predicted.dtype) - predicted)
        gradient = here.jacobian_t(here.a_t(weighed))
        return add_score(d, scale_at(self.scale, level, x_t, neutral=0.0) * gradient, level)


@arrays.pytree
class Certain:
    """C_t = 0: residual / std**2."""

    std: Any

    def __call__(self, here: Here, residual: Array) -> Array:
        """The residual, weighed."""
        return residual / expand_to(self.std, residual) ** 2


@arrays.pytree
class Normalised:
    """residual / |residual|, the step of the paper's code."""

    def __call__(self, here: Here, residual: Array) -> Array:
        """The residual, weighed."""
        return safe_divide(residual, expand_to(safe_sqrt(event_sum(residual**2)), residual))


@arrays.pytree
class White:
    """C_t of white Gaussian data."""

    data_std: Any

    def __call__(self, here: Here, v: Array) -> Array:
        """C_t v."""
        alpha, sigma = here.level.alpha, here.level.sigma
        prior = self.data_std**2
        return expand_to(prior * sigma**2 / (sigma**2 + prior * alpha**2), v) * v


@arrays.pytree
class Tweedie:
    """C_t by the derivative of the denoiser."""

    def __call__(self, here: Here, v: Array) -> Array:
        """C_t v."""
        ratio = safe_divide(here.level.sigma**2, here.level.alpha)
        return expand_to(ratio, v) * here.jacobian_t(v)


@arrays.pytree
class Solve:
    """(A C_t A^T + std**2 I)^-1 residual, by a few iterations."""

    covariance: Callable[[Here, Array], Array]
    std: Any
    iterations: int = arrays.static()

    def __call__(self, here: Here, residual: Array) -> Array:
        """The residual, weighed."""
        var = expand_to(self.std, residual) ** 2

        def system(u: Array) -> Array:
            return here.a(self.covariance(here, here.a_t(u))) + var * u

        return _solve_each(system, residual, self.iterations)


def _solve_each(system: Linear, b: Array, iterations: int) -> Array:
    """Least residual |b - system(u)| over `iterations` Krylov directions, each example by itself.

    Generalised conjugate residuals. jax.scipy's solvers take the batch for one vector, so that an
    example's answer would depend on its neighbours, and stop by values, which reverse
    differentiation refuses. Conjugate gradients need a symmetric positive system, as which a
    network's derivative falls far short: on digits they diverged from the third iteration on.

    Source: Eisenstat, Elman and Schultz 1983, doi:10.1137/0720023, section 2 (GCR).
    """
    floor = jnp.finfo(b.dtype).eps ** 2
    start = event_sum(b**2)
    # directions and their images, orthonormal images first to last, zeros where none is yet
    none = jnp.zeros((iterations, *b.shape), b.dtype)

    def step(carry, k):
        u, r, directions, images = carry
        p, q = r, system(r)
        before = event_sum(q**2)
        for _ in range(2):  # once leaves the rounding of what it takes away
            share = jax.vmap(lambda image: expand_to(event_sum(image * q), q))(images)  # noqa: B023
            p, q = p - jnp.sum(share * directions, axis=0), q - jnp.sum(share * images, axis=0)
        size = event_sum(q**2)
        # An example rests where its residual, or what is new in its image, is rounding alone.
        active = (event_sum(r**2) > floor * start) & (size > floor * before)
        scale = expand_to(jnp.where(active, safe_divide(1, safe_sqrt(size)), 0), q)
        p, q = scale * p, scale * q
        length = expand_to(event_sum(r * q), q)
        basis = directions.at[k].set(p), images.at[k].set(q)
        return (u + length * p, r - length * q, *basis), None

    start_at = jnp.zeros_like(b), b, none, none
    return jax.lax.scan(step, start_at, jnp.arange(iterations))[0][0]


def dps(
    denoise: Denoise, y: Any, operator: Callable[[Array], Array], std: Any, *, scale: Scale = 1.0
) -> Posterior:
    """Diffusion posterior sampling: the likelihood of y at the denoised x0.

        score <- score - w grad |y - A(x0(x_t))|**2 / (2 std**2)

    It takes x0 for certain, hence the measurement for far more telling than it is at high noise.
    Where x_0 ~ N(0, 1) and y = x_0 + std noise, the probability flow then ends in

        mean y (sqrt(2) / std) F(1 / (sqrt(2) std)),    variance exp(-1 / std**2)

    with Dawson's F: 1.28 y and .018 at std = .5, where the posterior has .8 y and .2. So its mean
    overshoots the measurement itself, and its spread is too small. Its drift is stiff, too, of
    order 1 / std**2: a small std needs many steps, or a scale below 1.

    Args:
        denoise: the model.
        y: the measurement, [B, ...] as operator gives it.
        operator: A, any differentiable function of each example.
        std: [] or [B], the deviation of the measurement's noise, > 0.
        scale: w, [] or [B], or a function of the level (`limited`).

    Returns:
        A denoise.

    Raises:
        ValueError: std not positive; when asked, a y of another shape.

    Source: Chung et al. 2023, arXiv:2209.14687, section 3.2 (eq. 16).
    """
    check_range("std", std, 0, np.inf, "()")
    return _posterior(denoise, y, operator, Certain(std), scale)


def dps_normalised(
    denoise: Denoise, y: Any, operator: Callable[[Array], Array], *, zeta: Scale
) -> Posterior:
    """DPS with the step that its authors run: the gradient of the residual's length.

        score <- score - zeta grad |y - A(x0(x_t))|

    Their algorithm subtracts zeta grad |.| from x_s after each of 1000 DDPM steps. In the score it
    is multiplied by the step like all of the score, so that it does not depend on their number:
    zeta here is theirs over beta_t, and a function of the level may say so. It is no likelihood:
    what it samples depends on zeta and is known in no closed form.

    Args:
        denoise, y, operator: as in `dps`.
        zeta: [] or [B], or a function of the level.

    Returns:
        A denoise.

    Raises:
        ValueError: when asked, a y of another shape.

    Source: Chung et al. 2023, arXiv:2209.14687, algorithm 1 (whose factor 2, of
        the squared norm's gradient, their code has in zeta).
    """
    return _posterior(denoise, y, operator, Normalised(), zeta)


def pigdm(
    denoise: Denoise,
    y: Any,
    operator: Callable[[Array], Array],
    std: Any,
    *,
    data_std: Any = 1.0,
    iterations: int = 30,
    scale: Scale = 1.0,
) -> Posterior:
    """Pseudoinverse guidance: what x_t leaves open of x_0 is taken as white.

        C_t = s**2 sigma**2 / (sigma**2 + alpha**2 s**2) I

    It is exact where the data are white Gaussian of deviation s, whatever A. The solve asks the
    network nothing, and is exact after as many iterations as A A^T has distinct eigenvalues (2 for
    a mask, 1 for block means).

    Args:
        denoise, y, operator: as in `dps`.
        std: [] or [B], >= 0; 0 where the measurement is exact.
        data_std: s, [], > 0; the paper's is 1.
        iterations: static, at least 1.
        scale: as in `dps`.

    Returns:
        A denoise.

    Raises:
        ValueError: std negative, data_std not positive, no iterations; when asked, a y of another
            shape.

    Source: Song et al. 2023, "Pseudoinverse-guided diffusion models for inverse problems" (ICLR
        2023); there s = 1, and their samplers weigh the gradient by r_t**2 besides: `scale`.
    """
    check_range("data_std", data_std, 0, np.inf, "()")
    return _posterior(denoise, y, operator, _solve(White(data_std), std, iterations), scale)


def mmps(
    denoise: Denoise,
    y: Any,
    operator: Callable[[Array], Array],
    std: Any,
    *,
    iterations: int = 5,
    scale: Scale = 1.0,
) -> Posterior:
    """Moment-matching posterior sampling: the covariance of x_0 is that of the denoiser itself.

        C_t = Cov[x_0 | x_t] = (sigma**2 / alpha) d x0 / d x_t

    It is exact for every Gaussian prior and linear A, with as many iterations as y has numbers
    (fewer where eigenvalues coincide). Each asks a pass backwards through the network. A network's
    derivative is no covariance, neither symmetric nor positive; so the system is solved by least
    residuals, which cannot diverge, instead of the paper's conjugate gradients.

    Args:
        denoise, y, operator: as in `dps`.
        std: [] or [B], >= 0.
        iterations: static, at least 1.
        scale: as in `dps`.

    Returns:
        A denoise.

    Raises:
        ValueError: std negative, no iterations; when asked, a y of another shape.

    Source: Rozet et al. 2024, arXiv:2405.13712, section 4.
    """
    return _posterior(denoise, y, operator, _solve(Tweedie(), std, iterations), scale)


def _solve(covariance: Callable, std: Any, iterations: int) -> Solve:
    check_range("std", std, 0, np.inf, "[)")
    if iterations != int(iterations) or iterations < 1:
        raise ValueError(f"iterations must be a whole number of at least 1, got {iterations}")
    return Solve(covariance, std, int(iterations))


def _posterior(denoise, y, operator, weigh, scale) -> Posterior:
    functions = arrays.as_pytree(denoise), arrays.as_pytree(operator)
    y = jnp.asarray(y)
    if y.ndim < 2:
        raise ValueError(f"y must be [B, ...], got shape {list(y.shape)}")
    if not jnp.issubdtype(y.dtype, jnp.floating):
        raise ValueError(f"y must be float, scaled like the data, got {y.dtype}")
    if isinstance(operator, Mask):  # idempotent: an image is measured, a measurement stays
        y = operator(y)
    numbers = arrays.concrete(y)
    if numbers is not None and not np.isfinite(numbers.astype(np.float64)).all():
        raise ValueError("y must be finite where it is measured, got NaN or infinity")
    return Posterior(functions[0], y, functions[1], weigh, as_scale(scale))
