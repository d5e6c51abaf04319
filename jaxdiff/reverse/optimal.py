"""The optimal variance of the reverse step, by where Cov[x_0 | x_t] comes from.

std**2 = l**2 + c**2 Cov[x_0 | x_t]
l = eta sigma_s sqrt(1 - r),    c = alpha_s - (alpha_t / sigma_t) sqrt(sigma_s**2 - l**2)

optimal    from any function
analytic   one number a level, from second moments of the model
npr, sn    each coordinate's own, from heads of the network
"""

from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import expand_to, safe_sqrt
from jaxdiff.gaussian import snr_drop
from jaxdiff.reverse.covariance import NPR, SN, Averaged, data_bound, table
from jaxdiff.reverse.moments import Moments
from jaxdiff.typing import Covariance, Denoised, NoiseLevel

__all__ = ["analytic", "bounds", "npr", "optimal", "sn", "step_coefficients"]


@arrays.pytree
class Optimal:
    """See `optimal`."""

    cov: Covariance

    def std(self, denoised: Denoised, *, t: NoiseLevel, s: NoiseLevel, eta) -> Array:
        """sqrt(l**2 + c**2 Cov), of the shape of Cov."""
        cov = self.cov(denoised, t)
        least, gain = step_coefficients(t, s, eta)
        if jnp.ndim(cov) > 1:
            least, gain = expand_to(least, cov), expand_to(gain, cov)
        return safe_sqrt(least**2 + gain**2 * cov)

    def check(self, levels: NoiseLevel) -> None:
        """Raises ValueError where the covariance has nothing to say of a noisy level."""
        if hasattr(self.cov, "check"):
            self.cov.check(levels)


def step_coefficients(t: NoiseLevel, s: NoiseLevel, eta: Any) -> tuple[Array, Array]:
    """l and c of equation (4), neither by a difference of neighbours.

    With q = sqrt(r) and kept = sigma_s k, c = alpha_s (1 - q k), and 1 - (q k)**2 is
    (1 - r) (1 + eta**2 r).

    Args:
        t, s: levels, fields [] or [B], sigma_t > 0.
        eta: [].

    Returns:
        (l, c), [] or [B].

    Source: Bao et al. 2022, arXiv:2201.06503, theorem 1, over x_0 instead of the score.
    """
    q = t.alpha * s.sigma / (s.alpha * t.sigma)
    drop = snr_drop(t, s)
    k = safe_sqrt((1 - eta) * (1 + eta) + (eta * q) ** 2)
    return eta * s.sigma * safe_sqrt(drop), s.alpha * drop * (1 + (eta * q) ** 2) / (1 + q * k)


def optimal(cov_x0: Covariance | Callable) -> Optimal:
    """The variance that makes the reverse step the best Gaussian one, for any eta.

        std**2 = l**2 + c**2 Cov[x_0 | x_t]

    At eta = 1, DDPM, c = alpha_s (1 - r); at eta = 0, DDIM, l = 0.

    Args:
        cov_x0: cov_x0(denoised, level) -> [], [B] or [B, ...]: the variance of each coordinate of
            x_0 given x_t, or its mean over coordinates. A pytree, or a plain function.

    Returns:
        A ReverseVariance.

    Raises:
        TypeError: not callable.

    Source: Bao et al. 2022, arXiv:2201.06503, theorem 1, over x_0 instead of the score.
    """
    return Optimal(arrays.as_pytree(cov_x0))


