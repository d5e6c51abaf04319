"""An exact model with the heads of networks whose reverse variance is optimal."""

from jax import Array

from jaxdiff import arrays
from jaxdiff.exact.mixture import GaussianMixture
from jaxdiff.typing import Denoised, NoiseLevel

__all__ = ["HeadedMixture", "with_heads"]


@arrays.pytree
class HeadedMixture:
    """See `with_heads`."""

    source: GaussianMixture

    def __call__(self, x_t: Array, level: NoiseLevel) -> Denoised:
        """The exact x_0 and eps, with the heads "eps2" and "residual2", [B, D] each."""
        d = self.source.denoise(x_t, level)
        heads = {
            "eps2": self.source.eps2(x_t, level),
            "residual2": self.source.residual2(x_t, level),
        }
        return Denoised(d.x0, d.eps, heads)


def with_heads(source: GaussianMixture) -> HeadedMixture:
    """The model of a mixture with exact heads, so that the variances "npr" and "sn" are optimal.

    Args:
        source: the data.

    Returns:
        A `Denoise`.

    Source: Bao et al. 2022, arXiv:2206.07309, theorems 1 and 2.
    """
    return HeadedMixture(source)
