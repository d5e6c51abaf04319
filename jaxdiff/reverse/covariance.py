"""Cov[x_0 | x_t] of equation (4): from a table over the levels, or from heads of the network.

    analytic    one number a level, an average over data          Bao et al. 2022a
    npr         (sigma / alpha)**2 g,  g = E[(eps - eps_hat)**2 | x_t]     Bao et al. 2022b
    sn          (sigma / alpha)**2 (h - eps_hat**2),  h = E[eps**2 | x_t]  Bao et al. 2022b

NPR's g is the error of the mean that the model has, SN's difference that of the exact mean: with
eps_hat = E[eps | x_t] + b the first grows by b**2, the second falls by b**2 + 2 b E[eps | x_t].

Each is a frozen pytree called with (denoised, level), and may have `check(levels)`, which raises
ValueError before any compile where it has nothing to say of a level.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import event_mean, expand_to, safe_divide
from jaxdiff.typing import Covariance, Denoised, NoiseLevel

__all__ = ["NPR", "SN", "Averaged", "Table", "data_bound", "head", "table"]

_FAR = 40.0  # log SNR is held within +-40, so that alpha = 0 and sigma = 0 are places on its axis
_MARGIN = 1.0  # in log SNR: how far beyond its ends a table still answers


@arrays.pytree
class Table:
    """A number for each level, linear between them; see `table`.

    What is held, and is linear in log SNR, is cov (alpha**2 + sigma**2) / sigma**2: the variance of
    eps at the clean end, that of x_0 at the noisy end, and finite at both.

    Attributes:
        log_snr: [N], rising.
        scaled: [N].
        most: [], the largest answer, inf for none.
    """

    log_snr: Array
    scaled: Array
    most: Any

    def __call__(self, denoised: Denoised, level: NoiseLevel) -> Array:
        """The covariance, [] or [B] as the level's fields."""
        place = jnp.asarray(_place(level))
        knots, held, most = (
            jnp.asarray(a, place.dtype) for a in (self.log_snr, self.scaled, self.most)
        )
        return jnp.minimum(_noise_share(level) * jnp.interp(place, knots, held), most)

    def check(self, levels: NoiseLevel) -> None:
        """Raises ValueError where noisy levels lie beyond those of the table."""
        if arrays.is_traced((self.log_snr, levels)):
            return
        sigma = np.asarray(levels.sigma)
        asked, held = np.asarray(_place(levels))[sigma > 0], np.asarray(self.log_snr)
        if not asked.size or held.ndim != 1:
            return
        if asked.min() < held[0] - _MARGIN or asked.max() > held[-1] + _MARGIN:
            raise ValueError(
                f"the table of variances must reach over the grid, whose log SNR goes from"
                f" {asked.min():.3g} to {asked.max():.3g}, got one from {held[0]:.3g} to"
                f" {held[-1]:.3g}"
            )


def table(levels: NoiseLevel, cov: Any, *, most: Any = np.inf) -> Table:
    """Cov[x_0 | x_t] as one number a level.

    Args:
        levels: fields [N], noisiest first, sigma > 0.
        cov: [N], >= 0, the mean variance of a coordinate of x_0 given x_t.
        most: [], the largest answer.

    Returns:
        A Table, for `optimal`.

    Raises:
        ValueError: other shapes, levels that do not rise in SNR or are clean, or numbers that are
            not finite or negative.
    """
    cov = arrays.wide_float(cov)
    levels = NoiseLevel(*(arrays.wide_float(a) for a in levels))
    if cov.ndim != 1 or any(jnp.shape(a) != cov.shape for a in levels):
        raise ValueError(
            f"cov must be [N] with levels of [N] each, got {list(cov.shape)} and levels of"
            f" {list(jnp.shape(levels.t))}"
        )
    place = _place(levels)
    arrays.check_range("cov", cov, 0, np.inf, "[)")
    arrays.check_range("levels.sigma", levels.sigma, 0, np.inf, "()")
    numbers = arrays.concrete(place)
    if numbers is not None and np.any(np.diff(numbers) <= 0):
        raise ValueError("levels must be noisiest first, their SNR rising")
    return Table(place, cov / _noise_share(levels), most)


