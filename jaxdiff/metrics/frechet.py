"""The Frechet distance between Gaussians fitted to two sets of features.

    d^2 = |m_x - m_y|^2 + tr C_x + tr C_y - 2 tr (C_x^(1/2) C_y C_x^(1/2))^(1/2)

It is d^2 that is reported, as everywhere in the field. It is biased: with n samples it is too
large by a term of order 1/n, so compare only figures of equal n, and use all samples there are.

Source: Dowson and Landau 1982, doi:10.1016/0047-259X(82)90077-X; as a score of generators Heusel
et al. 2017, arXiv:1706.08500, eq. 6; bias: Chong and Forsyth 2020, arXiv:1911.07023.
"""

from typing import NamedTuple

import numpy as np
import scipy.linalg

from jaxdiff.metrics import distances

__all__ = ["Moments", "frechet_distance", "frechet_from_moments", "moments"]

BLOCK_ROWS = 4096


class Moments(NamedTuple):
    """What a Gaussian fit keeps of n features.

    Attributes:
        mean: [D] float64.
        cov: [D, D] float64, with the unbiased divisor n - 1.
        n: how many features.
    """

    mean: np.ndarray
    cov: np.ndarray
    n: int


def moments(features: np.ndarray) -> Moments:
    """The mean and covariance of features [N, D], N >= 2, in float64."""
    features = distances.check_features(features, "features", least=2)
    n, width = features.shape
    mean = np.mean(features, axis=0, dtype=np.float64)
    scatter = np.zeros((width, width))
    for start in range(0, n, BLOCK_ROWS):
        centred = features[start : start + BLOCK_ROWS] - mean
        scatter += centred.T @ centred
    return Moments(mean, scatter / (n - 1), n)


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """The squared Frechet distance between Gaussian fits of two sets of features.

    Args:
        x: [N, D].
        y: [M, D].

    Returns:
        d^2 >= 0 of the module's formula.

    Raises:
        ValueError: where a set has fewer than 2 rows, or the widths differ.
    """
    x, y = distances.check_pair(x, y, least=2)
    return frechet_from_moments(moments(x), moments(y))


def frechet_from_moments(x: Moments, y: Moments) -> float:
    """The squared Frechet distance between two Gaussians, in the units of the features squared.

    With symmetric roots R_x R_x = C_x and R_y R_y = C_y the last trace is the sum of the singular
    values of R_x R_y. Unlike the usual root of the product C_x C_y this needs no root of a matrix
    that is not symmetric, and singular covariances (N <= D) need no added diagonal.

    Args:
        x, y: moments of one width; covariances may be singular.

    Returns:
        d^2 >= 0.

    Raises:
        ValueError: where shapes differ or a covariance is not positive semi-definite.
    """
    if x.mean.shape != y.mean.shape:
        raise ValueError(f"moments must have one width, got {x.mean.shape} and {y.mean.shape}")
    shift = np.sum((x.mean - y.mean) ** 2)
    overlap = np.sum(scipy.linalg.svdvals(_root(x.cov, "x.cov") @ _root(y.cov, "y.cov")))
    squared = shift + np.trace(x.cov) + np.trace(y.cov) - 2 * overlap
    return max(float(squared), 0.0)  # equal Gaussians leave a rounding of either sign


def _root(cov: np.ndarray, name: str) -> np.ndarray:
    """The symmetric root; eigenvalues within rounding of 0 count as 0, not as their root 1e-8."""
    cov = np.asarray(cov, np.float64)
    values, vectors = scipy.linalg.eigh(cov)
    top = np.max(np.abs(values))
    if values[0] < -1e-6 * top:  # what float32 accumulation leaves; more is no covariance
        raise ValueError(f"{name} must be positive semi-definite, got eigenvalue {values[0]:g}")
    rounding = top * len(cov) * np.finfo(np.float64).eps
    values = np.where(values > rounding, values, 0)
    return (vectors * np.sqrt(values)) @ vectors.T
