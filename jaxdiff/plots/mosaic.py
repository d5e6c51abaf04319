"""Images in rows."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxdiff.data import images
from jaxdiff.plots import canvas

__all__ = ["sample_grid"]

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
    board, corners = _mosaic(images.to_uint8(x), min(columns, n), caption)
    height, width = board.shape[:2]
    heading, least = (0, 0) if title is None else (HEADING, LETTER * len(title))
    full = np.array([max(width, least), height + heading])

    figure = canvas.figure(*full / canvas.DPI, layout="none")
    axes = figure.add_axes((0, 0, *np.array([width, height]) / full))  # pixel for pixel
    axes.set_axis_off()
    axes.imshow(board, interpolation="nearest", aspect="auto")
    for (top, middle), label in zip(corners, labels if labels is not None else (), strict=False):
        axes.text(middle, top - 2, str(label), ha="center", va="bottom", fontsize=8)
    if title is not None:
        figure.text(0.5, 1 - heading / full[1] / 2, title, ha="center", va="center", fontsize=10)
    canvas.write(figure, path)


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
    board = np.full((*size, max(channels, 3)), 255, np.uint8)
    corners = []
    for i, image in enumerate(x):
        top, left = step * divmod(i, columns) + GAP
        top += caption
        board[top : top + height, left : left + width] = image  # grey spreads over the channels
        corners.append((top, left + width / 2))
    return board, corners


def _check_pictures(x: Any) -> np.ndarray:
    """Finite [N, H, W, C] of a number of channels that can be shown."""
    x = np.asarray(x)
    images.check_shape(x, "x")
    if x.ndim != 4 or x.shape[-1] not in (1, 3, 4):
        raise ValueError(f"x must be [N, H, W, C] with C of 1, 3 or 4, got {list(x.shape)}")
    if not np.isfinite(x).all():
        raise ValueError("x must be finite, got NaN or infinite pixels")
    return x