@arrays.pytree
class NPR:
    """The head "residual2" as a covariance; `npr` makes a variance of it."""

    most: Any

    def __call__(self, denoised: Denoised, level: NoiseLevel) -> Array:
        """(sigma / alpha)**2 g, held in [0, most], [B, ...]."""
        return _of_noise(head(denoised, "residual2", "npr"), level, self.most)

    def check(self, levels: NoiseLevel) -> None:
        """Raises ValueError where alpha = 0 leaves no bound on x_0."""
        _check_signal(levels, self.most)


@arrays.pytree
class SN:
    """The head "eps2" less the square of the model's own eps; `sn` makes a variance of it."""

    most: Any

    def __call__(self, denoised: Denoised, level: NoiseLevel) -> Array:
        """(sigma / alpha)**2 (h - eps_hat**2), held in [0, most], [B, ...]."""
        own = denoised.heads.get("eps_model", denoised.eps)
        return _of_noise(head(denoised, "eps2", "sn") - own**2, level, self.most)

    def check(self, levels: NoiseLevel) -> None:
        """Raises ValueError where alpha = 0 leaves no bound on x_0."""
        _check_signal(levels, self.most)


@arrays.pytree
class Averaged:
    """A covariance as its mean over the coordinates of each example, [B]."""

    cov: Covariance

    def __call__(self, denoised: Denoised, level: NoiseLevel) -> Array:
        """The mean over all axes but the first."""
        return event_mean(self.cov(denoised, level))

    def check(self, levels: NoiseLevel) -> None:
        """That of the covariance itself."""
        if hasattr(self.cov, "check"):
            self.cov.check(levels)


def data_bound(data_range: tuple[Any, Any] | None) -> Any:
    """((high - low) / 2)**2, the largest variance of a number in [low, high]; inf if unknown.

    Raises:
        ValueError: no pair, or low >= high.

    Source: Popoviciu's inequality, by which Bao et al. 2022, arXiv:2201.06503, theorem 2, bound.
    """
    if data_range is None:
        return np.inf
    if not isinstance(data_range, tuple | list | np.ndarray) or len(data_range) != 2:
        raise ValueError(f"data_range must be (low, high) or None, got {data_range!r}")
    low, high = data_range
    top = arrays.concrete(high)
    if top is not None:
        arrays.check_range("data_range[1]", high, -np.inf, np.inf, "(]")
        arrays.check_range("data_range[0]", low, -np.inf, float(np.min(top)), "()")
    return ((high - low) / 2) ** 2


def _place(level: NoiseLevel) -> Array:
    return jnp.clip(level.log_snr, -_FAR, _FAR)


def _noise_share(level: NoiseLevel) -> Array:
    """sigma**2 / (alpha**2 + sigma**2)."""
    return level.sigma**2 / (level.alpha**2 + level.sigma**2)


def _of_noise(var_eps: Array, level: NoiseLevel, most: Any) -> Array:
    """The variance of x_0 from that of eps, [B, ...]."""
    ratio = expand_to(safe_divide(level.sigma, level.alpha) ** 2, var_eps)
    most = jnp.asarray(most, var_eps.dtype)
    return jnp.clip(jnp.where(expand_to(level.alpha, var_eps) > 0, ratio * var_eps, most), 0, most)


def head(denoised: Denoised, name: str, variance: str) -> Array:
    """A head of the model in the dtype of its x_0, [B, ...].

    Raises:
        ValueError: the model has no such head, or one of another shape than x_0.
    """
    if name not in denoised.heads:
        known = ", ".join(sorted(denoised.heads)) or "none"
        raise ValueError(
            f"variance {variance} needs a model with the head {name!r}, got one with {known}"
        )
    found, wanted = denoised.heads[name], denoised.x0.shape
    if found.shape != wanted:
        raise ValueError(f"head {name!r} must be {list(wanted)} as x0, got {list(found.shape)}")
    return found.astype(denoised.x0.dtype)


def _check_signal(levels: NoiseLevel, most: Any) -> None:
    alpha, bound = arrays.concrete(levels.alpha), arrays.concrete(most)
    if alpha is None or bound is None:
        return
    if np.any((alpha == 0) & (np.asarray(levels.sigma) > 0)) and np.isinf(bound).any():
        raise ValueError(
            "data_range must be given where a level has alpha = 0, of which the variance of eps"
            " says nothing, got None"
        )
