"""Curves, and points in the plane."""

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff.plots import canvas

__all__ = ["curves", "loss_curve", "moving_mean", "read_log", "scatter"]


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
    figure = canvas.figure(7, 4)
    axes = figure.add_subplot(xlabel="step", ylabel=column, title=title or "")
    axes.plot(step, value, color=canvas.RAW, linewidth=1, label="as logged")
    width = max(len(value) // 25, 2)
    if len(value) > width:
        axes.plot(
            step, moving_mean(value, width), color=canvas.SMOOTH, linewidth=2, label="smoothed"
        )
        axes.legend(frameon=False)
    if value.min() > 0:
        axes.set_yscale("log")
    axes.grid(which="both", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    canvas.write(figure, path)


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


def moving_mean(value: np.ndarray, width: int) -> np.ndarray:
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
    figure = canvas.figure(3.5 * len(sets), 3.2 * tall + 0.8)
    figure.suptitle(title or "")
    frame = {"xlim": (low[0], high[0]), "ylim": (low[1], high[1])}
    for place, (name, x) in enumerate(sets.items(), start=1):
        axes = figure.add_subplot(1, len(sets), place, title=name, aspect="equal", **frame)
        size, opacity = np.clip(2000 / len(x), 1, 12), np.clip(1000 / len(x), 0.15, 0.8)
        axes.scatter(*x.T, s=size, alpha=opacity, color=canvas.SMOOTH, linewidths=0)
    canvas.write(figure, path)


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
    figure = canvas.figure(8, 5)
    axes = figure.add_subplot(xlabel=xlabel, ylabel=ylabel, title=title or "")
    axes.set(xscale="log", yscale="log")
    at = sorted({float(x) for line in lines.values() for x in np.ravel(line[0])})
    if len(at) <= 10:
        axes.set_xticks(at, [f"{x:g}" for x in at])
        axes.minorticks_off()
    palette, marks = canvas.palette(), "osv^D<>Px*"
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
    canvas.write(figure, path)
