"""Pictures and tables of what a run leaves: written whole to a file, no window, no global state."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxdiff.data import files, images

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

__all__ = [
    "curves",
    "loss_curve",
    "metrics_table",
    "metrics_text",
    "read_log",
    "sample_grid",
    "scatter",
]

FORMATS = ("png", "pdf", "svg")
RAW, SMOOTH = "#b9c7d8", "#1f4e8c"
DPI = 100
CELL, GAP = 64, 4  # pixels: small images are enlarged to about CELL
CAPTION, HEADING, LETTER = 14, 26, 8  # pixels that a caption, a title, a letter of it take


def sample_grid(
    x: Any,
    path: str | os.PathLike,
    *,
    labels: Sequence[Any] | None = None,
    columns: int | None = None,
    title: str | None = None,
) -> None:
    """Draws images in rows, each pixel of a small image as a square block.

    Args:
        x: [N, H, W, C] in [-1, 1], C of 1 (grey), 3 or 4; what lies outside is clipped.
        path: the picture to write: .png, .pdf or .svg.
        labels: N captions, one above each image.
        columns: images a row; by default near the square root of N.
        title: a heading.

    Raises:
        ValueError: naming the argument that does not fit.
        OSError: where the file cannot be written.
    """
    x = _check_pictures(x)
    n = len(x)
    if labels is not None and len(labels) != n:
        raise ValueError(f"labels must be {n}, one an image, got {len(labels)}")
    columns = int(np.ceil(np.sqrt(n))) if columns is None else columns
    if columns < 1:
        raise ValueError(f"columns must be >= 1, got {columns}")
    caption = 0 if labels is None else CAPTION
    canvas, corners = _mosaic(images.to_uint8(x), min(columns, n), caption)
    height, width = canvas.shape[:2]
    heading, least = (0, 0) if title is None else (HEADING, LETTER * len(title))
    full = np.array([max(width, least), height + heading])

    figure = _figure(*full / DPI, layout="none")
    axes = figure.add_axes((0, 0, *np.array([width, height]) / full))  # pixel for pixel
    axes.set_axis_off()
    axes.imshow(canvas, interpolation="nearest", aspect="auto")
    for (top, middle), label in zip(corners, labels if labels is not None else (), strict=False):
        axes.text(middle, top - 2, str(label), ha="center", va="bottom", fontsize=8)
    if title is not None:
        figure.text(0.5, 1 - heading / full[1] / 2, title, ha="center", va="center", fontsize=10)
    _write(figure, path)


def _mosaic(
    x: np.ndarray, columns: int, caption: int
) -> tuple[np.ndarray, list[tuple[int, float]]]:
    """Enlarged images on a white ground, `caption` pixels free above each.

    Returns:
        The bytes [H', W', 3 or 4], and for each image its top and its middle column.
    """
    scale = max(1, round(CELL / max(x.shape[1:3])))
    x = x.repeat(scale, axis=1).repeat(scale, axis=2)
    n, height, width, channels = x.shape
    step = np.array([height + GAP + caption, width + GAP])
    size = step * [-(-n // columns), columns] + GAP
    canvas = np.full((*size, max(channels, 3)), 255, np.uint8)
    corners = []
    for i, image in enumerate(x):
        top, left = step * divmod(i, columns) + GAP
        top += caption
        canvas[top : top + height, left : left + width] = image  # grey spreads over the channels
        corners.append((top, left + width / 2))
    return canvas, corners


def _check_pictures(x: Any) -> np.ndarray:
    """Finite [N, H, W, C] of a number of channels that can be shown."""
    x = np.asarray(x)
    images.check_shape(x, "x")
    if x.ndim != 4 or x.shape[-1] not in (1, 3, 4):
        raise ValueError(f"x must be [N, H, W, C] with C of 1, 3 or 4, got {list(x.shape)}")
    if not np.isfinite(x).all():
        raise ValueError("x must be finite, got NaN or infinite pixels")
    return x


def loss_curve(
    log: str | os.PathLike,
    path: str | os.PathLike,
    *,
    column: str = "loss",
    title: str | None = None,
) -> None:
    """Draws a column of a training log against the step: raw values, and a smooth line over them.

    The line is a moving mean over a twenty-fifth of the values, at least two. The vertical axis
    is logarithmic where all values are positive.

    Args:
        log: a CSV file with a heading, a column `step` and the one drawn; rows without a finite
            value are passed over.
        path: the picture to write: .png, .pdf or .svg.
        column: what to draw.
        title: a heading.

    Raises:
        FileNotFoundError: where there is no such log.
        ValueError: where the log lacks the column or any value.
        OSError: where the picture cannot be written.
    """
    step, value = read_log(log, column)
    figure = _figure(7, 4)
    axes = figure.add_subplot(xlabel="step", ylabel=column, title=title or "")
    axes.plot(step, value, color=RAW, linewidth=1, label="as logged")
    width = max(len(value) // 25, 2)
    if len(value) > width:
        axes.plot(step, _moving_mean(value, width), color=SMOOTH, linewidth=2, label="smoothed")
        axes.legend(frameon=False)
    if value.min() > 0:
        axes.set_yscale("log")
    axes.grid(which="both", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    _write(figure, path)


def read_log(log: str | os.PathLike, column: str) -> tuple[np.ndarray, np.ndarray]:
    """The steps and the finite values of one column of a CSV log."""
    if not Path(log).is_file():
        raise FileNotFoundError(f"there is no log {log}")
    with open(log, newline="") as file:
        reader = csv.DictReader(file)
        names = reader.fieldnames or []
        missing = [name for name in ("step", column) if name not in names]
        if missing:
            raise ValueError(
                f"{log} must have a column {missing[0]}, got {', '.join(names) or 'an empty file'}"
            )
        cells = [(row["step"], row[column]) for row in reader if row["step"] and row[column]]
    try:
        table = np.array(cells, dtype=np.float64).reshape(-1, 2)
    except ValueError as error:
        raise ValueError(f"{log}: columns step and {column} must be numbers: {error}") from error
    table = table[np.isfinite(table).all(axis=1)]
    if len(table) == 0:
        raise ValueError(f"{log} must hold a finite {column}, got none")
    return table[:, 0], table[:, 1]


def _moving_mean(value: np.ndarray, width: int) -> np.ndarray:
    """The mean over a window about each place, cut short at the ends."""
    window = np.ones(width)
    total = np.convolve(value, window, mode="same")
    return total / np.convolve(np.ones_like(value), window, mode="same")


def scatter(
    points: Mapping[str, Any],
    path: str | os.PathLike,
    *,
    title: str | None = None,
) -> None:
    """Draws sets of points in the plane side by side, on the same axes.

    Args:
        points: by name, [N, 2].
        path: the picture to write: .png, .pdf or .svg.
        title: a heading.

    Raises:
        ValueError: where there are no sets, or one is not [N, 2] and finite.
        OSError: where the file cannot be written.
    """
    sets = {name: np.asarray(x, np.float64) for name, x in points.items()}
    if not sets:
        raise ValueError("points must hold at least one set, got none")
    for name, x in sets.items():
        if x.ndim != 2 or x.shape[1] != 2 or not np.isfinite(x).all() or len(x) == 0:
            raise ValueError(f"points[{name!r}] must be finite [N, 2], got shape {list(x.shape)}")
    together = np.concatenate(list(sets.values()))
    low, high = together.min(axis=0), together.max(axis=0)
    margin = 0.05 * max(np.max(high - low), 1e-6)  # one point still has a frame
    low, high = low - margin, high + margin
    tall = np.clip((high[1] - low[1]) / (high[0] - low[0]), 0.3, 3)
    figure = _figure(3.5 * len(sets), 3.2 * tall + 0.8)
    figure.suptitle(title or "")
    frame = {"xlim": (low[0], high[0]), "ylim": (low[1], high[1])}
    for place, (name, x) in enumerate(sets.items(), start=1):
        axes = figure.add_subplot(1, len(sets), place, title=name, aspect="equal", **frame)
        size, opacity = np.clip(2000 / len(x), 1, 12), np.clip(1000 / len(x), 0.15, 0.8)
        axes.scatter(*x.T, s=size, alpha=opacity, color=SMOOTH, linewidths=0)
    _write(figure, path)


def curves(
    lines: Mapping[str, tuple[Any, ...]],
    path: str | os.PathLike,
    *,
    xlabel: str,
    ylabel: str,
    title: str | None = None,
    floor: float | None = None,
) -> None:
    """Draws lines on logarithmic axes, their names beside the picture.

    Args:
        lines: by name, (x [N], y [N]) or (x, y, error), error bars of one standard error; points
            that are not finite and positive are left out.
        path: the picture to write: .png, .pdf or .svg.
        xlabel, ylabel: what the axes are.
        title: a heading.
        floor: a level to mark by a dotted line.

    Raises:
        ValueError: where there are no lines, or x and y differ in length.
        OSError: where the file cannot be written.
    """
    if not lines:
        raise ValueError("lines must hold at least one line, got none")
    figure = _figure(8, 5)
    axes = figure.add_subplot(xlabel=xlabel, ylabel=ylabel, title=title or "")
    axes.set(xscale="log", yscale="log")
    at = sorted({float(x) for line in lines.values() for x in np.ravel(line[0])})
    if len(at) <= 10:
        axes.set_xticks(at, [f"{x:g}" for x in at])
        axes.minorticks_off()
    palette, marks = _palette(), "osv^D<>Px*"
    for i, (name, line) in enumerate(lines.items()):
        x, y, *error = (np.asarray(a, np.float64) for a in line)
        if x.shape != y.shape or x.ndim != 1:
            raise ValueError(f"lines[{name!r}] must be [N] against [N], got {x.shape}, {y.shape}")
        shown = np.isfinite(y) & (y > 0)
        style = {
            "color": palette[i % len(palette)],
            "marker": marks[i // len(palette) % len(marks)],
        }
        bars = error[0][shown] if error else None
        axes.errorbar(
            x[shown], y[shown], bars, label=name, markersize=4, linewidth=1.2, capsize=2, **style
        )
    if floor is not None:
        axes.axhline(floor, color="black", linestyle=":", linewidth=1)
    axes.grid(which="both", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    _write(figure, path)


def metrics_table(rows: Sequence[Any], *, title: str | None = None) -> "Table":
    """A table of metrics beside what real data score.

    Args:
        rows: what `jaxdiff.metrics.evaluate` returns.
        title: a heading.

    Returns:
        A rich table, to print on a rich console.

    Raises:
        ValueError: where there are no rows.
    """
    from rich.markup import escape
    from rich.table import Table

    if not rows:
        raise ValueError("rows must hold at least one metric, got none")
    first = rows[0]
    table = Table(
        title=escape(title or ""),
        caption=(
            f"samples: n = {first.n}, real floor: n = {first.n_floor}, both against "
            f"{first.n_real} held-out examples.\nFrechet distances fall as n grows: "
            "compare only figures of equal n."
        ),
    )
    table.add_column("metric")
    table.add_column("samples", justify="right")
    table.add_column("real floor", justify="right")
    table.add_column("better is")
    wanted = {"lower": "lower", "higher": "higher", "floor": "near the floor"}
    for row in rows:
        table.add_row(row.metric, f"{row.value:.4f}", f"{row.floor:.4f}", wanted[row.better])
    return table


def metrics_text(rows: Sequence[Any], *, title: str | None = None) -> str:
    """The table of `metrics_table` as plain text, for a file."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(metrics_table(rows, title=title))
    return console.file.getvalue()


def _figure(width: float, height: float, *, layout: str = "constrained") -> "Figure":
    """A figure of so many inches that belongs to no window and no pyplot."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout=layout, facecolor="white")


def _palette() -> list[str]:
    """Ten colours that can be told apart, matplotlib's own."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colour) for colour in colormaps["tab10"].colors]


def _write(figure: "Figure", path: str | os.PathLike) -> None:
    """Saves a figure in the format that the name of the file asks for."""
    suffix = Path(path).suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise ValueError(f"path must end in one of .{', .'.join(FORMATS)}, got {path}")
    with files.replacing(path) as file:
        figure.savefig(file, format=suffix)
