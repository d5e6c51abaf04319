"""The probe's table and matrices. Truth: the numbers that went in, the pixels of the picture."""

import io

import matplotlib.image
import numpy as np
import pytest
from rich.console import Console

from jaxdiff import plots
from jaxdiff.training.probe import Row


def row(name, seed, loss, near=np.nan):
    return Row("regression", name, seed, 32, 9, loss, 0.75, 0.08325, 1 / 32, near, near, True, "x")


def test_table_shows_means_and_the_largest():
    rows = [row("a", 0, 0.001), row("a", 1, 0.003), row("b", 0, 0.09, 0.5)]
    console = Console(file=io.StringIO(), width=150, color_system=None)
    console.print(plots.probe_table(rows, title="a [title]"))
    lines = console.file.getvalue().splitlines()
    (a,) = (line for line in lines if "│ a " in line)
    (b,) = (line for line in lines if "│ b " in line)
    for part in ("0.002", "0.003", "0.08325", "0.750", "0.031", " - ", "passes", "yes: x"):
        assert part in a
    for part in ("0.09", "0.500", "fails"):
        assert part in b
    with pytest.raises(ValueError, match="at least one network"):
        plots.probe_table([])


def test_heat_maps_are_of_two_colours_about_zero(tmp_path):
    """Negative entries blue, positive red, in a picture of its own frame."""
    signs = np.array([[1.0, -1.0], [-1.0, 1.0]])
    plots.heat_maps({"signs": signs}, tmp_path / "a.png")
    pixels = matplotlib.image.imread(tmp_path / "a.png")[..., :3]
    pixels = pixels[:, : int(0.7 * pixels.shape[1])]  # the scale is to the right
    red = (pixels[..., 0] > 0.35) & (pixels[..., 2] < 0.2)
    blue = (pixels[..., 2] > 0.3) & (pixels[..., 0] < 0.1)
    assert red.sum() > 1000
    assert blue.sum() > 1000
    top, left = np.argwhere(red).min(axis=0)
    assert red[top + 5, left + 5]  # row 0 is on top
    plots.heat_maps({str(k): np.eye(3) for k in range(5)}, tmp_path / "b.png", columns=2, title="t")
    assert matplotlib.image.imread(tmp_path / "b.png").shape[0] > pixels.shape[0]


@pytest.mark.parametrize(
    ("maps", "columns", "message"),
    [
        ({}, 4, "wanted matrices"),
        ({"a": np.eye(2)}, 0, "in 0"),
        ({"a": np.ones(3)}, 4, r"maps\['a'\] must be a finite matrix, got shape \[3\]"),
        ({"a": np.array([[np.nan]])}, 4, "finite matrix"),
    ],
)
def test_what_cannot_be_drawn(maps, columns, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        plots.heat_maps(maps, tmp_path / "a.png", columns=columns)
