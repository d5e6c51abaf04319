"""What `jaxdiff train` shows and keeps under way, read from its files."""

import shutil

import numpy as np
import pytest
from PIL import Image

from jaxdiff.cli import main
from jaxdiff.training import checkpoint, rundir
from tests.cli.commands import SMALL, complaint, draw

TINY = ["--model.channels", "8", "--model.blocks", "1", "--model.multipliers", "1", "1"]
TINY += ["--training.batch-size", "16", "--training.log-every", "5", "--sampling.steps", "3"]


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """Ten steps on digits with everything on, its batches over two devices."""
    out = tmp_path_factory.mktemp("watched") / "run"
    options = ["--training.evaluate", "--training.best", "heldout_loss", "--training.tensorboard"]
    options += ["--training.save-every", "5", "--training.samples", "18", "--training.devices", "2"]
    options += ["--training.heldout", "40", "--data.augment", "0.5", "--loss.reduction", "sum"]
    options += ["--optimizer.name", "lamb", "--optimizer.more-ema-decays", "0.5", "0.9"]
    assert main(["train", "digits", "--out", str(out), "--steps", "10", *TINY, *options]) == 0
    return out


@pytest.mark.slow
def test_evaluates_draws_and_keeps_the_best(watched):
    rows = rundir.read_evaluations(watched)
    assert [row["step"] for row in rows] == [5, 10]
    assert set(rows[0]) == {"step", "seconds", "heldout_loss"}
    for step in (5, 10):
        with Image.open(rundir.samples(watched) / f"step_{step:08d}.png") as picture:
            assert min(picture.size) > 100
    best = checkpoint.best_step(rundir.checkpoints(watched))
    assert best == min(rows, key=lambda row: row["heldout_loss"])["step"]
    assert list(rundir.tensorboard(watched).iterdir())
    # The sum over 64 pixels of an untrained network's error, which is of order one a pixel.
    assert 10 < rundir.read_log(watched)[0]["loss"] < 300


@pytest.mark.slow
def test_samples_by_any_average_and_the_best_checkpoint(watched, tmp_path):
    drawn = {
        decay: draw(watched, tmp_path / f"{decay}.npz", "--n", "4", "--ema", decay)["x"]
        for decay in ("0.999", "0.5", "0.9")
    }
    assert np.abs(drawn["0.5"] - drawn["0.9"]).max() > 0
    raw = draw(watched, tmp_path / "raw.npz", "--n", "4", "--raw")["x"]
    # After ten steps the average with decay .5 is the nearest to the parameters themselves.
    far = {decay: np.abs(x - raw).mean() for decay, x in drawn.items()}
    assert far["0.5"] <= min(far.values())
    best = draw(watched, tmp_path / "best.npz", "--n", "4", "--checkpoint", "best")["x"]
    step = checkpoint.best_step(rundir.checkpoints(watched))
    same = draw(watched, tmp_path / "same.npz", "--n", "4", "--checkpoint", str(step))["x"]
    np.testing.assert_array_equal(best, same)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--training.best", "heldout_loss"], "needs --training.evaluate"),
        (["--training.best", "frechet", "--training.evaluate"], "--training.samples of 500"),
        (["--training.devices", "99"], "devices must be in 1..8, as many as there are, got 99"),
        (["--training.devices", "3"], "batch_size must be a multiple of devices=3, got 16"),
        (["--training.explode", "0.5"], "explode must be above 1, got 0.5"),
        (["--data.augment", "1.5"], "data.augment must"),
        (["--optimizer.more-ema-decays", "1.5"], "decays of averages must lie in [0, 1]"),
        (["--optimizer.more-ema-decays", "0.999"], "decays of averages must differ"),
        (["--training.samples", "0", "--training.evaluate"], "samples must be"),
        (["--training.heldout", "0", "--training.evaluate"], "heldout must be"),
    ],
)
def test_mistakes(options, words, tmp_path, capsys):
    out = tmp_path / "run"
    said = complaint(["train", "digits", "--out", out, "--steps", "1", *TINY, *options], capsys)
    assert words in said
    assert not out.exists()


def test_augmentation_is_for_images(points, tmp_path, capsys):
    arguments = ["train", points, "--out", tmp_path / "run", "--steps", "1", *SMALL]
    said = complaint([*arguments, "--data.augment", "0.1"], capsys)
    assert "images" in said


def test_an_average_that_is_not_kept(run, tmp_path, capsys):
    said = complaint(["sample", run, "--out", tmp_path / "x.npz", "--ema", "0.5"], capsys)
    assert "keeps averages of decay" in said
    said = complaint(["sample", run, "--out", tmp_path / "x.npz", "--checkpoint", "best"], capsys)
    assert "no checkpoint of" in said
    assert "--training.evaluate" in said


def test_a_damaged_checkpoint_is_one_line_of_warning(run, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    arguments = ["train", str(rundir.read_config(copy)[0]["data"]["source"]), "--out", str(copy)]
    assert main([*arguments, "--resume", "--steps", "50", *SMALL]) == 0
    data = rundir.checkpoints(copy) / "50" / "meta.json"
    data.write_text(data.read_text() + " ")
    capsys.readouterr()
    draw(copy, tmp_path / "x.npz", "--n", "2")
    said = capsys.readouterr().err
    assert "jaxdiff sample: warning: checkpoint" in said
    assert "meta.json was altered" in said
    assert "step 40, is used" in said


def test_a_lost_config_is_that_of_the_newest_checkpoint(run, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    source = rundir.read_config(copy)[0]["data"]["source"]
    (copy / "config.json").unlink()
    arguments = ["train", source, "--out", copy, "--resume", "--steps", "50", *SMALL]
    assert "keeps its configuration" in complaint([*arguments, "--optimizer.lr", "0.5"], capsys)
    assert main([str(a) for a in arguments]) == 0
    assert checkpoint.latest_step(rundir.checkpoints(copy)) == 50


def test_overwrite_removes_nothing_of_others(tmp_path, capsys):
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "thesis.png").write_text("years of work")
    arguments = ["train", "digits", "--out", tmp_path, "--steps", "1", "--overwrite", *TINY]
    assert "holds no run" in complaint(arguments, capsys)
    (tmp_path / "config.json").write_text('{"mine": 1}')
    assert "config.json is damaged" in complaint(arguments, capsys)
    assert (tmp_path / "samples" / "thesis.png").is_file()


@pytest.mark.slow
def test_inspect_shows_evaluations_and_the_best(watched, capsys):
    assert main(["inspect", str(watched)]) == 0
    said = capsys.readouterr().out
    assert "heldout_loss" in said
    assert f"{checkpoint.best_step(rundir.checkpoints(watched))} (best)" in said
