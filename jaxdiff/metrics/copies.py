"""Whether a model repeats its training set: distances to the nearest training example.

Real examples that were held out say how near to the training set honest new ones fall.
"""

from typing import NamedTuple

import numpy as np

from jaxdiff.metrics import distances

__all__ = ["Copies", "find_copies"]


class Copies(NamedTuple):
    """How near to the training set samples fall.

    Attributes:
        share: of the samples nearer to a training example than `threshold`; a model that has
            learnt the distribution is at `quantile`, one that memorises near 1.
        threshold: the distance within which the nearest `quantile` of held-out examples fall.
        distance: the median distance from a sample to its nearest training example.
        heldout_distance: the same for held-out examples.
    """

    share: float
    threshold: float
    distance: float
    heldout_distance: float


def find_copies(
    samples: np.ndarray, train: np.ndarray, heldout: np.ndarray, *, quantile: float = 0.05
) -> Copies:
    """The share of samples nearer to a training example than held-out ones typically are.

        share = mean_i [ min_j |s_i - x_j| < threshold ]
        threshold = the `quantile` of min_j |h_i - x_j| over held-out h_i

    Args:
        samples: [N, D] features.
        train: [M, D] features of what the model was trained on.
        heldout: [L, D] features of real examples that it was not.
        quantile: how rare such nearness is among held-out examples, in (0, 1).

    Returns:
        The share, and the distances behind it.

    Raises:
        ValueError: where a set is empty, widths differ or the quantile is out of range.

    Source: in the spirit of Meehan et al. 2020, arXiv:2004.05675, whose test compares the same
        two sets of distances by ranks; a low quantile sees a few copies among many samples.
    """
    if not 0 < quantile < 1:
        raise ValueError(f"quantile must lie in (0, 1), got {quantile}")
    samples, train = distances.check_pair(samples, train)
    heldout, train = distances.check_pair(heldout, train)
    ours, theirs = distances.nearest(samples, train), distances.nearest(heldout, train)
    threshold = np.quantile(theirs, quantile)
    return Copies(
        share=float(np.mean(ours < threshold)),
        threshold=float(threshold),
        distance=float(np.median(ours)),
        heldout_distance=float(np.median(theirs)),
    )
