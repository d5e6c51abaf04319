"""Parallel coordinates: one line a member of a study, through its values to its score."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxdiff.plots import canvas

__all__ = ["parallel_coordinates"]


def parallel_coordinates(
    columns: Mapping[str, Sequence[Any]],
    score: Sequence[float],
    path: str | os.PathLike,
    *,
    name: str = "score",
    title: str | None = None,
) -> None:
    """Draws members as lines, the better the darker and the later.

    An axis is logarithmic where its numbers are positive and their ends ten times apart; words
    stand evenly, in the order in which they come.

    Args:
        columns: by the name of its axis, the value of each member: numbers or words.
        score: of each member, lower is better; lines of members without a finite one are left out.
        path: the picture to write: .png, .pdf or .svg.
        name: what the score is called.
        title: a heading.

    Raises:
        ValueError: no members, or lengths that differ.
        OSError: the picture cannot be written.
    """
    lengths = {len(values) for values in columns.values()} | {len(score)}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"columns and score must have a value for each member, got {lengths}")
    score = np.asarray(score, np.float64)
    finite = np.isfinite(score)
    if not finite.any():
        raise ValueError("score must be finite for at least one member")
    axes = {**columns, name: score}
    heights, marks = zip(*(_scaled(values, finite) for values in axes.values()), strict=True)
    figure = canvas.figure(1.5 + 1.7 * len(axes), 4.5)
    plane = figure.add_subplot(title=title or "")
    order = np.argsort(np.where(finite, score, np.inf))[: finite.sum()][::-1]
    for rank, member in enumerate(order):
        share = (rank + 1) / len(order)
        best = rank == len(order) - 1
        plane.plot(
            range(len(axes)),
            [column[member] for column in heights],
            color="#c0392b" if best else canvas.SMOOTH,
            alpha=1.0 if best else 0.08 + 0.7 * share**3,
            linewidth=2.5 if best else 1.2,
            zorder=2 + rank,
        )
    for place, ticks in enumerate(marks):
        plane.axvline(place, color="black", linewidth=0.8, zorder=1)
        for height, text in ticks:
            plane.annotate(
                text, (place, height), xytext=(4, 0), textcoords="offset points", fontsize=8,
                va="center", zorder=1000, bbox={"facecolor": "white", "alpha": 0.7, "pad": 0.5,
                                                "edgecolor": "none"},
            )  # fmt: skip
    plane.set_xticks(range(len(axes)), [label.replace(".", ".\n") for label in axes])
    plane.set_yticks([])
    plane.set_ylim(-0.05, 1.05)
    plane.spines[["top", "right", "left", "bottom"]].set_visible(False)
    canvas.write(figure, path)


def _scaled(values: Sequence[Any], finite: np.ndarray) -> tuple[np.ndarray, list]:
    """Heights in [0, 1], and what stands where on the axis."""
    if any(isinstance(v, bool) or not isinstance(v, int | float | np.number) for v in values):
        words = list(dict.fromkeys(map(str, values)))
        at = {word: i / max(len(words) - 1, 1) for i, word in enumerate(words)}
        return np.array([at[str(v)] for v in values]), [(h, word) for word, h in at.items()]
    numbers = np.asarray(values, np.float64)
    seen = numbers[finite]
    low, high = seen.min(), seen.max()
    log = low > 0 and high >= 10 * low
    scale = np.log if log else (lambda v: v)
    span = scale(high) - scale(low)
    if not span:
        return np.full(len(numbers), 0.5), [(0.5, f"{low:.3g}")]
    with np.errstate(invalid="ignore", divide="ignore"):
        heights = (scale(numbers) - scale(low)) / span
    known = sorted(set(seen.tolist()))
    if len(known) <= 6 and all(isinstance(v, int) for v in values):
        return heights, [(float((scale(v) - scale(low)) / span), f"{v:.0f}") for v in known]
    between = np.exp((np.log(low) + np.log(high)) / 2) if log else (low + high) / 2
    return heights, [(0.0, f"{low:.3g}"), (0.5, f"{between:.3g}"), (1.0, f"{high:.3g}")]
