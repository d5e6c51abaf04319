"""Maximum mean discrepancy: how far two sets are apart, in the space of a kernel.

    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y)

Unbiased whatever the number of samples, hence also negative for like sets. With the polynomial
kernel it is the kernel distance KID, there over Inception features and averaged over subsets; all
pairs are used here, which has the same mean and less variance.

Source: Gretton et al. 2012, JMLR 13:723, lemma 6; Binkowski et al. 2018, arXiv:1801.01401, sec. 4.
"""

from collections.abc import Callable

import numpy as np

from jaxdiff.metrics import distances

__all__ = ["median_distance", "mmd2", "polynomial", "rbf"]

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""k(x [N, D], y [M, D]) -> [N, M], in float64."""


def polynomial(degree: int = 3, coef0: float = 1.0) -> Kernel:
    """The kernel of KID: k(x, y) = (x.y / D + coef0)^degree."""

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x @ y.T / x.shape[1] + coef0) ** degree

    return kernel


def rbf(bandwidth: float) -> Kernel:
    """The Gaussian kernel: k(x, y) = exp(-|x - y|^2 / (2 bandwidth^2)).

    Raises:
        ValueError: where the bandwidth is not positive.
    """
    if not bandwidth > 0:
        raise ValueError(f"bandwidth must be positive, got {bandwidth}")

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        squared = np.concatenate([block for _, block in distances.squared_distances(x, y)])
        return np.exp(squared / (-2 * bandwidth**2))

    return kernel


def median_distance(x: np.ndarray, *, at_most: int = 2000) -> float:
    """The median distance between different points, the customary bandwidth.

    Args:
        x: [N, D], N >= 2.
        at_most: with more points than this, evenly spaced ones are used.

    Returns:
        The median over pairs i < j.
    """
    x = distances.check_features(x, "x", least=2)
    some = x[np.unique(np.linspace(0, len(x) - 1, min(len(x), at_most)).astype(int))]
    table = np.concatenate([block for _, block in distances.squared_distances(some, some)])
    return float(np.median(np.sqrt(table[np.triu_indices(len(some), k=1)])))


def mmd2(x: np.ndarray, y: np.ndarray, kernel: Kernel) -> float:
    """The unbiased estimate of MMD^2 from all pairs.

    Args:
        x: [N, D], N >= 2.
        y: [M, D], M >= 2.
        kernel: `polynomial()`, `rbf(bandwidth)` or any function of that form.

    Returns:
        The estimate, negative at times.

    Raises:
        ValueError: where a set has fewer than 2 rows, or the widths differ.
    """
    x, y = distances.check_pair(x, y, least=2)
    x, y = x.astype(np.float64), y.astype(np.float64)
    n, m = len(x), len(y)
    cross = sum(kernel(x[rows], y).sum() for rows in distances.blocks(n, m))
    return float(_within(x, kernel) + _within(y, kernel) - 2 * cross / (n * m))


def _within(x: np.ndarray, kernel: Kernel) -> float:
    """The mean of k over pairs of different rows."""
    n, total = len(x), 0.0
    for rows in distances.blocks(n, n):
        table = kernel(x[rows], x)
        total += table.sum() - np.trace(table, offset=rows.start)
    return total / (n * (n - 1))
