"""Averages of any width, rebuilt after the training from what its checkpoints left.

Truth: the average of that width that the training kept itself.
"""

import jax
import numpy as np
import pytest

from jaxdiff.cli import main, runs
from jaxdiff.training import ema, rundir, snapshots
from tests.cli.commands import SMALL, complaint, draw

WIDTHS = ["--optimizer.power-widths", "0.05", "0.1", "0.15", "--training.save-every", "10"]
WIDTHS += ["--training.keep", "1"]


def train(points, out, steps):
    command = ["train", str(points), "--out", str(out), "--steps", str(steps), *SMALL, *WIDTHS]
    assert main([*command, "--resume"]) == 0


@pytest.fixture(scope="module")
def wide(points, tmp_path_factory):
    """A run of 60 steps with three widths, begun with 20."""
    out = tmp_path_factory.mktemp("runs") / "wide"
    train(points, out, 20)
    train(points, out, 60)
    return out


def test_each_checkpoint_left_one(wide):
    assert snapshots.steps(rundir.averages(wide)) == [10, 20, 30, 40, 50, 60]
    snapshots.drop_after(rundir.averages(wide), 60)
    assert len(snapshots.steps(rundir.averages(wide))) == 6


def test_rebuilt_is_what_was_kept(wide, tmp_path):
    """Of the width .15 as kept: by itself exactly; by the other two to the misfit of profiles."""
    run = runs.open_run(wide)
    state, folder = run.restore(), rundir.averages(wide)
    kept = state.ema["width 0.15"]
    gamma = float(ema.power(0.15).gamma)
    found, off = snapshots.rebuild(folder, kept, gamma, 60)
    assert off < 1e-6
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6)  # noqa: E731
    jax.tree.map(close, found, kept)
    others = tmp_path / "averages"
    others.mkdir()
    for step in snapshots.steps(folder):
        with np.load(folder / f"{step}.npz") as file:
            arrays = {name: file[name] for name in file.files if not name.startswith("2/")}
        arrays["gammas"] = arrays["gammas"][:2]
        np.savez(others / f"{step}.npz", **arrays)
    found, off = snapshots.rebuild(others, kept, gamma, 60)
    assert 1e-4 < off < 0.1
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), state.params, kept)
    missed = jax.tree.map(lambda a, b: np.abs(a - b).max(), found, kept)
    # averages differ from the parameters, and the rebuilt one hardly from the kept one
    assert max(jax.tree.leaves(missed)) < 0.1 * max(jax.tree.leaves(moved))


def test_sample_by_width(wide, tmp_path):
    own = draw(wide, tmp_path / "a.npz", "--n", "4", "--ema-width", "0.1")["x"]
    other = draw(wide, tmp_path / "b.npz", "--n", "4", "--ema-width", "0.2")["x"]
    usual = draw(wide, tmp_path / "c.npz", "--n", "4")["x"]
    assert np.abs(own - other).max() > 1e-5
    assert np.abs(own - usual).max() > 1e-5


def test_mistakes(run, wide, points, tmp_path, capsys):
    sample = ["sample", "--n", "2", "--out", tmp_path / "a.npz"]
    for options, words in (
        ([run, "--ema-width", "0.1"], "train with --optimizer.power-widths"),
        ([wide, "--ema-width", "0.4"], "width must be in (0, 0.2887), got 0.4"),
        ([wide, "--ema-width", "0.1", "--raw"], "--ema-width and --raw say different parameters"),
        ([wide, "--ema", "0.3"], "keeps averages of decay 0.995, got 0.3"),
    ):
        assert words in complaint([*sample, *options], capsys)
    command = ["train", points, "--out", tmp_path / "run", "--steps", "5", *SMALL]
    for widths, words in (
        (["0.05", "0.05"], "widths of averages must differ"),
        (["0.5", "0.1"], "width must be in"),
    ):
        assert words in complaint([*command, "--optimizer.power-widths", *widths], capsys)
    damaged = rundir.averages(wide) / "30.npz"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:200])
    try:
        said = complaint([*sample, wide, "--ema-width", "0.1"], capsys)
    finally:
        damaged.write_bytes(whole)
    assert "30.npz is damaged" in said
