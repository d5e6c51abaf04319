"""Where the deviation of the reverse step comes from.

    small   l = eta sigma_s sqrt(1 - r)     exact if the data are one point
    large   eta sigma_t sqrt(1 - r)         exact (eta = 1) if the data are N(0, I), VP

Both are linear in eta, so that gradients by eta are finite at 0.
"""

from collections.abc import Callable

from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import safe_sqrt
from jaxdiff.gaussian import snr_drop
from jaxdiff.typing import Denoised, NoiseLevel, ReverseVariance

__all__ = ["VARIANCES", "large", "resolve", "small"]


@arrays.pytree
class Small:
    """beta-tilde; see `small`."""

    def std(self, denoised: Denoised, *, t: NoiseLevel, s: NoiseLevel, eta) -> Array:
        """Eta sigma_s sqrt(1 - r)."""
        return eta * s.sigma * safe_sqrt(snr_drop(t, s))


@arrays.pytree
class Large:
    """beta; see `large`."""

    def std(self, denoised: Denoised, *, t: NoiseLevel, s: NoiseLevel, eta) -> Array:
        """Eta sigma_t sqrt(1 - r)."""
        return eta * t.sigma * safe_sqrt(snr_drop(t, s))


def small() -> Small:
    """The variance of q(x_s | x_t, x_0), beta-tilde; the lower bound of the optimal one.

    Source: Ho et al. 2020, arXiv:2006.11239, section 3.2.
    """
    return Small()


def large() -> Large:
    """The variance of q(x_t | x_s), beta; with eta < 1 the deviation is eta times its root.

    With ddim(eta=1) this is the sigma-hat of the DDIM paper.

    Source: Ho et al. 2020, arXiv:2006.11239, section 3.2; Song et al. 2021, arXiv:2010.02502,
        section 5.
    """
    return Large()


VARIANCES: dict[str, Callable[[], ReverseVariance]] = {"small": small, "large": large}


def resolve(variance: ReverseVariance | Callable | str) -> ReverseVariance:
    """A variance from itself, its factory or its name.

    Raises:
        ValueError: an unknown name.
        TypeError: something else altogether.
    """
    return arrays.by_name("variance", variance, VARIANCES, kind="ReverseVariance", has="std")
