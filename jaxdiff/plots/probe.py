"""What networks that are probed for positions say: a table beside theory, matrices as pictures."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxdiff.plots import canvas

if TYPE_CHECKING:
    from rich.table import Table

    from jaxdiff.training.probe import Row

__all__ = ["heat_maps", "probe_table"]


def probe_table(rows: "Sequence[Row]", *, title: str | None = None) -> "Table":
    """A table of methods and tasks: the mean over seeds beside the best constant and the theorem.

    Args:
        rows: what `training.probe.rows_of` returns.
        title: a heading.

    Returns:
        A rich table, to print on a rich console.

    Raises:
        ValueError: where there are no rows.
    """
    from rich.markup import escape
    from rich.table import Table

    from jaxdiff.training.probe import standing
    from jaxdiff.training.probe_tasks import Constant

    if not rows:
        raise ValueError("rows must hold at least one network, got none")
    table = Table(
        title=escape(title or ""),
        caption=(
            "mean over seeds, and the largest. passes: right half way from chance to always; fails:"
            " loss no better than a constant's.\nThe theorem is of identical tokens; near, far:"
            " right answers in the first n places of 2 n, and beyond."
        ),
    )
    columns = ("method", "loss", "largest", "constant", "right", "by chance", "near", "far")
    for name in columns:
        table.add_column(name, justify="left" if name == "method" else "right")
    table.add_column("result")
    table.add_column("theorem: can count?")
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.task, row.method), []).append(row)
    task = None
    for (of, name), group in groups.items():
        if of != task:
            table.add_section()
            table.add_row(f"[bold]{of}[/bold]")
            task = of
        mean = {
            key: float(np.mean([getattr(row, key) for row in group]))
            for key in ("loss", "accuracy", "near", "far")
        }
        first = group[0]
        best = Constant(first.constant_loss, first.constant_accuracy)
        table.add_row(
            name,
            f"{mean['loss']:.4g}",
            f"{max(row.loss for row in group):.4g}",
            f"{first.constant_loss:.5g}",
            _share(mean["accuracy"]),
            _share(first.constant_accuracy),
            _share(mean["near"]),
            _share(mean["far"]),
            standing(mean["loss"], mean["accuracy"], best),
            f"{'yes' if first.counts else 'no'}: {first.reason}",
        )
    return table


def _share(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "-"


def heat_maps(
    maps: Mapping[str, Any],
    path: str | os.PathLike,
    *,
    columns: int = 4,
    title: str | None = None,
) -> None:
    """Draws matrices as pictures, each with a scale of its own; those with negatives about white.

    Args:
        maps: by name, [N, M], row 0 on top.
        path: the picture to write: .png, .pdf or .svg.
        columns: matrices a row, >= 1.
        title: a heading.

    Raises:
        ValueError: where there are none, or one is not a finite matrix.
        OSError: where the file cannot be written.
    """
    arrays = {name: np.asarray(a, np.float64) for name, a in maps.items()}
    if not arrays or columns < 1:
        raise ValueError(f"wanted matrices in 1 column or more, got {len(arrays)} in {columns}")
    for name, a in arrays.items():
        if a.ndim != 2 or a.size == 0 or not np.isfinite(a).all():
            raise ValueError(f"maps[{name!r}] must be a finite matrix, got shape {list(a.shape)}")
    columns = min(columns, len(arrays))
    rows = -(-len(arrays) // columns)
    figure = canvas.figure(2.7 * columns, 2.5 * rows + 0.4)
    figure.suptitle(title or "")
    for place, (name, a) in enumerate(arrays.items(), start=1):
        axes = figure.add_subplot(rows, columns, place)
        axes.set_title(name, fontsize=9)
        most = float(np.abs(a).max()) or 1.0
        signed = {"cmap": "RdBu_r", "vmin": -most, "vmax": most}
        style = signed if a.min() < 0 else {"cmap": "viridis"}
        drawn = axes.imshow(a, interpolation="nearest", **style)
        axes.tick_params(labelsize=7)
        figure.colorbar(drawn, ax=axes, shrink=0.85).ax.tick_params(labelsize=7)
    canvas.write(figure, path)
