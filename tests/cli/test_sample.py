"""Samples from the command line, read again by numpy."""

import numpy as np
import pytest

from jaxdiff.cli import main
from jaxdiff.cli.sample import spread_labels
from tests.cli.commands import SMALL, complaint, draw


def test_sample_writes_data(run, tmp_path):
    file = draw(run, tmp_path / "a.npz", "--n", "20", "--plot", str(tmp_path / "a.png"))
    assert file["x"].shape == (20, 2)
    assert file["x"].dtype == np.float32
    assert np.abs(file["x"]).max() <= 1
    assert sorted(set(file["y"])) == [0, 1]
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_neither_n_nor_the_chunk_changes_a_sample(run, tmp_path):
    whole = draw(run, tmp_path / "a.npz", "--n", "12", "--sampler", "ddpm")
    parts = draw(run, tmp_path / "b.npz", "--n", "7", "--chunk", "3", "--sampler", "ddpm")
    # Matrix products of another batch size round otherwise.
    np.testing.assert_allclose(parts["x"], whole["x"][:7], atol=1e-5)
    np.testing.assert_array_equal(parts["y"], whole["y"][:7])


def test_seed_eta_and_weights_change_samples(run, tmp_path):
    base = draw(run, tmp_path / "a.npz", "--n", "4")["x"]
    again = draw(run, tmp_path / "b.npz", "--n", "4")["x"]
    np.testing.assert_array_equal(base, again)
    for options in (["--seed", "1"], ["--eta", "1"], ["--raw"], ["--grid", "karras"]):
        other = draw(run, tmp_path / "c.npz", "--n", "4", *options)["x"]
        assert np.abs(other - base).max() > 1e-4, options


def test_label_is_drawn(run, tmp_path):
    file = draw(run, tmp_path / "a.npz", "--n", "5", "--label", "1")
    assert file["y"].tolist() == [1] * 5


def test_labels_spread_in_proportion():
    labels = spread_labels((10, 0, 30), 400)
    # The discrepancy of the golden sequence at n = 400 is below some 5 points.
    np.testing.assert_allclose(np.bincount(labels), [100, 0, 300], atol=5)
    np.testing.assert_array_equal(spread_labels((10, 0, 30), 50), labels[:50])
    assert set(labels[:5]) == {0, 2}


def test_images_and_their_picture(tmp_path):
    small = ["--model.width", "16", "--model.depth", "1", "--model.heads", "1"]
    small += ["--training.devices", "1"]
    out = tmp_path / "run"
    command = ["train", "digits", "--out", str(out), "--preset", "dit", "--steps", "3", *small]
    assert main(command) == 0
    file = draw(out, tmp_path / "a.npz", "--n", "4", "--plot", str(tmp_path / "a.png"))
    assert file["x"].shape == (4, 8, 8, 1)
    assert (tmp_path / "a.png").stat().st_size > 0


@pytest.mark.slow
def test_label_of_an_unlabelled_run(points, tmp_path, capsys):
    out = tmp_path / "run"
    command = ["train", str(points), "--out", str(out), "--steps", "1", "--data.no-labels"]
    assert main([*command, *SMALL]) == 0
    file = draw(out, tmp_path / "a.npz", "--n", "2")
    assert "y" not in file
    capsys.readouterr()
    said = complaint(["sample", out, "--out", tmp_path / "b.npz", "--label", "0"], capsys)
    assert "trained without labels" in said


def test_what_is_said_is_said_word_by_word(run, tmp_path, capsys):
    """A path with brackets is no markup, and a long line is not broken."""
    path = tmp_path / "[bold]" / ("long" * 20 + ".npz")
    path.parent.mkdir()
    draw(run, path, "--n", "2")
    assert str(path) in capsys.readouterr().err
