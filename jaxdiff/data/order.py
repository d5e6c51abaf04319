"""The order in which examples are dealt out: a function of (seed, place) alone.

The examples form one endless sequence: epoch 0 in an order drawn from (seed, 0), then epoch 1 in
an order drawn from (seed, 1), and so on.
"""

import functools

import numpy as np

__all__ = ["check_seed", "deal", "shuffled"]


def check_seed(seed: int) -> None:
    """Raises ValueError unless 0 <= seed < 2**63."""
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed must lie in 0 <= seed < 2**63, got {seed}")


def deal(seed: int, n: int, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The examples at places start .. start + count of the sequence.

    Args:
        seed: what the orders are drawn from.
        n: the number of examples.
        start: the first place, >= 0.
        count: how many places.

    Returns:
        Their numbers [count] in 0 .. n - 1, and a coin [count] for each, true or false.
    """
    parts = []
    place, end = start, start + count
    while place < end:
        epoch, first = divmod(place, n)
        last = min(n, first + end - place)
        parts.append([column[first:last] for column in shuffled(seed, epoch, n)])
        place += last - first
    index, coins = (np.concatenate(column) for column in zip(*parts, strict=True))
    return index, coins


@functools.lru_cache(maxsize=4)  # consecutive batches share an epoch or two
def shuffled(seed: int, epoch: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The order of n examples in one epoch, and a coin for each, from (seed, epoch).

    Sorting raw words of a counter-based generator rather than `Generator.permutation`: numpy
    promises the former to be the same in every version (NEP 19), so that resumed runs agree.
    Two equal words in 64 bits, which would favour the lower index, have chance n**2 / 2**65.
    """
    raw = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(2 * n)
    return np.argsort(raw[:n], kind="stable"), (raw[n:] & np.uint64(1)).astype(bool)
