"""Every schedule as a stochastic differential equation, from its alpha and sigma alone.

    (5) dx = f x dt + g dW,    f = d log alpha / dt,    g**2 = d sigma**2 / dt - 2 f sigma**2

has the marginals N(alpha x_0, sigma**2 I). Backwards in time, with score = -eps / sigma,

    dx = (f x - (1 + lam**2) / 2 g**2 score) dt + lam g dW

has the same marginals for every lam: 1 is Anderson's reverse SDE, 0 the probability flow, which
needs neither f nor g and is finite at alpha = 0:

    dx/dt = alpha' x0 + sigma' eps

In the clock rho = sigma / alpha of x / alpha the flow is straightest, d(x / alpha) = eps d rho:
`in_sigma_clock` takes any model there, so that whatever runs on a schedule runs in that clock.

Not here: any solver (`samplers`).
"""

from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import check_range, expand_to, wide_float
from jaxdiff.schedules import cleanest_time
from jaxdiff.typing import Denoise, Denoised, NoiseLevel, Schedule

__all__ = [
    "SDE",
    "by_autodiff",
    "coefficients",
    "forward",
    "in_sigma_clock",
    "probability_flow",
    "reverse",
]


class SDE(Protocol):
    """dx = drift dt + diffusion dW, the diffusion a number: a frozen pytree."""

    def drift(self, t: Array, x: Array) -> Array:
        """[B, ...] at time t, []."""
        ...

    def diffusion(self, t: Array) -> Array:
        """[], >= 0."""
        ...


def coefficients(schedule: Schedule, t: Any) -> tuple[Array, Array]:
    """Drift and squared diffusion of equation (5).

        f = d log alpha / dt,    g**2 = d sigma**2 / dt - 2 f sigma**2

    In closed form where the schedule has one (a method `coefficients(t)`), else by autodiff.

    Args:
        schedule: any schedule.
        t: its clock, of any shape.

    Returns:
        (f, g2), each of the shape of t; infinite where alpha = 0. On a chain those of the step
        that leads up to t.

    Raises:
        ValueError: a concrete t outside the clock.

    Source: Song et al. 2021, arXiv:2011.13456, eq. 5 and 29; Kingma et al. 2021,
        arXiv:2107.00630, appendix A, for any alpha and sigma.
    """
    closed = getattr(schedule, "coefficients", None)
    return by_autodiff(schedule, t) if closed is None else closed(t)


def by_autodiff(schedule: Schedule, t: Any) -> tuple[Array, Array]:
    """`coefficients` from alpha and sigma alone, whatever closed form the schedule has.

    Args, Returns and Raises as for `coefficients`. Where sigma = 0 its slope may be infinite, of
    a square root: a millionth of the clock later is asked instead, where g**2 is as good as its
    limit.
    """
    t = wide_float(t)
    clean = schedule(t).sigma <= 0
    t = jnp.where(clean, t + 1e-6 * jnp.asarray(schedule.t_max - schedule.t_min, t.dtype), t)
    level, rate = _with_rates(schedule, t)
    f = rate.alpha / level.alpha
    return f, 2 * level.sigma * (rate.sigma - f * level.sigma)


def _with_rates(schedule: Schedule, t: Any) -> tuple[NoiseLevel, NoiseLevel]:
    """The level at t, and its derivative by t."""
    t = wide_float(t)
    return jax.jvp(schedule, (t,), (jnp.ones_like(t),))


@arrays.pytree
class Forward:
    """See `forward`."""

    schedule: Schedule

    def drift(self, t: Array, x: Array) -> Array:
        """f x."""
        return expand_to(coefficients(self.schedule, t)[0], x) * x

    def diffusion(self, t: Array) -> Array:
        """g."""
        return arrays.safe_sqrt(coefficients(self.schedule, t)[1])


@arrays.pytree
class Flow:
    """See `probability_flow`."""

    denoise: Denoise
    schedule: Schedule

    def __call__(self, t: Array, x: Array) -> Array:
        """dx/dt, [B, ...], at time t, []."""
        level, rate = _with_rates(self.schedule, t)
        d = self.denoise(x, level)
        return expand_to(rate.alpha, x) * d.x0 + expand_to(rate.sigma, x) * d.eps


@arrays.pytree
class Reverse:
    """See `reverse`."""

    denoise: Denoise
    schedule: Schedule
    lam: Any

    def drift(self, t: Array, x: Array) -> Array:
        """The flow's, and lam**2 / 2 g**2 eps / sigma besides: -score moves x to the noisy side."""
        level, rate = _with_rates(self.schedule, t)
        d = self.denoise(x, level)
        g2 = coefficients(self.schedule, t)[1]
        of_eps = rate.sigma + 0.5 * self.lam**2 * g2 / level.sigma
        return expand_to(rate.alpha, x) * d.x0 + expand_to(of_eps, x) * d.eps

    def diffusion(self, t: Array) -> Array:
        """lam g."""
        return self.lam * arrays.safe_sqrt(coefficients(self.schedule, t)[1])


