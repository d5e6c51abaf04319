"""Improved precision and recall: how much of each set lies on the manifold of the other.

The manifold of a set is the union of the balls about its points that reach to their k-th nearest
neighbour within the set.
"""

from typing import NamedTuple

import numpy as np

from jaxdiff.metrics import distances

__all__ = ["PrecisionRecall", "on_manifold", "precision_recall"]


class PrecisionRecall(NamedTuple):
    """Shares in [0, 1].

    Attributes:
        precision: of the samples that lie on the manifold of the real data.
        recall: of the real data that lie on the manifold of the samples.
    """

    precision: float
    recall: float


def precision_recall(samples: np.ndarray, real: np.ndarray, *, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall.

        precision = mean_i [ exists j: |s_i - r_j| <= d_k(r_j) ],   recall: s and r exchanged

    Args:
        samples: [N, D] features, N > k.
        real: [M, D] features, M > k. Both values rise with the size of the set that makes the
            manifold, so compare equal sizes.
        k: the neighbour that a ball reaches to, not counting its centre.

    Returns:
        The two shares.

    Raises:
        ValueError: where a set has no k + 1 rows, or the widths differ.

    Source: Kynkaanniemi et al. 2019, arXiv:1904.06991, eq. 1-2, with their k = 3.
    """
    samples, real = distances.check_pair(samples, real)
    return PrecisionRecall(
        precision=on_manifold(samples, real, k=k),
        recall=on_manifold(real, samples, k=k),
    )


def on_manifold(points: np.ndarray, centres: np.ndarray, *, k: int) -> float:
    """The share of `points` [N, D] that lie on the manifold of `centres` [M, D]."""
    reach = distances.kth_neighbour(centres, k) ** 2
    inside = [
        np.any(squared <= reach, axis=1)
        for _, squared in distances.squared_distances(points, centres)
    ]
    return float(np.mean(np.concatenate(inside)))
