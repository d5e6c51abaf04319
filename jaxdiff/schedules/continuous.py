"""Schedules given by a formula: VP, cosine, sub-VP, VE, EDM and rectified flow."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import check_range, safe_sqrt, wide_float
from jaxdiff.schedules.clock import check_end, clock, log_alpha_bar
from jaxdiff.typing import NoiseLevel

__all__ = ["cosine", "edm", "linear_vp", "rectified", "sub_vp", "ve"]


def _beta(schedule, t: Array) -> Array:
    """A linear beta."""
    return schedule.beta_min + (schedule.beta_max - schedule.beta_min) * t


def _beta_integral(schedule, t: Array) -> Array:
    """B(t) of a linear beta."""
    return schedule.beta_min * t + 0.5 * (schedule.beta_max - schedule.beta_min) * t**2


def _beta_time(schedule, integral: Array) -> Array:
    """The positive root of B(t) = integral, in its form without cancellation."""
    slope = schedule.beta_max - schedule.beta_min
    root = safe_sqrt(schedule.beta_min**2 + 2 * slope * integral)
    return 2 * integral / (schedule.beta_min + root)


@arrays.pytree
class LinearVP:
    """Variance preserving with beta(t) linear; see `linear_vp`."""

    beta_min: Any
    beta_max: Any
    t_min = 0.0
    t_max = 1.0
    prior_std = 1.0

    def __call__(self, t) -> NoiseLevel:
        """The level at t >= 0."""
        t = clock(t)
        integral = _beta_integral(self, t)
        return NoiseLevel(t, jnp.exp(-0.5 * integral), safe_sqrt(-jnp.expm1(-integral)))

    def time(self, log_snr) -> Array:
        """-log alpha**2 is the integral B(t), solved for t."""
        return _beta_time(self, -log_alpha_bar(log_snr))

    def coefficients(self, t) -> tuple[Array, Array]:
        """f = -beta / 2, g**2 = beta."""
        beta = _beta(self, clock(t))
        return -0.5 * beta, beta


def linear_vp(beta_min=0.1, beta_max=20.0) -> LinearVP:
    """The variance-preserving SDE, the limit of DDPM's linear betas.

        B(t) = beta_min t + (beta_max - beta_min) t**2 / 2
        alpha = exp(-B / 2),    sigma = sqrt(1 - exp(-B))

    Args:
        beta_min, beta_max: beta at t = 0 and 1, 0 < beta_min <= beta_max.

    Returns:
        A schedule on the clock 0..1.

    Raises:
        ValueError: betas not positive or falling, or alpha(1)**2 > 0.01: signal is left at the
            end, where sampling starts from pure noise.

    Source: Song et al. 2021, arXiv:2011.13456, eq. 32-33.
    """
    check_range("beta_min", beta_min, 0, np.inf, "()")
    low, high = arrays.concrete(beta_min), arrays.concrete(beta_max)
    if low is not None:
        check_range("beta_max", beta_max, float(np.max(low)), np.inf, "[)")
    if low is not None and high is not None:
        check_end(np.exp(-(low + high) / 2))
    return LinearVP(beta_min, beta_max)


@arrays.pytree
class Cosine:
    """Variance preserving with a cosine alpha; see `cosine`."""

    offset: Any
    t_min = 0.0
    t_max = 1.0
    prior_std = 1.0

    def __call__(self, t) -> NoiseLevel:
        """The level at t in 0..1, with sin forms that are exact at both ends."""
        t = clock(t, 1)
        unit = jnp.pi / 2 / (1 + self.offset)
        start = self.offset * unit
        alpha = jnp.sin((1 - t) * unit) / jnp.cos(start)
        var = jnp.sin(t * unit) * jnp.sin(t * unit + 2 * start) / jnp.cos(start) ** 2
        return NoiseLevel(t, alpha, safe_sqrt(var))

    def time(self, log_snr) -> Array:
        """By atan2 of the two legs, which keeps precision at both ends."""
        log_snr = wide_float(log_snr)
        unit = jnp.pi / 2 / (1 + self.offset)
        start = self.offset * unit
        var = jax.nn.sigmoid(-log_snr)
        cos = safe_sqrt(jax.nn.sigmoid(log_snr)) * jnp.cos(start)
        sin = safe_sqrt(jnp.sin(start) ** 2 + var * jnp.cos(start) ** 2)
        return jnp.clip(jnp.arctan2(sin, cos) / unit - self.offset, 0, 1)

    def coefficients(self, t) -> tuple[Array, Array]:
        """f = -unit / tan((1 - t) unit) with unit = pi / 2 / (1 + s), g**2 = -2 f."""
        t = clock(t, 1)
        unit = jnp.pi / 2 / (1 + self.offset)
        f = -unit / jnp.tan((1 - t) * unit)
        return f, -2 * f


def cosine(offset=0.008) -> Cosine:
    """Nichol and Dhariwal's cosine schedule in continuous time; zero SNR at t = 1.

        alpha = cos((t + s) / (1 + s) pi/2) / cos(s / (1 + s) pi/2),    s = offset

    Their discrete form also cuts betas at 0.999: that is `from_betas(cosine_betas(N))`.

    Args:
        offset: s, in [0, 1).

    Returns:
        A schedule on the clock 0..1 with alpha(1) = 0.

    Source: Nichol and Dhariwal 2021, arXiv:2102.09672, eq. 17.
    """
    check_range("offset", offset, 0, 1, "[)")
    return Cosine(offset)


@arrays.pytree
class SubVP:
    """Sub-variance-preserving; see `sub_vp`."""

    beta_min: Any
    beta_max: Any
    t_min = 0.0
    t_max = 1.0
    prior_std = 1.0

    def __call__(self, t) -> NoiseLevel:
        """The level at t >= 0."""
        t = clock(t)
        integral = _beta_integral(self, t)
        return NoiseLevel(t, jnp.exp(-0.5 * integral), -jnp.expm1(-integral))

    def time(self, log_snr) -> Array:
        """alpha / sigma = 1 / (2 sinh(B / 2)), then B(t) solved for t."""
        return _beta_time(self, 2 * jnp.arcsinh(0.5 * jnp.exp(-0.5 * wide_float(log_snr))))

    def coefficients(self, t) -> tuple[Array, Array]:
        """f = -beta / 2, g**2 = beta (1 - exp(-2 B))."""
        t = clock(t)
        beta = _beta(self, t)
        return -0.5 * beta, -beta * jnp.expm1(-2 * _beta_integral(self, t))


def sub_vp(beta_min=0.1, beta_max=20.0) -> SubVP:
    """The sub-variance-preserving SDE: the means of `linear_vp`, with less noise.

        alpha = exp(-B / 2),    sigma = 1 - exp(-B)

    Args:
        beta_min, beta_max: as for `linear_vp`.

    Returns:
        A schedule on the clock 0..1.

    Raises:
        ValueError: as for `linear_vp`.

    Source: Song et al. 2021, arXiv:2011.13456, eq. 28-29.
    """
    linear_vp(beta_min, beta_max)
    return SubVP(beta_min, beta_max)


@arrays.pytree
class VE:
    """Variance exploding; see `ve`."""

    sigma_min: Any
    sigma_max: Any
    t_min = 0.0
    t_max = 1.0

    @property
    def prior_std(self):
        """sigma_max."""
        return self.sigma_max

    def __call__(self, t) -> NoiseLevel:
        """The level at t."""
        t = clock(t)
        ratio = jnp.asarray(self.sigma_max / self.sigma_min, t.dtype)
        return NoiseLevel(t, jnp.ones_like(t), self.sigma_min * jnp.power(ratio, t))

    def time(self, log_snr) -> Array:
        """log sigma is linear in t."""
        ratio = jnp.log(self.sigma_max) - jnp.log(self.sigma_min)
        return (-0.5 * wide_float(log_snr) - jnp.log(self.sigma_min)) / ratio

    def coefficients(self, t) -> tuple[Array, Array]:
        """f = 0, g**2 = 2 sigma**2 log(sigma_max / sigma_min)."""
        level = self(t)
        ratio = jnp.log(self.sigma_max) - jnp.log(self.sigma_min)
        return jnp.zeros_like(level.t), 2 * ratio * level.sigma**2


def ve(sigma_min=0.01, sigma_max=50.0) -> VE:
    """The variance-exploding SDE; its clock never gets clean, grids append the clean end.

        alpha = 1,    sigma = sigma_min (sigma_max / sigma_min)**t

    sigma(t) is the deviation itself, as in the authors' code; the variance counted from t = 0
    would be sigma(t)**2 - sigma_min**2.

    Args:
        sigma_min, sigma_max: 0 < sigma_min < sigma_max; sigma_max should be about the largest
            distance between two data points.

    Returns:
        A schedule on the clock 0..1.

    Raises:
        ValueError: sigma_min not positive or sigma_max not above it.

    Source: Song et al. 2021, arXiv:2011.13456, eq. 30-31.
    """
    _check_sigmas(sigma_min, sigma_max)
    return VE(sigma_min, sigma_max)


def _check_sigmas(sigma_min, sigma_max) -> None:
    check_range("sigma_min", sigma_min, 0, np.inf, "()")
    low = arrays.concrete(sigma_min)
    if low is not None:
        check_range("sigma_max", sigma_max, float(np.max(low)), np.inf, "()")


@arrays.pytree
class EDM:
    """The clock that is sigma itself; see `edm`."""

    sigma_min: Any
    sigma_max: Any

    @property
    def t_min(self):
        """sigma_min."""
        return self.sigma_min

    @property
    def t_max(self):
        """sigma_max."""
        return self.sigma_max

    @property
    def prior_std(self):
        """sigma_max."""
        return self.sigma_max

    def __call__(self, t) -> NoiseLevel:
        """The level with sigma = t >= 0."""
        t = clock(t)
        return NoiseLevel(t, jnp.ones_like(t), t)

    def time(self, log_snr) -> Array:
        """Sigma."""
        return jnp.exp(-0.5 * wide_float(log_snr))

    def coefficients(self, t) -> tuple[Array, Array]:
        """f = 0, g**2 = 2 t."""
        t = clock(t)
        return jnp.zeros_like(t), 2 * t


def edm(sigma_min=0.002, sigma_max=80.0) -> EDM:
    """The schedule of EDM, whose clock is sigma.

        alpha = 1,    sigma = t

    Args:
        sigma_min, sigma_max: the working range, 0 < sigma_min < sigma_max.

    Returns:
        A schedule on the clock sigma_min..sigma_max; 0 is clean.

    Raises:
        ValueError: sigma_min not positive or sigma_max not above it.

    Source: Karras et al. 2022, arXiv:2206.00364, table 1, last column.
    """
    _check_sigmas(sigma_min, sigma_max)
    return EDM(sigma_min, sigma_max)


@arrays.pytree
class Rectified:
    """The straight path from data to noise; see `rectified`."""

    t_min = 0.0
    t_max = 1.0
    prior_std = 1.0

    def __call__(self, t) -> NoiseLevel:
        """The level at t in 0..1."""
        t = clock(t, 1)
        return NoiseLevel(t, 1 - t, t)

    def time(self, log_snr) -> Array:
        """sigma / (alpha + sigma)."""
        return jax.nn.sigmoid(-0.5 * wide_float(log_snr))

    def coefficients(self, t) -> tuple[Array, Array]:
        """f = -1 / (1 - t), g**2 = 2 t / (1 - t)."""
        t = clock(t, 1)
        return -1 / (1 - t), 2 * t / (1 - t)


def rectified() -> Rectified:
    """Rectified flow (flow matching with a straight path); zero SNR at t = 1.

        alpha = 1 - t,    sigma = t

    Returns:
        A schedule on the clock 0..1 with data at t = 0.

    Source: Liu et al. 2023, arXiv:2209.03003, eq. 1, whose clock runs the other way.
    """
    return Rectified()