def analytic(
    gamma: Moments,
    *,
    by: Literal["eps", "x0", "residual"] = "eps",
    data_range: tuple[Any, Any] | None = None,
) -> Optimal:
    """Analytic-DPM: the optimal variance from second moments of the model, one number a level.

    Of the exact mean, the covariance is held between its bounds: 0, (sigma / alpha)**2, Var[x_0]
    where it is known, and ((high - low) / 2)**2 where the data's range is. So where Gamma is above
    1 / sigma**2, as that of a poor model may be, the variance is the small one. Of a mean that errs
    (by = "residual") nothing but the last is a bound.

    Args:
        gamma: `Moments`, from `second_moments` or `moments_of_gamma`.
        by: the estimator, see `Moments.cov`: "eps" is the paper's.
        data_range: (low, high), or None if unknown: nothing is assumed.

    Returns:
        A ReverseVariance, for every grid whose levels lie within those of the moments.

    Raises:
        TypeError: no Moments.
        ValueError: an unknown estimator, moments that are not finite or not in order, low >= high.

    Source: Bao et al. 2022, arXiv:2201.06503, theorems 1 and 2, eq. 8; Su 2022, kexue.fm article
        9245, for "x0". Their code holds the covariance to [0, 1], the range of images in [-1, 1].
    """
    if not isinstance(gamma, Moments):
        raise TypeError(
            "gamma must be Moments, from second_moments or moments_of_gamma, got"
            f" {type(gamma).__name__}"
        )
    levels = gamma.levels
    cov, _ = gamma.cov(by)
    most = data_bound(data_range)
    if jnp.ndim(most):
        raise ValueError(
            "data_range must be two numbers for a table of one number a level, got shape"
            f" {list(jnp.shape(most))}"
        )
    if by != "residual":
        whole = jnp.inf if gamma.spread is None else gamma.spread.mean
        most = jnp.minimum(most, whole)
        cov = jnp.minimum(cov, (levels.sigma / levels.alpha) ** 2)
    _check_signal(cov, most)
    return optimal(table(levels, jnp.clip(cov, 0, most), most=most))


def _check_signal(cov: Array, most: Any) -> None:
    numbers, bound = arrays.concrete(cov), arrays.concrete(most)
    if numbers is None or bound is None:
        return
    if np.isposinf(numbers).any() and np.isinf(bound).any():
        raise ValueError(
            "by must be x0 or residual, or data_range given, where a level has alpha = 0 (zero"
            " terminal SNR), of which Gamma says nothing"
        )


def npr(*, data_range: tuple[Any, Any] | None = None, average: bool = False) -> Optimal:
    """NPR-DPM: the optimal variance for the mean that the model has, by its head "residual2".

        Cov = (sigma / alpha)**2 g,    g fitted to (eps - eps_hat)**2

    Args:
        data_range: (low, high), by which Cov is held in [0, ((high - low) / 2)**2]; None for 0
            alone. The paper's code holds it to [0, 1], that of images in [-1, 1].
        average: static, whether the mean over coordinates is taken for each.

    Returns:
        A ReverseVariance.

    Raises:
        ValueError: low >= high.

    Source: Bao et al. 2022, arXiv:2206.07309, section 4.
    """
    return _by_head(NPR(data_bound(data_range)), average)


def sn(*, data_range: tuple[Any, Any] | None = None, average: bool = False) -> Optimal:
    """SN-DPM: the optimal variance of the exact mean, by the head "eps2" for the square of noise.

        Cov = (sigma / alpha)**2 (h - eps_hat**2),    h fitted to eps**2

    Where the difference is negative, Cov is 0 and the variance the small one.

    Args:
        data_range, average: as for `npr`.

    Returns:
        A ReverseVariance.

    Raises:
        ValueError: low >= high.

    Source: Bao et al. 2022, arXiv:2206.07309, section 3.
    """
    return _by_head(SN(data_bound(data_range)), average)


def _by_head(cov: Covariance, average: bool) -> Optimal:
    return Optimal(Averaged(cov) if average else cov)


def bounds(
    t: NoiseLevel, s: NoiseLevel, *, eta: Any = 1.0, data_range: tuple[Any, Any] | None = None
) -> tuple[Array, Array]:
    """Between what the optimal variance of a step lies, averaged over coordinates and data.

        l**2  <=  std**2  <=  l**2 + c**2 min((sigma_t / alpha_t)**2, ((high - low) / 2)**2)

    Args:
        t, s: levels, fields [] or [B], sigma_t > 0.
        eta: [].
        data_range: (low, high) of the data, None if unknown.

    Returns:
        (low, high), [] or [B]; inf where nothing bounds it.

    Source: Bao et al. 2022, arXiv:2201.06503, theorem 2.
    """
    least, gain = step_coefficients(t, s, eta)
    most = jnp.minimum((t.sigma / t.alpha) ** 2, data_bound(data_range))
    return least**2, least**2 + gain**2 * most
