"""What the second moments of a model say of the variance of its steps."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxdiff.plots import canvas

__all__ = ["moment_curves"]


def moment_curves(
    log_snr: Any,
    eps: tuple[Any, Any],
    covs: Mapping[str, tuple[Any, Any]],
    path: str | os.PathLike,
    *,
    title: str | None = None,
) -> None:
    """Draws second moments level by level, with bands of two standard errors.

    On the left E |eps_hat|**2 / d, which of an exact mean is at most 1; on the right
    Var[x_0 | x_t] by each estimator, which of an exact mean agree. Levels without a finite log SNR
    are left out, and estimates that are not positive.

    Args:
        log_snr: [N], rising.
        eps: ([N], [N]), the mean square and its standard error.
        covs: by name, ([N], [N]), the variance and its standard error.
        path: the picture to write: .png, .pdf or .svg.
        title: a heading.

    Raises:
        ValueError: shapes that differ, or no estimator.
        OSError: where the file cannot be written.
    """
    log_snr = np.asarray(log_snr, np.float64)
    lines = {name: tuple(np.asarray(a, np.float64) for a in pair) for name, pair in covs.items()}
    eps = tuple(np.asarray(a, np.float64) for a in eps)
    if not lines:
        raise ValueError("covs must hold at least one estimator, got none")
    for name, pair in {"eps": eps, **lines}.items():
        if any(a.shape != log_snr.shape or a.ndim != 1 for a in pair):
            shapes = [list(a.shape) for a in pair]
            raise ValueError(f"{name} must be [N] as log_snr {list(log_snr.shape)}, got {shapes}")
    figure = canvas.figure(10, 4)
    figure.suptitle(title or "")
    left, right = figure.subplots(1, 2)
    left.set(xlabel="log SNR", ylabel="mean square of eps  (sigma² Gamma)")
    left.axhline(1, color="black", linestyle=":", linewidth=1)
    _line(left, log_snr, eps, canvas.palette()[0], "eps")
    right.set(xlabel="log SNR", ylabel="Var[x₀ | xₜ] a dimension", yscale="log")
    for i, (name, pair) in enumerate(lines.items()):
        _line(right, log_snr, pair, canvas.palette()[i], f"by {name}", least=0.0)
    right.legend(frameon=False)
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    canvas.write(figure, path)


def _line(
    axes: Any,
    x: np.ndarray,
    pair: tuple[np.ndarray, np.ndarray],
    colour: str,
    name: str,
    *,
    least: float = -np.inf,
) -> None:
    value, error = pair
    shown = np.isfinite(x) & np.isfinite(value) & (value > least)
    value, error = np.where(shown, value, np.nan), np.where(np.isfinite(error), error, 0)
    mark = {"marker": ".", "markersize": 3}  # a level between two gaps
    axes.plot(x, value, color=colour, linewidth=1.2, label=name, **mark)
    low = value - 2 * error
    if least == 0:  # a logarithmic axis has no room below
        low = np.maximum(low, value / 10)
    axes.fill_between(x, low, value + 2 * error, color=colour, alpha=0.25, linewidth=0)
