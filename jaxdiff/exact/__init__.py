"""Data whose diffusion is known exactly: Gaussians, their mixtures, and a finite set of examples.

Each is a `Denoise` with `score` and `log_prob` besides, and so serves as a model, as the truth of
a test, and as the least loss that any network can reach.
"""

from jaxdiff.exact.empirical import Empirical, empirical
from jaxdiff.exact.heads import HeadedMixture, with_heads
from jaxdiff.exact.mixture import GaussianMixture, gaussian, gaussian_mixture

__all__ = [
    "Empirical",
    "GaussianMixture",
    "HeadedMixture",
    "empirical",
    "gaussian",
    "gaussian_mixture",
    "with_heads",
]
