"""How sure a number is: three ways to a standard error, each for the statistics that it suits.

    bootstrap       examples drawn again with repeats: for smooth functions of a set, such as
                    moments, shares of classes and quantiles
    half_sampling   the same statistic of two halves that share no example: for what looks at
                    nearest neighbours, where a repeat would be a neighbour at distance 0
    jackknife       in closed form, for means over pairs: see `mmd`

All sets are drawn again, so that an error is that of the distance between two distributions, of
which both sets are samples. Only the deviation is used, not the percentiles: resampled sets are
poorer than the set itself, so that a biased statistic (a Frechet distance) is more biased on them
and their percentiles lie beside the value; their deviation is hardly touched.

Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, ch. 6; McCarthy 1969,
doi:10.2307/1402044 (half-samples).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.stats

__all__ = ["Estimate", "bootstrap", "check_resamples", "half_sampling"]

AT_MOST = 2500  # rows of a half: the work is then bounded, and the error known by 1 / sqrt(n)


class Estimate(NamedTuple):
    """A value and its standard error."""

    value: float
    error: float


def check_resamples(resamples: int, name: str = "resamples") -> None:
    """Raises ValueError unless a deviation can be taken over so many."""
    if resamples < 2 or resamples != int(resamples):
        raise ValueError(f"{name} must be a whole number of at least 2, got {resamples}")


def bootstrap(
    statistic: Callable[..., float], *sizes: int, resamples: int = 50, seed: int = 0
) -> float:
    """The deviation of a statistic over sets drawn again from the sets themselves.

    Args:
        statistic: takes one array of row numbers [n_i] a set, with repeats.
        sizes: n_i, how many rows each set has, at least 2.
        resamples: how often; r of them know the error to 1 / sqrt(2 r), 10 % for 50.
        seed: of the draws.

    Returns:
        The standard error.

    Raises:
        ValueError: fewer than 2 resamples or rows.
    """
    check_resamples(resamples)
    if min(sizes) < 2:
        raise ValueError(f"sets must have at least 2 rows, got {min(sizes)}")
    found = scipy.stats.bootstrap(
        [np.arange(n) for n in sizes],
        statistic,
        n_resamples=resamples,
        batch=1,
        vectorized=False,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(found.standard_error)


def half_sampling(
    statistic: Callable[..., Any],
    *sizes: int,
    resamples: int = 50,
    seed: int = 0,
    at_most: int = AT_MOST,
) -> np.ndarray:
    """The error of a statistic from what it is on two halves, b of n rows each, without repeats.

        error^2 = mean (theta - theta')^2 / 2 * b / n

    exact where the variance falls as 1 / n; a bias is the same in both halves and leaves no
    trace. The more b / n is below 1/2, the more this rests on the law.

    Args:
        statistic: takes one array of different row numbers a set; returns a number or an array.
        sizes: how many rows each set has; every set is cut by the same b / n.
        resamples: how many pairs of halves.
        seed: of the draws.
        at_most: the largest b; with larger sets two parts of this size stand for two halves.

    Returns:
        Standard errors, shaped as the statistic.

    Raises:
        ValueError: fewer than 2 resamples.
    """
    check_resamples(resamples)
    generator = np.random.default_rng(seed)
    fraction = min(0.5, at_most / max(sizes))
    parts = [int(n * fraction) for n in sizes]
    squares = []
    for _ in range(resamples):
        orders = [generator.permutation(n) for n in sizes]
        one = statistic(*(order[:b] for order, b in zip(orders, parts, strict=True)))
        other = statistic(*(order[b : 2 * b] for order, b in zip(orders, parts, strict=True)))
        squares.append(np.square(np.subtract(one, other)))
    return np.sqrt(np.mean(squares, axis=0) / 2 * fraction)
