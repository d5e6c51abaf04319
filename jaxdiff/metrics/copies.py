"""Whether a model repeats its training set: distances to the nearest training example.

Real examples that were held out say how near to the training set honest new ones fall.
"""

from typing import NamedTuple

import numpy as np

from jaxdiff.metrics import distances, errors
from jaxdiff.metrics.errors import Estimate

__all__ = ["Copies", "CopiesEstimate", "copies_estimate", "find_copies"]


class Copies(NamedTuple):
    """How near to the training set samples fall.

    Attributes:
        share: of the samples as near to a training example as `threshold`; a model that has
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

        share = mean_i [ min_j |s_i - x_j| <= threshold ]
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
    ours, theirs = _nearest(samples, train, heldout, quantile)
    threshold = np.quantile(theirs, quantile)
    return Copies(
        share=float(np.mean(ours <= threshold)),
        threshold=float(threshold),
        distance=float(np.median(ours)),
        heldout_distance=float(np.median(theirs)),
    )


class CopiesEstimate(NamedTuple):
    """What of `Copies` is compared, each with its standard error.

    Attributes:
        share: of copies among the samples.
        distance: the median from a sample to its nearest training example.
        heldout_distance: the same for held-out examples.
    """

    share: Estimate
    distance: Estimate
    heldout_distance: Estimate


def copies_estimate(
    samples: np.ndarray,
    train: np.ndarray,
    heldout: np.ndarray,
    *,
    quantile: float = 0.05,
    resamples: int = 50,
    seed: int = 0,
) -> CopiesEstimate:
    """`find_copies` with standard errors, by the bootstrap of samples and held-out examples.

    The training set is what the model was trained on and is not drawn again.

    Args:
        samples, train, heldout, quantile: as in `find_copies`, of 2 rows or more.
        resamples: how many.
        seed: of the draws.

    Returns:
        The three.

    Raises:
        ValueError: as `find_copies`, or resamples < 2.
    """
    ours, theirs = _nearest(samples, train, heldout, quantile)

    def share(i: np.ndarray, j: np.ndarray) -> float:
        return float(np.mean(ours[i] <= np.quantile(theirs[j], quantile)))

    def median(found: np.ndarray) -> Estimate:
        error = errors.bootstrap(
            lambda i: np.median(found[i]), len(found), resamples=resamples, seed=seed
        )
        return Estimate(float(np.median(found)), error)

    error = errors.bootstrap(share, len(ours), len(theirs), resamples=resamples, seed=seed)
    value = share(np.arange(len(ours)), np.arange(len(theirs)))
    return CopiesEstimate(Estimate(value, error), median(ours), median(theirs))


def _nearest(
    samples: np.ndarray, train: np.ndarray, heldout: np.ndarray, quantile: float
) -> tuple[np.ndarray, np.ndarray]:
    """The distances to the nearest training example: of samples, of held-out examples."""
    if not 0 < quantile < 1:
        raise ValueError(f"quantile must lie in (0, 1), got {quantile}")
    samples, train = distances.check_pair(samples, train)
    heldout, train = distances.check_pair(heldout, train)
    return distances.nearest(samples, train), distances.nearest(heldout, train)
