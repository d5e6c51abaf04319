"""Euclidean distances between two sets of features, in blocks, in float64 on the host.

    |x - y|^2 = |x - m|^2 + |y - m|^2 - 2 (x - m).(y - m),   m the mean of the y

is one matrix product, some fifty times faster than differences for long features. It cancels
where x is near y: about a common centre the loss is a rounding of the spread, not of the mean,
and what lies within that rounding of 0 is set to 0, so that a copy has distance 0 exactly.
"""

from collections.abc import Iterator

import numpy as np

__all__ = [
    "blocks",
    "check_features",
    "check_pair",
    "kth_neighbour",
    "nearest",
    "squared_distances",
]

BLOCK_ENTRIES = 2**24  # distances held at once: 128 MB in float64


def check_features(x: np.ndarray, name: str, *, least: int = 1) -> np.ndarray:
    """Features as [N, D] numpy with at least `least` rows, all finite.

    Raises:
        ValueError: naming `name`, what was given and what was wanted.
    """
    x = np.asarray(x)
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"{name} must be features [N, D], got shape {list(x.shape)}")
    if len(x) < least:
        raise ValueError(f"{name} must have at least {least} rows, got {len(x)}")
    if not np.isfinite(x).all():
        raise ValueError(f"{name} must be finite, got NaN or infinite values")
    return x


def check_pair(x: np.ndarray, y: np.ndarray, *, least: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of features of one width; see `check_features`."""
    x, y = check_features(x, "x", least=least), check_features(y, "y", least=least)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"features must have one width, got x {x.shape[1]} and y {y.shape[1]}")
    return x, y


def blocks(n: int, m: int) -> Iterator[slice]:
    """Row ranges of an [n, m] table that keep it within `BLOCK_ENTRIES`."""
    rows = max(1, BLOCK_ENTRIES // m)
    return (slice(start, min(start + rows, n)) for start in range(0, n, rows))


def squared_distances(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """The squared distances from x to y, a block of rows at a time.

    Args:
        x: [N, D].
        y: [M, D].

    Yields:
        (rows, [len(rows), M] float64): exactly 0 within the rounding of 0.
    """
    centre = np.mean(y, axis=0, dtype=np.float64)
    y = y - centre
    y_norm = np.einsum("md,md->m", y, y)
    rounding = 4 * y.shape[1] * np.finfo(np.float64).eps  # a bound on that of a dot product
    for rows in blocks(len(x), len(y)):
        part = x[rows] - centre
        scale = np.einsum("nd,nd->n", part, part)[:, None] + y_norm
        squared = scale - 2 * (part @ y.T)
        squared[squared <= rounding * scale] = 0
        yield rows, squared


def nearest(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The distance from each x to the nearest y: [N]."""
    found = [squared.min(axis=1) for _, squared in squared_distances(x, y)]
    return np.sqrt(np.concatenate(found))


def kth_neighbour(x: np.ndarray, k: int) -> np.ndarray:
    """The distance from each x to its k-th nearest other: [N].

    Raises:
        ValueError: where there are no k others.
    """
    if not 1 <= k < len(x):
        raise ValueError(f"k must lie in 1..{len(x) - 1} with {len(x)} points, got {k}")
    # each point is among its own neighbours, at 0, and so takes the first place
    found = [np.partition(squared, k, axis=1)[:, k] for _, squared in squared_distances(x, x)]
    return np.sqrt(np.concatenate(found))
