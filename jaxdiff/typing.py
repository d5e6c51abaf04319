"""The nouns of the library: noise levels, grids, Gaussians, denoiser outputs, and the interfaces.

A Gaussian diffusion model is fixed by two numbers at each time,

    x_t = alpha x_0 + sigma eps,    eps ~ N(0, I),

so everything here is a function of one or two `NoiseLevel`s: `t` the noisier one, `s` the cleaner.

Not here: any formula beyond the signal-to-noise ratio (see `gaussian`, `schedules`, `reverse`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array

from jaxdiff import arrays

__all__ = [
    "CLEAN",
    "EVEN",
    "Covariance",
    "Denoise",
    "Denoised",
    "Grid",
    "NoiseLevel",
    "Normal",
    "ReverseVariance",
    "Sampler",
    "Schedule",
]


class NoiseLevel(NamedTuple):
    """The signal and noise scale of `x_t = alpha x_0 + sigma eps` at one time, or at many.

    Attributes:
        t: [], [B] or [K+1], the schedule's own clock; what a network is conditioned on.
        alpha: same shape, the signal scale (`alpha**2` is Ho et al.'s alpha-bar), >= 0.
        sigma: same shape, the noise scale, >= 0.
    """

    t: Array
    alpha: Array
    sigma: Array

    @property
    def snr(self) -> Array:
        """The signal-to-noise ratio (alpha / sigma)**2; infinite at a clean level."""
        return jnp.square(jnp.divide(self.alpha, self.sigma))

    @property
    def log_snr(self) -> Array:
        """2 (log alpha - log sigma), without forming the ratio; +-inf at the two ends."""
        return 2 * (jnp.log(self.alpha) - jnp.log(self.sigma))


CLEAN = NoiseLevel(t=0.0, alpha=1.0, sigma=0.0)
"""The level of data itself, on which most clocks end."""

EVEN = NoiseLevel(t=0.5, alpha=0.5**0.5, sigma=0.5**0.5)
"""As much noise as signal: a level at which every formula is finite."""


class Normal(NamedTuple):
    """A Gaussian with independent coordinates.

    Attributes:
        mean: [B, ...].
        var: the variance (never a log), broadcastable against `mean`: [B, 1, ...] or [B, ...].
    """

    mean: Array
    var: Array


class Denoised(NamedTuple):
    """What a model says of `x_t`, both ways at once: `x_t = alpha x0 + sigma eps` holds.

    Attributes:
        x0: [B, ...], the estimate of E[x_0 | x_t].
        eps: [B, ...], the estimate of E[eps | x_t].
        heads: further outputs by name: "log_var_fraction", "eps2", "residual2", and "eps_model",
            the network's own eps, where clipping or guidance changed it.
    """

    x0: Array
    eps: Array
    heads: dict[str, Array] = {}  # never mutated; a NamedTuple default is shared


Denoise = Callable[[Array, NoiseLevel], Denoised]
"""`denoise(x_t, level)` with x_t [B, ...] and level fields [] or [B]; any function will do."""


@runtime_checkable
class Schedule(Protocol):
    """A path of noise levels: a frozen pytree whose numeric fields are traced leaves.

    Attributes:
        t_min: the clean end of the clock (the least noise, where the clock never gets clean).
        t_max: the noisy end of the clock.
        prior_std: the deviation of the Gaussian that sampling starts from.
    """

    t_min: Any
    t_max: Any
    prior_std: Any

    def __call__(self, t) -> NoiseLevel:
        """The level at time `t`, of any shape."""
        ...

    def time(self, log_snr) -> Array:
        """The inverse: the time at which `log_snr` is reached, of any shape."""
        ...


@arrays.pytree
class Grid:
    """The levels that a sampler visits, noisiest first; K steps are K+1 levels.

    Attributes:
        levels: NoiseLevel with fields [K+1].
        schedule: the schedule they lie on, or None where they were given as numbers.
        prior_std: [], the deviation of x_T.
    """

    levels: NoiseLevel
    schedule: Schedule | None = None
    prior_std: Any = 1.0

    @property
    def num_steps(self) -> int:
        """K, one less than the number of levels."""
        return self.levels.t.shape[-1] - 1

    @property
    def pairs(self) -> tuple[NoiseLevel, NoiseLevel]:
        """(t, s): the levels that steps leave and those that they reach, fields [K]."""
        return (
            jax.tree.map(lambda a: a[:-1], self.levels),
            jax.tree.map(lambda a: a[1:], self.levels),
        )

    def between(self, t: NoiseLevel, s: NoiseLevel, fraction) -> NoiseLevel:
        """The level whose log-SNR lies `fraction` of the way from `t` to `s`.

            log_snr = (1 - fraction) log_snr_t + fraction log_snr_s

        On a schedule the clock is the schedule's inverse. Levels given as numbers have no path
        between them: log alpha is then linear in log sqrt(SNR / (1 + SNR)), which is exact for
        variance-preserving and for variance-exploding levels, and the clock is linear.

        Args:
            t: the noisier level, [] or [B], with alpha > 0.
            s: the cleaner one, of the same shape, with sigma > 0.
            fraction: [] or the same shape, in [0, 1].

        Returns:
            A NoiseLevel of the same shape.
        """
        log_snr = (1 - fraction) * t.log_snr + fraction * s.log_snr
        if self.schedule is not None:
            return self.schedule(self.schedule.time(log_snr))
        low, here, high = (jax.nn.log_sigmoid(v) / 2 for v in (t.log_snr, log_snr, s.log_snr))
        log_t, log_s = jnp.log(t.alpha), jnp.log(s.alpha)
        log_alpha = log_t + arrays.safe_divide(here - low, high - low) * (log_s - log_t)
        return NoiseLevel(
            t=(1 - fraction) * t.t + fraction * s.t,
            alpha=jnp.exp(log_alpha),
            sigma=jnp.exp(log_alpha - log_snr / 2),
        )

    def at(self, log_snr) -> NoiseLevel:
        """The level of a given log-SNR, [], that lies within the grid's own range.

        On a schedule by its inverse; of levels given as numbers, by `between` the two around it.
        """
        if self.schedule is not None:
            return self.schedule(self.schedule.time(log_snr))
        first, last = self.pairs
        k = jnp.sum(last.log_snr <= log_snr)
        # beyond the last noisy level there is none: stay on it
        k = jnp.minimum(k, jnp.maximum(jnp.sum(self.levels.sigma > 0) - 2, 0))
        t, s = (jax.tree.map(lambda a: a[k], level) for level in (first, last))
        s = NoiseLevel(*(jnp.where(s.sigma > 0, b, a) for a, b in zip(t, s, strict=True)))
        fraction = arrays.safe_divide(log_snr - t.log_snr, s.log_snr - t.log_snr)
        return self.between(t, s, fraction)


class Covariance(Protocol):
    """The diagonal of Cov[x_0 | x_t], as a model or a table has it: a frozen pytree.

    It may also have `check(levels)`, which raises ValueError before any compile where it has
    nothing to say of a noisy level.
    """

    def __call__(self, denoised: Denoised, level: NoiseLevel) -> Array:
        """The variances, [] or [B] or [B, ...], >= 0; `level` has fields [] or [B]."""
        ...


class ReverseVariance(Protocol):
    """Where the deviation of the reverse step p(x_s | x_t) comes from: a frozen pytree.

    It may also have `check(levels)`, as a `Covariance`.
    """

    def std(self, denoised: Denoised, *, t: NoiseLevel, s: NoiseLevel, eta) -> Array:
        """The deviation, [] or [B] or broadcastable against x_t; linear in eta where it can be."""
        ...


class Sampler(Protocol):
    """One step of an algorithm, as a frozen pytree whose hyperparameters are traced leaves.

    Attributes:
        noises: static, how many standard Gaussian draws a step uses; 0 if deterministic.

    A sampler may also have `check(grid)`, which raises ValueError before any compile if it
    cannot walk a concrete grid.
    """

    noises: int

    def init(self, x_T: Array, denoise: Denoise, grid: Grid) -> Any:
        """The memory before the first step: a pytree of fixed shapes, () if there is none."""
        ...

    def step(self, x, memory, denoise, noise, *, k, t, s, grid) -> tuple[Array, Any]:
        """From x at level `t` to (x at level `s`, memory), deterministic given `noise`.

        Args:
            x: [B, ...], the state at level t.
            memory: what `init` or the last step returned.
            denoise: the model.
            noise: [noises, B, ...], standard Gaussian.
            k: [], the index of the step, 0 at the noisiest.
            t, s: levels with fields []; sigma_t > 0 always, sigma_s may be 0.
            grid: the whole grid.
        """
        ...
