"""Maximum mean discrepancy: how far two sets are apart, in the space of a kernel.

    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y)

Unbiased whatever the number of samples, hence also negative for like sets. With the polynomial
kernel it is the kernel distance KID, published over Inception features as a mean over subsets
(`kid`); all pairs (`mmd2`) have the same mean and less variance.

Source: Gretton et al. 2012, JMLR 13:723, lemma 6; Binkowski et al. 2018, arXiv:1801.01401, sec. 4;
error: the jackknife of a U-statistic, Arvesen 1969, doi:10.1214/aoms/1177697287.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxdiff.metrics import distances
from jaxdiff.metrics.errors import Estimate

__all__ = ["KID", "Kernel", "kid", "median_distance", "mmd2", "mmd2_estimate", "polynomial", "rbf"]

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""k(x [N, D], y [M, D]) -> [N, M], in float64; asked for one tile of the table at a time."""


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
        squared = _all_distances(x, y)
        squared /= -2 * bandwidth**2
        return np.exp(squared, out=squared)

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
    if at_most < 2:
        raise ValueError(f"at_most must be at least 2, got {at_most}")
    some = x[np.unique(np.linspace(0, len(x) - 1, min(len(x), at_most)).astype(int))]
    table = _all_distances(some, some)
    return float(np.median(np.sqrt(table[np.triu_indices(len(some), k=1)])))


def _all_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The squared distances of few enough rows, whole: [N, M]."""
    table = np.empty((len(x), len(y)))
    for rows, columns, squared in distances.squared_distances(x, y):
        table[rows, columns] = squared
    return table


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
    return _value(_sums(x, y, kernel, least=2))


def mmd2_estimate(x: np.ndarray, y: np.ndarray, kernel: Kernel) -> Estimate:
    """`mmd2` with its standard error by the jackknife of both sets, from the same single pass.

        error^2 = sum over both sets of (n - 1) / n sum_i (u_i - mean u)^2,   u_i without example i

    Where the distributions are equal, the variance is of order 1 / n^2 and the error comes out
    too large, by a factor near sqrt(2). A bootstrap would count repeats as pairs of distance 0.

    Args:
        x: [N, D], N >= 3.
        y: [M, D], M >= 3.
        kernel: as in `mmd2`.

    Returns:
        The estimate and its error.

    Raises:
        ValueError: where a set has fewer than 3 rows, or the widths differ.
    """
    sums = _sums(x, y, kernel, least=3)
    cross = np.sum(sums.x_to_y) / (len(sums.x_to_y) * len(sums.y_to_x))
    var = sum(
        _jackknife_var(own, other / size, cross)
        for own, other, size in (
            (sums.x_to_x, sums.x_to_y, len(sums.y_to_x)),
            (sums.y_to_y, sums.y_to_x, len(sums.x_to_y)),
        )
    )
    return Estimate(_value(sums), float(np.sqrt(var)))


class _Sums(NamedTuple):
    """Sums of the kernel from each example to a set, without itself: [N], [N], [M], [M]."""

    x_to_x: np.ndarray
    x_to_y: np.ndarray
    y_to_y: np.ndarray
    y_to_x: np.ndarray


def _sums(x: np.ndarray, y: np.ndarray, kernel: Kernel, *, least: int) -> _Sums:
    x, y = distances.check_pair(x, y, least=least)
    x_to_y, y_to_x = np.zeros(len(x)), np.zeros(len(y))
    for rows, columns in distances.tiles(len(x), len(y), x.shape[1]):
        table = _ask(kernel, x[rows], y[columns])
        x_to_y[rows] += table.sum(axis=1)
        y_to_x[columns] += table.sum(axis=0)
    return _Sums(_sums_within(x, kernel), x_to_y, _sums_within(y, kernel), y_to_x)


def _sums_within(x: np.ndarray, kernel: Kernel) -> np.ndarray:
    total = np.zeros(len(x))
    for rows, columns in distances.tiles_within(len(x), x.shape[1]):
        table = _ask(kernel, x[rows], x[columns])
        if rows == columns:
            np.fill_diagonal(table, 0)
        else:
            total[columns] += table.sum(axis=0)
        total[rows] += table.sum(axis=1)
    return total


def _ask(kernel: Kernel, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    table = kernel(x.astype(np.float64), y.astype(np.float64))
    if np.shape(table) != (len(x), len(y)):
        raise ValueError(f"kernel must return {[len(x), len(y)]}, got {list(np.shape(table))}")
    return table


def _value(sums: _Sums) -> float:
    n, m = len(sums.x_to_x), len(sums.y_to_y)
    within = sums.x_to_x.sum() / (n * (n - 1)) + sums.y_to_y.sum() / (m * (m - 1))
    return float(within - 2 * sums.x_to_y.sum() / (n * m))


def _jackknife_var(own: np.ndarray, other: np.ndarray, cross: float) -> float:
    """From sums to the own set and means to the other one, [N] each."""
    n = len(own)
    left_out = (own.sum() - 2 * own) / ((n - 1) * (n - 2)) - 2 * (n * cross - other) / (n - 1)
    return (n - 1) / n * float(np.sum((left_out - left_out.mean()) ** 2))


class KID(NamedTuple):
    """The kernel distance over subsets.

    Attributes:
        value: the mean over subsets.
        spread: their deviation, which papers print after +-; it does not fall with the number
            of examples.
        error: spread sqrt(size / (n - size)), n of the smaller set: the standard error of the
            value. It is that of a mean over the n / size subsets without common examples, raised
            because random subsets have some, and so spread too little by sqrt(1 - size / n).
    """

    value: float
    spread: float
    error: float


def kid(
    x: np.ndarray,
    y: np.ndarray,
    *,
    kernel: Kernel | None = None,
    subsets: int = 100,
    size: int = 1000,
    seed: int = 0,
) -> KID:
    """The kernel distance as it is published: the mean of `mmd2` over random subsets of both sets.

    Args:
        x: [N, D].
        y: [M, D].
        kernel: `polynomial()` unless given.
        subsets: how many, >= 2, each drawn without repeats, from all examples anew.
        size: the examples of a subset, 2 <= size < N, M.
        seed: of the draws.

    Returns:
        The mean, the deviation, and the standard error.

    Raises:
        ValueError: naming the argument that does not fit.

    Source: Binkowski et al. 2018, arXiv:1801.01401, section 4, and its code's 100 subsets of 1,000.
    """
    x, y = distances.check_pair(x, y, least=2)
    n = min(len(x), len(y))
    if not 2 <= size < n:
        raise ValueError(f"size must be at least 2 and below {n}, the smaller set, got {size}")
    if subsets < 2:
        raise ValueError(f"subsets must be at least 2, got {subsets}")
    kernel, generator = kernel or polynomial(), np.random.default_rng(seed)
    found = [
        mmd2(*(z[generator.choice(len(z), size, replace=False)] for z in (x, y)), kernel)
        for _ in range(subsets)
    ]
    spread = float(np.std(found, ddof=1))
    return KID(float(np.mean(found)), spread, spread * float(np.sqrt(size / (n - size))))
