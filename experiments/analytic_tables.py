"""The two tables of analytic_dpm.py: likelihoods and samples, as rows and as they are printed."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import records
from timing import table

__all__ = [
    "Bits",
    "Distance",
    "MeanDistance",
    "bits_rows",
    "distance_rows",
    "known_distances",
    "mean",
    "over_seeds",
]


class Bits(NamedTuple):
    """One cell of the table of likelihoods."""

    path: str
    variance: str
    steps: int
    bits: float
    error: float
    gain: float
    gain_error: float


class Distance(NamedTuple):
    """One seed of a cell of the table of samples."""

    forward: str
    path: str
    variance: str
    steps: int
    seed: int
    distance: float


class MeanDistance(NamedTuple):
    """One cell of the table of samples: the mean over seeds, its error, NaN of one seed."""

    forward: str
    path: str
    variance: str
    steps: int
    seeds: int
    distance: float
    error: float


def mean(values: np.ndarray) -> tuple[float, float]:
    """With its standard error, NaN of one value."""
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return float(np.mean(values)), float(error)


def known_distances(path: Path) -> list[Distance]:
    """The rows of a table of samples that is there already."""
    rows = records.read(path) if path.exists() else []
    typed = Distance.__annotations__
    return [Distance(*(typed[name](r[name]) for name in Distance._fields)) for r in rows]


def bits_rows(rows: list[Bits]) -> Any:
    """The table of likelihoods: K across, variances down."""
    counts = sorted({r.steps for r in rows})
    found = {(r.path, r.variance, r.steps): r for r in rows}
    lines = []
    for path, name in dict.fromkeys((r.path, r.variance) for r in rows):
        mine = [found.get((path, name, count)) for count in counts]
        cells = ["" if r is None else f"{r.bits:.3f} ({r.gain:+.3f} ± {r.gain_error:.3f})"
                 for r in mine]  # fmt: skip
        lines.append([f"{path}, {name}", *cells])
    title = "bits/dim, and by how much more than the analytic variance on the same path"
    return table(title, ["path, variance", *(f"K = {c}" for c in counts)], lines)


def over_seeds(scores: list[Distance]) -> list[MeanDistance]:
    """The cells of the table of samples."""
    found: dict[tuple, list[float]] = {}
    for score in scores:
        found.setdefault(score[:4], []).append(score.distance)
    return [MeanDistance(*cell, len(d), *mean(np.asarray(d))) for cell, d in found.items()]


def distance_rows(scores: list[Distance], floor: tuple[float, float]) -> Any:
    """The table of samples."""
    found = {cell[:4]: cell for cell in over_seeds(scores)}
    counts = sorted({s.steps for s in scores})
    lines = []
    for row in dict.fromkeys(score[:3] for score in scores):
        mine = [found.get((*row, count)) for count in counts]
        cells = ["" if c is None else f"{c.distance:.2f} ± {c.error:.2f}" for c in mine]
        lines.append([", ".join(row), *cells])
    title = f"Frechet distance; of as many training images {floor[0]:.2f} ± {floor[1]:.2f}"
    return table(title, ["forward, path, variance", *(f"K = {c}" for c in counts)], lines)
