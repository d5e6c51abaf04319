"""Precision, recall, density, coverage: how much of each set lies on the manifold of the other.

The manifold of a set is the union of the balls about its points that reach to their k-th nearest
neighbour within the set, their surfaces included.

    precision = mean_i [ exists j: |s_i - r_j| <= d_k(r_j) ],      recall: s and r exchanged
    density   = mean_i #{ j: |s_i - r_j| <= d_k(r_j) } / k
    coverage  = mean_j [ exists i: |s_i - r_j| <= d_k(r_j) ]

One outlier among the real data makes a ball that lets anything pass for precise; density, which
counts balls, and coverage, which asks for each of them, bear it. For like distributions density
has mean 1, and coverage 1 - (M-1)...(M-k) / ((M+N-1)...(M+N-k)), whatever the distribution.

Source: Kynkaanniemi et al. 2019, arXiv:1904.06991, eq. 1-2, with their k = 3; Naeem et al. 2020,
arXiv:2002.09797, eq. 3-4 and theirs k = 5.
"""

from typing import NamedTuple

import numpy as np

from jaxdiff.metrics import distances, errors
from jaxdiff.metrics.errors import Estimate

__all__ = [
    "DensityCoverage",
    "ManifoldShares",
    "PrecisionRecall",
    "density_coverage",
    "manifold_shares",
    "precision_recall",
]


class PrecisionRecall(NamedTuple):
    """Shares in [0, 1].

    Attributes:
        precision: of the samples that lie on the manifold of the real data.
        recall: of the real data that lie on the manifold of the samples.
    """

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """How the samples fill the balls of the real data.

    Attributes:
        density: in how many balls a sample lies, over k; 1 for a perfect model, at times above.
        coverage: the share of balls, in [0, 1], that hold a sample.
    """

    density: float
    coverage: float


class ManifoldShares(NamedTuple):
    """All four, each with its standard error."""

    precision: Estimate
    recall: Estimate
    density: Estimate
    coverage: Estimate


def precision_recall(samples: np.ndarray, real: np.ndarray, *, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall; see the module.

    Args:
        samples: [N, D] features, N > k.
        real: [M, D] features, M > k. Both values rise with the size of the set that makes the
            manifold, so compare equal sizes.
        k: the neighbour that a ball reaches to, not counting its centre.

    Returns:
        The two shares.

    Raises:
        ValueError: where a set has no k + 1 rows, or the widths differ.
    """
    samples, real = distances.check_pair(samples, real)
    (on_real,), (on_samples,) = (
        _held(points, centres, _reaches(centres, (k,)))
        for points, centres in ((samples, real), (real, samples))
    )
    return PrecisionRecall(*(float(np.mean(held.balls > 0)) for held in (on_real, on_samples)))


def density_coverage(samples: np.ndarray, real: np.ndarray, *, k: int = 5) -> DensityCoverage:
    """Density and coverage; see the module.

    Args:
        samples: [N, D] features.
        real: [M, D] features, M > k.
        k: the neighbour that a ball reaches to. Coverage of a perfect model of N = M samples is
            near 1 - 2^-k: .97 for 5.

    Returns:
        The two.

    Raises:
        ValueError: where `real` has no k + 1 rows, or the widths differ.
    """
    samples, real = distances.check_pair(samples, real)
    (held,) = _held(samples, real, _reaches(real, (k,)))
    return DensityCoverage(float(np.mean(held.balls)) / k, float(np.mean(held.full)))


def manifold_shares(
    samples: np.ndarray,
    real: np.ndarray,
    *,
    k: int = 3,
    k_coverage: int = 5,
    resamples: int = 50,
    seed: int = 0,
) -> ManifoldShares:
    """Precision and recall, density and coverage, with their standard errors.

    Errors are by `errors.half_sampling` of both sets. Were the manifolds held fixed, the error of
    a mean of independent hits would be two to five times too small: all hits share the manifold,
    and one ball more or less moves many of them. Leaving out few points at a time makes it twice
    too large, since the k-th neighbour jumps. Half samples are right within a third on Gaussians
    of 2 to 32 dimensions; where a share is near 0 or 1, or hangs on one outlier, expect less.

    Args:
        samples: [N, D] features; N, and the M of `real`, at least twice the larger k + 1.
        real: [M, D] features.
        k: of precision and recall.
        k_coverage: of density and coverage.
        resamples: pairs of halves.
        seed: of the halves.

    Returns:
        The four.

    Raises:
        ValueError: where a set is too small, or the widths differ.
    """
    samples, real = distances.check_pair(samples, real)
    least = 2 * (max(k, k_coverage) + 1)
    for name, x in (("samples", samples), ("real", real)):
        if len(x) < least:
            raise ValueError(
                f"{name} must have at least {least} rows to halve for k = "
                f"{max(k, k_coverage)}, got {len(x)}"
            )

    def four(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        return _four(samples[rows], real[columns], k, k_coverage)

    error = errors.half_sampling(four, len(samples), len(real), resamples=resamples, seed=seed)
    value = _four(samples, real, k, k_coverage)
    return ManifoldShares(*map(Estimate, value.tolist(), error.tolist()))


def _four(samples: np.ndarray, real: np.ndarray, k: int, k_coverage: int) -> np.ndarray:
    on_real, filled = _held(samples, real, _reaches(real, (k, k_coverage)))
    (on_samples,) = _held(real, samples, _reaches(samples, (k,)))
    density = np.mean(filled.balls) / k_coverage
    precision, recall = np.mean(on_real.balls > 0), np.mean(on_samples.balls > 0)
    return np.array([precision, recall, density, np.mean(filled.full)])


def _reaches(centres: np.ndarray, ks: tuple[int, ...]) -> np.ndarray:
    """The squared radii of the balls, a row for each k: [K, M].

    A point on the surface belongs to its ball, so radii grow by what rounding may add to its
    distance: with |y| that of a centre and r its radius, |x|^2 + |y|^2 <= 3 |y|^2 + 2 r^2 there.
    """
    squared = distances.kth_neighbours(centres, ks)
    norm = np.empty(len(centres))
    mean = np.mean(centres, axis=0, dtype=np.float64)
    for rows, _ in distances.tiles(len(centres), 1, centres.shape[1]):
        norm[rows] = np.sum((centres[rows] - mean) ** 2, axis=1)
    return squared + distances.rounding(centres.shape[1]) * (3 * norm + 2 * squared)


class _Held(NamedTuple):
    """Which points [N] lie in which balls [M].

    Attributes:
        balls: [N], in how many balls each point lies.
        full: [M] bool, whether each ball holds a point.
    """

    balls: np.ndarray
    full: np.ndarray


def _held(points: np.ndarray, centres: np.ndarray, reaches: np.ndarray) -> list[_Held]:
    """The same for each row of squared radii [K, M], from one pass over all distances."""
    found = [_Held(np.zeros(len(points), int), np.zeros(len(centres), bool)) for _ in reaches]
    for rows, columns, squared in distances.squared_distances(points, centres):
        for held, reach in zip(found, reaches, strict=True):
            inside = squared <= reach[columns]
            held.balls[rows] += np.count_nonzero(inside, axis=1)
            held.full[columns] |= np.any(inside, axis=0)
    return found
