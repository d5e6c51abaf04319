"""What classes say: whether all are drawn, in the shares of the data, clearly, and as asked.

    distance of shares    d = 1/2 sum_c |p_c - q_c|, the total variation
    Inception score       exp mean_i KL( p(y | x_i) | mean_j p(y | x_j) ), 1..C

The score is Inception's only if the probabilities are. Both are biased: with n examples the
distance of equal shares is of order sqrt(C / n), and the score is too small by some C / (2 n).

Source: Salimans et al. 2016, arXiv:1606.03498, section 4 (there a mean over ten splits; here of
all examples, with its error by the bootstrap).
"""

from typing import Any

import numpy as np
import scipy.special

from jaxdiff.metrics import errors
from jaxdiff.metrics.errors import Estimate

__all__ = [
    "agreement",
    "class_distance",
    "class_distance_estimate",
    "inception_estimate",
    "inception_score",
]

SUM_TOLERANCE = 1e-3  # of probabilities in half precision; what is no distribution is further off


def class_distance(x: Any, y: Any) -> float:
    """The total variation between the class shares of two sets.

    Args:
        x: [N] whole numbers >= 0, the class of each example, given or predicted.
        y: [M], the same.

    Returns:
        d in [0, 1].

    Raises:
        ValueError: where a set is empty or holds no classes.
    """
    return _total_variation(*_ranked(x, y))


def class_distance_estimate(x: Any, y: Any, *, resamples: int = 50, seed: int = 0) -> Estimate:
    """`class_distance` with its standard error, by the bootstrap of both sets."""
    x, y, count = _ranked(x, y)
    error = errors.bootstrap(
        lambda i, j: _total_variation(x[i], y[j], count),
        len(x),
        len(y),
        resamples=resamples,
        seed=seed,
    )
    return Estimate(_total_variation(x, y, count), error)


def _ranked(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray, int]:
    """The labels as places among those that occur, and their number: any size and type will do."""
    x, y = check_labels(x, "x"), check_labels(y, "y")
    found, places = np.unique(np.concatenate([x, y]), return_inverse=True)
    return places[: len(x)], places[len(x) :], len(found)


def _total_variation(x: np.ndarray, y: np.ndarray, count: int) -> float:
    p, q = (np.bincount(z, minlength=count) / len(z) for z in (x, y))
    return float(np.sum(np.abs(p - q)) / 2)


def inception_score(probabilities: Any) -> float:
    """The exponential of the mean divergence of p(y | x) from its own mean.

    Args:
        probabilities: [N, C], rows that sum to 1: a classifier's of each sample.

    Returns:
        1 where all rows are alike, C where they are certain and every class is as frequent.

    Raises:
        ValueError: where rows are no probabilities.
    """
    p = check_probabilities(probabilities)
    return _score(p, _information(p))


def inception_estimate(probabilities: Any, *, resamples: int = 50, seed: int = 0) -> Estimate:
    """`inception_score` with its standard error, by the bootstrap."""
    p = check_probabilities(probabilities)
    own = _information(p)
    error = errors.bootstrap(lambda i: _score(p[i], own[i]), len(p), resamples=resamples, seed=seed)
    return Estimate(_score(p, own), error)


def _information(p: np.ndarray) -> np.ndarray:
    """sum_c p log p of each row, at most 0."""
    return -np.sum(scipy.special.entr(p), axis=1)


def _score(p: np.ndarray, own: np.ndarray) -> float:
    mean = np.mean(p, axis=0)
    return float(np.exp(np.mean(own) + np.sum(scipy.special.entr(mean))))


def agreement(predicted: Any, asked: Any) -> Estimate:
    """The share of examples whose predicted class is the one that was asked for.

    Args:
        predicted: [N] classes.
        asked: [N] classes.

    Returns:
        The share, and the standard error of a mean.

    Raises:
        ValueError: where lengths differ or there are fewer than 2.
    """
    predicted, asked = check_labels(predicted, "predicted"), check_labels(asked, "asked")
    if len(predicted) != len(asked):
        raise ValueError(f"asked must be {len(predicted)}, one class an example, got {len(asked)}")
    if len(asked) < 2:
        raise ValueError(f"asked must have at least 2 rows, got {len(asked)}")
    right = predicted == asked
    return Estimate(float(np.mean(right)), float(np.std(right, ddof=1) / np.sqrt(len(right))))


def check_labels(labels: Any, name: str) -> np.ndarray:
    """Classes as [N] whole numbers >= 0, N >= 1.

    Raises:
        ValueError: naming `name`, what was given and what was wanted.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or len(labels) == 0:
        raise ValueError(f"{name} must be classes [N], got shape {list(labels.shape)}")
    if labels.dtype.kind not in "iu":
        raise ValueError(f"{name} must be whole numbers, got {labels.dtype}")
    if labels.min() < 0:
        raise ValueError(f"{name} must be classes >= 0, got {labels.min()}")
    return labels


def check_probabilities(probabilities: Any) -> np.ndarray:
    """Probabilities as [N, C] float64 whose rows sum to 1 exactly.

    Raises:
        ValueError: where one is negative or a sum differs from 1 by more than rounding.
    """
    p = np.asarray(probabilities, np.float64)
    if p.ndim != 2 or len(p) == 0 or p.shape[1] < 2:
        raise ValueError(f"probabilities must be [N, C] with C >= 2, got shape {list(p.shape)}")
    if not np.isfinite(p).all() or p.min() < 0:
        raise ValueError("probabilities must be finite and not negative")
    total = p.sum(axis=1)
    wrong = np.abs(total - 1) > SUM_TOLERANCE
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(f"probabilities must sum to 1, got {total[row]:g} in row {row}")
    return p / total[:, None]
