"""A run of the smallest network on two clusters in the plane.

Truth: files that were written are read again by numpy and the csv module, and compared. Networks
are trained for seconds: what is tested is the way from a command to a file.
"""

import numpy as np
import pytest

from jaxdiff.cli import main
from tests.cli.commands import SMALL


@pytest.fixture(scope="session")
def points(tmp_path_factory):
    """Two labelled clusters in the plane."""
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    x = np.where(y[:, None] == 0, -0.5, 0.5) + 0.1 * rng.normal(size=(200, 2))
    path = tmp_path_factory.mktemp("data") / "points.npz"
    np.savez(path, x=x.astype(np.float32), y=y)
    return path


@pytest.fixture(scope="session")
def run(points, tmp_path_factory):
    """A run of 40 steps."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", str(points), "--out", str(out), "--steps", "40", *SMALL]) == 0
    return out
