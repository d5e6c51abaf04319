"""How often points are neighbours: a table of measures, and the histogram of counts."""

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxdiff.plots import canvas

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["count_histogram", "hubness_table"]

_WORDS = {
    "skewness": "skewness of N_k",
    "truncated_skewness": "skewness of a normal cut at 0",
    "robin_hood": "Robin Hood index",
    "gini": "Gini index",
    "atkinson": "Atkinson index",
    "hub_share": "share of points that are hubs",
    "hub_occurrence": "places in neighbourhoods that hubs have",
    "antihub_share": "share of points that are nobody's neighbour",
    "largest_share": "places that the greatest hub has",
    "largest": "count of the greatest hub",
}


def hubness_table(columns: dict[str, Any], *, title: str | None = None) -> "Table":
    """A table of the measures of one or more sets of counts.

    Args:
        columns: what `jaxdiff.hubness.measure` returns, by the heading of its column.
        title: a heading.

    Raises:
        ValueError: where there is no column.
    """
    from rich.markup import escape
    from rich.table import Table

    if not columns:
        raise ValueError("columns must hold at least one, got none")
    table = Table(title=escape(title or ""))
    table.add_column("measure")
    for name in columns:
        table.add_column(escape(name), justify="right")
    for field, words in _WORDS.items():
        table.add_row(words, *(f"{float(getattr(m, field)):.4g}" for m in columns.values()))
    return table


def count_histogram(
    counts: dict[str, Any], path: str | os.PathLike, *, k: int, title: str | None = None
) -> None:
    """Draws how many points have each count N_k, on logarithmic axes.

    Counts are gathered in bins whose width doubles; those of 0 stand at the left. The line is the
    Poisson law with mean k, which no hubs would follow.

    Args:
        counts: [M] each, by name.
        path: the picture to write: .png, .pdf or .svg.
        k: of the neighbourhoods.
        title: a heading.

    Raises:
        ValueError: where there are no counts.
        OSError: where the file cannot be written.
    """
    from scipy import stats

    if not counts or any(np.ndim(n) != 1 or not np.size(n) for n in counts.values()):
        raise ValueError("counts must be [M] each, with M >= 1, by name")
    largest = max(int(np.max(n)) for n in counts.values())
    edges = np.unique(np.round(2.0 ** np.arange(0, np.log2(max(largest, 4 * k)) + 1.5, 0.5)))
    middles = np.concatenate([[0.5], np.sqrt(edges[:-1] * (edges[1:] - 1))])
    figure = canvas.figure(7, 4)
    axes = figure.add_subplot(xlabel=f"N_{k}", title=title or "")
    for (name, n), colour in zip(counts.items(), canvas.palette(), strict=False):
        own = np.histogram(n, [0, *edges])[0] / np.diff([0, *edges]) / len(n)
        shown = own > 0
        axes.plot(middles[shown], own[shown], "o-", color=colour, markersize=4, label=name)
    law = stats.poisson(k)
    reach = np.arange(0, law.ppf(1 - 1e-4) + 1)
    axes.plot(np.maximum(reach, 0.5), law.pmf(reach), "--", color="#888888", label=f"Poisson({k})")
    axes.set_xscale("log")
    axes.set_yscale("log")
    marks = [m for m in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if m <= 2 * largest]
    axes.set_xticks([0.5, *marks], ["0", *map(str, marks)])
    axes.minorticks_off()
    axes.set_ylabel("share of points, for each count")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    canvas.write(figure, path)
