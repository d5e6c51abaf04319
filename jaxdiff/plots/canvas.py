"""The figure that a picture is drawn on, its colours, and the file that it is written to."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from jaxdiff.data import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DPI", "FORMATS", "RAW", "SMOOTH", "figure", "palette", "write"]

FORMATS = ("png", "pdf", "svg")
RAW, SMOOTH = "#b9c7d8", "#1f4e8c"
DPI = 100


def figure(width: float, height: float, *, layout: str = "constrained") -> "Figure":
    """A figure of so many inches that belongs to no window and no pyplot."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout=layout, facecolor="white")


def palette() -> list[str]:
    """Ten colours that can be told apart, matplotlib's own."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colour) for colour in colormaps["tab10"].colors]


def write(drawn: "Figure", path: str | os.PathLike) -> None:
    """Saves a figure in the format that the name of the file asks for."""
    suffix = Path(path).suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise ValueError(f"path must end in one of .{', .'.join(FORMATS)}, got {path}")
    with files.replacing(path) as file:
        drawn.savefig(file, format=suffix)
