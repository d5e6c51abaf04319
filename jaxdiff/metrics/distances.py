"""Euclidean distances between two sets of features, in tiles, in float64 on the host.

    |x - y|^2 = |x - m|^2 + |y - m|^2 - 2 (x - m).(y - m),   m the mean of the y

is one matrix product, some fifty times faster than differences for long features. It cancels
where x is near y: about a common centre the loss is a rounding of the spread, not of the mean,

    error <= 4 D eps (|x - m|^2 + |y - m|^2),   eps = 2.2e-16,

and what lies within that bound of 0 is set to 0, so that a copy has distance 0 exactly.
A tile takes half a gigabyte at most, whatever the number of examples and features.
"""

from collections.abc import Iterator

import numpy as np

__all__ = [
    "check_features",
    "check_pair",
    "kth_neighbours",
    "nearest",
    "rounding",
    "squared_distances",
    "squared_distances_within",
    "tiles",
    "tiles_within",
]

TILE = 4096  # rows on each side of a tile: its distances are 128 MB
TILE_NUMBERS = 2**23  # features of each side of a tile: 64 MB


def check_features(x: np.ndarray, name: str, *, least: int = 1) -> np.ndarray:
    """Features as [N, D] numpy with at least `least` rows, all finite.

    Raises:
        ValueError: naming `name`, what was given and what was wanted.
    """
    x = np.asarray(x)
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"{name} must be features [N, D], got shape {list(x.shape)}")
    if x.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be real numbers, got {x.dtype}")
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


def tiles(n: int, m: int, width: int) -> Iterator[tuple[slice, slice]]:
    """(rows, columns) of an [n, m] table over features of that width, tile by tile."""
    return ((rows, columns) for rows in _cuts(n, width) for columns in _cuts(m, width))


def tiles_within(n: int, width: int) -> Iterator[tuple[slice, slice]]:
    """The tiles of a symmetric [n, n] table that lie on or above its diagonal."""
    return (tile for tile in tiles(n, n, width) if tile[0].start <= tile[1].start)


def _cuts(n: int, width: int) -> list[slice]:
    edge = max(1, min(TILE, TILE_NUMBERS // width))
    return [slice(start, min(start + edge, n)) for start in range(0, n, edge)]


def rounding(width: int) -> float:
    """The bound on the error of |x - y|^2, as a multiple of |x - m|^2 + |y - m|^2."""
    return 4 * width * np.finfo(np.float64).eps


def squared_distances(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """The squared distances from x to y, a tile at a time.

    Args:
        x: [N, D].
        y: [M, D].

    Yields:
        (rows, columns, float64 table of theirs): exactly 0 within the rounding of 0.
    """
    centre = np.mean(y, axis=0, dtype=np.float64)
    for rows, columns in tiles(len(x), len(y), x.shape[1]):
        yield rows, columns, _table(x[rows] - centre, y[columns] - centre)


def squared_distances_within(x: np.ndarray) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """The same from x to x: tiles on or above the diagonal; the others are their transposes."""
    centre = np.mean(x, axis=0, dtype=np.float64)
    for rows, columns in tiles_within(len(x), x.shape[1]):
        yield rows, columns, _table(x[rows] - centre, x[columns] - centre)


def _table(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """[n, m] of centred rows."""
    scale = np.einsum("nd,nd->n", x, x)[:, None] + np.einsum("md,md->m", y, y)
    squared = x @ y.T
    squared *= -2
    squared += scale
    scale *= rounding(x.shape[1])
    squared[squared <= scale] = 0
    return squared


def nearest(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The distance from each x to the nearest y: [N]."""
    found = np.full(len(x), np.inf)
    for rows, _, squared in squared_distances(x, y):
        found[rows] = np.minimum(found[rows], squared.min(axis=1))
    return np.sqrt(found)


def kth_neighbours(x: np.ndarray, ks: tuple[int, ...]) -> np.ndarray:
    """The squared distances from each x to its k-th nearest other, a row for each k: [K, N].

    Raises:
        ValueError: where there are no k others.
    """
    for k in ks:
        if not 1 <= k < len(x):
            raise ValueError(f"k must lie in 1..{len(x) - 1} with {len(x)} points, got {k}")
    # each point is among its own neighbours, at 0, and so takes the first place
    near = np.full((len(x), max(ks) + 1), np.inf)
    for rows, columns, squared in squared_distances_within(x):
        _keep_least(near[rows], squared)
        if rows != columns:
            _keep_least(near[columns], squared.T)
    return near.T[list(ks)]


def _keep_least(near: np.ndarray, more: np.ndarray) -> None:
    """Puts into the rows of `near` [n, c] the c least of what is there and in `more` [n, m]."""
    count = near.shape[1]
    if more.shape[1] > count:
        more = np.partition(more, count - 1, axis=1)[:, :count]
    near[:] = np.sort(np.concatenate([near, more], axis=1), axis=1)[:, :count]