def forward(schedule: Schedule) -> Forward:
    """The SDE that noises data, dx = f x dt + g dW.

    Args:
        schedule: any schedule.

    Returns:
        An SDE, to be run from the clean end of the clock to the noisy one.

    Source: Song et al. 2021, arXiv:2011.13456, eq. 5.
    """
    return Forward(schedule)


def probability_flow(denoise: Denoise, schedule: Schedule) -> Flow:
    """The deterministic flow that has the marginals of the SDE.

        dx/dt = alpha' x0 + sigma' eps = f x - g**2 score / 2

    Args:
        denoise: the model.
        schedule: the schedule, sigma > 0 wherever it is asked.

    Returns:
        A frozen pytree, `flow(t, x) -> dx/dt` with t [] and x [B, ...].

    Source: Song et al. 2021, arXiv:2011.13456, eq. 13.
    """
    return Flow(arrays.as_pytree(denoise), schedule)


def reverse(denoise: Denoise, schedule: Schedule, lam: Any = 1.0) -> Reverse:
    """The family of SDEs that run backwards in time through the same marginals.

        dx = (f x - (1 + lam**2) / 2 g**2 score) dt + lam g dW,    dt < 0

    Args:
        denoise: the model; score = -eps / sigma.
        schedule: the schedule, sigma > 0 and alpha > 0 wherever it is asked.
        lam: [], in [0, 1]: 1 is the reverse SDE, 0 the probability flow.

    Returns:
        An SDE, to be run from the noisy end of the clock to the clean one.

    Raises:
        ValueError: lam outside [0, 1].

    Source: Song et al. 2021, arXiv:2011.13456, eq. 6; the family in Zhang and Chen 2023,
        arXiv:2204.13902, eq. 6.
    """
    check_range("lam", lam, 0, 1)
    return Reverse(arrays.as_pytree(denoise), schedule, lam)


@arrays.pytree
class SigmaClock:
    """A schedule seen as variance exploding, its clock sigma / alpha; see `in_sigma_clock`."""

    base: Schedule

    @property
    def t_min(self):
        """Where the base's working range begins."""
        return _ratio(self.base(cleanest_time(self.base)))

    @property
    def t_max(self):
        """Where the base ends."""
        return _ratio(self.base(self.base.t_max))

    @property
    def prior_std(self):
        """The base's, of x / alpha."""
        return self.base.prior_std / self.base(self.base.t_max).alpha

    def __call__(self, t) -> NoiseLevel:
        """The level with sigma = t > 0."""
        t = wide_float(t)
        return NoiseLevel(t, jnp.ones_like(t), t)

    def time(self, log_snr) -> Array:
        """Sigma."""
        return jnp.exp(-0.5 * wide_float(log_snr))

    def coefficients(self, t) -> tuple[Array, Array]:
        """f = 0, g**2 = 2 t."""
        t = wide_float(t)
        return jnp.zeros_like(t), 2 * t


@arrays.pytree
class Unscaled:
    """A model asked for x / alpha at sigma / alpha; see `in_sigma_clock`."""

    denoise: Denoise
    base: Schedule

    def __call__(self, x_t: Array, level: NoiseLevel) -> Denoised:
        """The model's answer at the base's level of equal SNR: both estimates are the same."""
        own = self.base(self.base.time(level.log_snr))
        return self.denoise(expand_to(own.alpha, x_t) * x_t, own)


def in_sigma_clock(denoise: Denoise, schedule: Schedule) -> tuple[Unscaled, SigmaClock]:
    """The same model and schedule for x / alpha, on the clock sigma / alpha.

        x / alpha = x_0 + (sigma / alpha) eps

    Data, at alpha = 1, are the same in both. Flow, SDE and likelihood on the pair are those of
    the original. Fixed steps gain where alpha(t) and sigma(t) bend; an adaptive solver need not, as
    x / alpha is large at the noisy end (on a mixture under VP, 54 steps of Tsit5 for 35).

    Args:
        denoise: the model.
        schedule: the schedule, with signal left at its noisy end.

    Returns:
        (denoise, schedule) for whatever takes the two.

    Raises:
        ValueError: alpha = 0 at t_max: the clock never ends.

    Source: Karras et al. 2022, arXiv:2206.00364, section 4, eq. 4, where alpha is their s.
    """
    if not arrays.is_traced(schedule):
        level = schedule(schedule.t_max)
        if not bool(jnp.all(level.alpha > 0)):
            raise ValueError(
                "schedule must keep signal at t_max for the clock sigma / alpha, got alpha = 0 at"
                f" t = {float(jnp.max(level.t)):g} (zero terminal SNR)"
            )
    return Unscaled(arrays.as_pytree(denoise), schedule), SigmaClock(schedule)


def _ratio(level: NoiseLevel) -> Array:
    return level.sigma / level.alpha
