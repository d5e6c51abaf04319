"""Times of things that are run in turn, their ratios, and tables of them."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from rich.table import Table

__all__ = ["PATIENCE", "interleaved", "ratios", "spread", "table"]

PATIENCE = 2.5  # seconds


def interleaved(
    runs: dict[str, Callable[[], Any]], rounds: int, patience: float = PATIENCE
) -> dict[str, np.ndarray]:
    """Seconds of each, [rounds], taken in turn after one call that is not timed.

    So that a busy machine burdens all alike. Fewer rounds, but 3, where they take longer than
    `patience` seconds.
    """
    found: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        jax.block_until_ready(run())
    begin = time.perf_counter()
    for i in range(rounds):
        if i >= 3 and time.perf_counter() - begin > patience:
            break
        for name, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            found[name].append(time.perf_counter() - start)
    return {name: np.asarray(values) for name, values in found.items()}


def ratios(taken: np.ndarray, limit: np.ndarray) -> tuple[float, float, float]:
    """Median and quartiles of the ratio within a round."""
    low, middle, high = np.quantile(taken / limit, [0.25, 0.5, 0.75])
    return float(middle), float(low), float(high)


def spread(taken: np.ndarray, limit: np.ndarray) -> list[str]:
    """The same as two cells of a table."""
    middle, low, high = ratios(taken, limit)
    return [f"{middle:.3f}", f"{low:.3f}..{high:.3f}"]


def table(title: str, columns: list[str], rows: list[list[str]]) -> Table:
    """A table whose first column is words and the rest numbers."""
    made = Table(title=title)
    for i, column in enumerate(columns):
        made.add_column(column, justify="right" if i else "left")
    for row in rows:
        made.add_row(*row)
    return made
