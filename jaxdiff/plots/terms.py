"""What a likelihood is made of: the terms of a bound, and how examples differ."""

import os
from typing import Any

import numpy as np

from jaxdiff.plots import canvas

__all__ = ["bound_terms", "likelihood_histogram"]

_LOW, _MIDDLE, _HIGH = "#b9c7d8", "#1f4e8c", "#c44e31"


def bound_terms(
    steps: Any,
    log_snr: Any,
    ends: dict[str, tuple[float, float]],
    path: str | os.PathLike,
    *,
    title: str | None = None,
) -> None:
    """Draws a variational bound term by term, in bits per dimension.

    On the left what each step adds, against the log SNR that it ends at; on the right the sums:
    the prior's term, that of all steps, the decoder's, each with its standard error.

    Args:
        steps: [K - 1], the steps' terms, noisiest first; none where the decoder is alone.
        log_snr: [K - 1], of the level where each step ends.
        ends: by name, from the noisy end on, (value, standard error) of each sum.
        path: the picture to write: .png, .pdf or .svg.
        title: a heading.

    Raises:
        ValueError: steps and log_snr that differ in shape, or no sums.
        OSError: where the file cannot be written.
    """
    steps, log_snr = np.asarray(steps, np.float64), np.asarray(log_snr, np.float64)
    if steps.ndim != 1 or steps.shape != log_snr.shape:
        raise ValueError(
            f"steps and log_snr must be [K - 1] both, got {list(steps.shape)} and"
            f" {list(log_snr.shape)}"
        )
    if not ends:
        raise ValueError("ends must hold at least one term, got none")
    figure = canvas.figure(10, 4)
    figure.suptitle(title or "")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    left.set(xlabel="log SNR where the step ends", ylabel="bits/dim of a step")
    mark = {"marker": "o", "markersize": 3} if len(steps) <= 100 else {}
    left.plot(log_snr, steps, color=_MIDDLE, linewidth=1.2, **mark)
    left.axhline(0, color="black", linewidth=0.8)
    names = [f"{name}\n{value:.4g} ± {error:.2g}" for name, (value, error) in ends.items()]
    values, errors = np.array(list(ends.values()), np.float64).T
    bars = np.where(np.isfinite(errors), errors, 0)
    right.barh(names, values, xerr=bars, color=_bar_colours(len(names)), capsize=3)
    right.axvline(0, color="black", linewidth=0.8)
    right.invert_yaxis()
    right.set(xlabel=f"bits/dim, in all {values.sum():.4g}")
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    canvas.write(figure, path)


def likelihood_histogram(
    values: Any,
    path: str | os.PathLike,
    *,
    interval: tuple[float, float] | None = None,
    xlabel: str = "bits/dim of an example",
    title: str | None = None,
) -> None:
    """Draws how examples differ in likelihood: a histogram, their mean, its interval.

    Args:
        values: [B], one an example.
        path: the picture to write: .png, .pdf or .svg.
        interval: (low, high) of the mean.
        xlabel: what the values are.
        title: a heading.

    Raises:
        ValueError: where there are no values, or one is not finite.
        OSError: where the file cannot be written.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"values must be finite [B] with B >= 1, got shape {list(values.shape)}")
    figure = canvas.figure(7, 4)
    axes = figure.add_subplot(xlabel=xlabel, ylabel="examples", title=title or "")
    count = int(np.clip(np.sqrt(values.size), 5, 60))
    axes.hist(values, bins=count, color=_LOW, edgecolor="white", linewidth=0.5)
    mean = values.mean()
    if interval is not None:
        axes.axvspan(*interval, color=_HIGH, alpha=0.25, linewidth=0, label="95 % of the mean")
    axes.axvline(mean, color=_HIGH, linewidth=1.5, label=f"mean {mean:.4g}")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    canvas.write(figure, path)


def _bar_colours(count: int) -> list[str]:
    """The noisy end pale, the clean end warm, what lies between dark."""
    return [_LOW, *[_MIDDLE] * (count - 2), _HIGH] if count > 1 else [_MIDDLE]
