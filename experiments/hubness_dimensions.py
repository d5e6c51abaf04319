"""When do points have hubs? Counts of neighbours by dimension: Gaussian, cube and sphere.

    python experiments/hubness_dimensions.py --out experiments/figures [--n 10000] [--quick]

n points of N(0, I_d), of the uniform cube and of the sphere, k = 5: the share of points that are
nobody's neighbour, points with N >= 50, the greatest N, the skewness, and the rank correlation of N
with the distance to the mean, with standard errors over seeds.

Expected: on the Gaussian hubs grow with d and are the points near the mean (correlation -.89 at
d = 32); the cube has fewer; the sphere, where all points are alike, none: skewness below .5, no
point of N >= 50. So a generator that normalises its latents has no hubs to choose in them.

Hardware: 2 CPU cores, a minute.
"""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import records
import tyro
from rich.console import Console
from scipy import stats
from timing import table

from jaxdiff import hubness, plots
from jaxdiff.plots import canvas

__all__ = ["Row", "counted", "main"]

KINDS = ("normal", "cube", "sphere")


class Row(NamedTuple):
    """One cell: means over seeds, and their standard errors."""

    kind: str
    dim: int
    antihubs: float
    antihubs_error: float
    hubs: float
    hubs_error: float
    largest: float
    largest_error: float
    skewness: float
    skewness_error: float
    correlation: float
    correlation_error: float


def counted(kind: str, n: int, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts, and distances to the mean, [n] each."""
    key = jax.random.key(seed)
    x = jax.random.uniform(key, (n, dim)) if kind == "cube" else hubness.draw(key, n, dim, kind)
    centre = jnp.mean(x, axis=0) if kind == "cube" else jnp.zeros(dim)
    return np.asarray(hubness.k_occurrence(x, k=5)), np.linalg.norm(x - centre[None], axis=1)


def row(kind: str, n: int, dim: int, seeds: int) -> Row:
    """One row of the table."""
    found = []
    for seed in range(seeds):
        counts, far = counted(kind, n, dim, seed)
        measured = hubness.measure(counts, k=5)
        together = stats.spearmanr(counts, far)[0] if kind != "sphere" else np.nan
        found.append((
            measured.antihub_share, (counts >= 50).sum(), measured.largest, measured.skewness,
            together,
        ))  # fmt: skip
    values = np.asarray(found, float)
    error = values.std(axis=0, ddof=1) / np.sqrt(seeds) if seeds > 1 else np.full(5, np.nan)
    return Row(kind, dim, *np.stack([values.mean(axis=0), error], axis=1).ravel().tolist())


def main(
    out: Path,
    n: int = 10_000,
    dims: tuple[int, ...] = (2, 8, 32, 128, 512),
    seeds: int = 3,
    quick: bool = False,
) -> None:
    """Prints the table, and writes it and its picture into a directory.

    Args:
        out: where hubness_dimensions.csv and .png are written.
        n: points.
        dims: d.
        seeds: draws of the points.
        quick: few points, two dimensions.
    """
    if quick:
        n, dims, seeds = 300, (2, 32), 2
    console, rows = Console(width=120), []
    for kind in KINDS:
        for dim in dims:
            rows.append(row(kind, n, dim, seeds))
    records.write(out / "hubness_dimensions.csv", rows)
    show = lambda value, error, digits: f"{value:.{digits}f} ± {error:.{digits}f}"  # noqa: E731
    lines = [
        [f"{r.kind}, d = {r.dim}", show(r.antihubs, r.antihubs_error, 3),
         show(r.hubs, r.hubs_error, 0), show(r.largest, r.largest_error, 0),
         show(r.skewness, r.skewness_error, 2), show(r.correlation, r.correlation_error, 3)]
        for r in rows
    ]  # fmt: skip
    columns = ["points", "nobody's neighbour", "N >= 50", "greatest N", "skewness"]
    columns.append("rank correlation with distance to the mean")
    console.print(table(f"{n:,} points, k = 5, {seeds} draws", columns, lines))
    picture(rows, n, out / "hubness_dimensions.png")


def picture(rows: list[Row], n: int, path: Path) -> None:
    """Histograms of counts at the largest dimension, and the share of antihubs by dimension."""
    drawn = canvas.figure(9, 3.6)
    left, right = drawn.subplots(1, 2)
    for kind, colour in zip(KINDS, canvas.palette(), strict=False):
        own = [r for r in rows if r.kind == kind]
        places = [r.dim for r in own]
        how = {"fmt": "o-", "color": colour, "capsize": 2, "label": kind}
        left.errorbar(places, [r.antihubs for r in own], [r.antihubs_error for r in own], **how)
        counts = np.sort(counted(kind, n, max(places), 0)[0])[::-1]
        right.plot(np.arange(1, n + 1) / n, counts, color=colour, label=kind)
    limit = float(hubness.geometry.antihub_share_limit(5))
    left.axhline(limit, linestyle="--", color="#888888", label="Poisson, exp(-5)")
    left.set(xscale="log", xlabel="dimension", ylabel="share that is nobody's neighbour")
    right.set(xscale="log", yscale="symlog", xlabel="share of points, greatest first", ylabel="N_5")
    right.set_ylim(bottom=0)
    right.set_title(f"d = {max(r.dim for r in rows)}")
    for axes in (left, right):
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    plots.canvas.write(drawn, path)


if __name__ == "__main__":
    tyro.cli(main)
