"""Guidance on the command line. Truth: at the scale that changes nothing, samples are those of the
model alone; and numpy reads what was written.
"""

import json
import shutil

import numpy as np
import pytest

from jaxdiff.cli import main
from jaxdiff.samplers.base import _run
from jaxdiff.training import checkpoint, rundir

NETWORK = ["--preset", "dit", "--model.width", "16", "--model.depth", "1", "--model.heads", "1"]
READER = ["--model.channels", "4", "--model.groups", "2", "--model.multipliers", "1"]
TRAIN = ["--training.log-every", "4", "--optimizer.warmup", "0", "--optimizer.ema-decay", "0.5"]
TRAIN += ["--training.devices", "1"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Dark and bright images of 4x4."""
    rng = np.random.default_rng(0)
    y = np.arange(64) % 2
    x = np.where(y == 0, -0.6, 0.6)[:, None, None, None] + 0.1 * rng.normal(size=(64, 4, 4, 1))
    path = tmp_path_factory.mktemp("data") / "images.npz"
    np.savez(path, x=x.astype(np.float32), y=y)
    return path


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    """A model of 12 steps."""
    out = tmp_path_factory.mktemp("runs") / "model"
    assert main(["train", str(images), "--out", str(out), "--steps", "12", *NETWORK, *TRAIN]) == 0
    return out


@pytest.fixture(scope="module")
def reader(images, tmp_path_factory):
    """A classifier of 12 steps."""
    out = tmp_path_factory.mktemp("runs") / "reader"
    command = ["classifier", str(images), "--out", str(out), "--steps", "12", *READER, *TRAIN]
    assert main(command) == 0
    return out


def changed(run, path, **values):
    """A copy of a run whose configuration says otherwise, such as loss__cond_dropout=0."""
    shutil.copytree(run, path)
    record = json.loads((path / "config.json").read_text())
    for name, value in values.items():
        part, field = name.split("__")
        record["config"][part][field] = value
    (path / "config.json").write_text(json.dumps(record))
    return path


def draw(run, path, *options):
    command = ["sample", str(run), "--out", str(path), "--steps", "3", "--n", "6", "--chunk", "2"]
    assert main([*command, *map(str, options)]) == 0
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


@pytest.mark.slow
@pytest.mark.parametrize(
    "by", ["itself", "classifier", pytest.param("autoguide", marks=pytest.mark.slow)]
)
def test_guidance_is_nothing_at_its_neutral_scale(by, run, reader, tmp_path):
    """w = 1 for two models, 0 for a classifier; or in an interval beyond all noise. Else something.

    Doubled batches round otherwise: 1e-5 over three steps.
    """
    flags = {
        "itself": [],
        "classifier": ["--classifier", reader],
        "autoguide": ["--autoguide", run],
    }
    alone = draw(run, tmp_path / "a.npz", "--label", 1)

    def change(*options):
        file = draw(run, tmp_path / "b.npz", "--label", 1, "--guidance", *options, *flags[by])
        assert file["y"].tolist() == [1] * 6
        return np.abs(file["x"] - alone["x"]).max()

    assert change(0 if by == "classifier" else 1) < 1e-5
    assert change(9, "--guidance-interval", 1e6, 1e7) < 1e-5
    # a model guided away from itself stays itself
    assert (change(50) > 1e-5) == (by != "autoguide")


@pytest.mark.slow
def test_chunks_share_one_program(run, reader, tmp_path):
    before = _run._cache_size()
    draw(run, tmp_path / "a.npz", "--guidance", 3, "--rescale", 0.7)
    draw(run, tmp_path / "a.npz", "--guidance", 2, "--rescale", 0.3, "--label", 0)
    assert _run._cache_size() == before + 1


def test_the_classifiers_run_is_a_run(reader, capsys):
    """Its log has the accuracy; nothing of denoising is in its configuration."""
    assert [row["step"] for row in rundir.read_log(reader)] == [4, 8, 12]
    assert all(0 <= row["accuracy"] <= 1 for row in rundir.read_log(reader))
    assert checkpoint.finished_steps(rundir.checkpoints(reader)) == [12]
    config, _ = rundir.read_config(reader)
    assert set(config) == {"preset", "data", "model", "schedule", "optimizer", "training"}
    assert main(["inspect", str(reader)]) == 0
    assert '"kind": "classifier"' in capsys.readouterr().out


@pytest.mark.slow
def test_a_classifier_resumes(reader, images, tmp_path):
    """And goes on with its log and its checkpoints."""
    rested = tmp_path / "rested"
    shutil.copytree(reader, rested)
    command = ["classifier", str(images), "--out", str(rested), "--steps", "16", "--resume"]
    assert main([*command, *READER, *TRAIN]) == 0
    assert checkpoint.finished_steps(rundir.checkpoints(rested)) == [12, 16]
    assert [row["step"] for row in rundir.read_log(rested)] == [4, 8, 12, 16]


def test_bad_guidance_is_one_line(run, reader, images, tmp_path, capsys):
    """Status 2, and what is wrong, before anything is compiled."""
    strict = changed(run, tmp_path / "strict", loss__cond_dropout=0.0)
    blind = changed(run, tmp_path / "blind", data__label_counts=[])
    other = changed(run, tmp_path / "other", schedule__name="linear_vp")
    large = changed(reader, tmp_path / "large", data__shape=[8, 8, 1])
    three = changed(reader, tmp_path / "three", data__label_counts=[1, 1, 1])
    np.savez(tmp_path / "plain.npz", x=np.zeros((64, 4, 4, 1), np.float32))
    sampling = {
        "trained without labels": [blind, "--guidance", 2],
        "cond_dropout 0": [strict, "--guidance", 2],
        "needs --guidance": [run, "--rescale", 0.5],
        "--classifier needs --guidance": [run, "--classifier", reader],
        r"rescale must lie in [0, 1], got 1.5": [run, "--guidance", 2, "--rescale", 1.5],
        "high must lie in (3, inf], got 1": [run, "--guidance", 2, "--guidance-interval", 3, 1],
        "got both": [run, "--guidance", 2, "--classifier", reader, "--autoguide", run],
        "holds a model": [run, "--guidance", 2, "--classifier", run],
        "holds a classifier": [run, "--guidance", 2, "--autoguide", reader],
        "draws nothing": [reader],
        "another schedule": [run, "--guidance", 2, "--autoguide", other],
        "its examples are [8, 8, 1]": [run, "--guidance", 2, "--classifier", large],
        "knows 3 classes": [run, "--guidance", 2, "--classifier", three],
        "by two models": [run, "--guidance", 2, "--classifier", reader, "--rescale", 0.5],
        "it needs labels": [blind, "--guidance", 2, "--autoguide", run],
        "--label must be in 0..1": [run, "--guidance", 2, "--label", 7],
        "is not a run directory": [run, "--guidance", 2, "--classifier", tmp_path],
        "scale must be finite": [run, "--guidance", "nan"],
    }
    out, before = ["--out", str(tmp_path / "x.npz")], _run._cache_size()
    cases = {said: ["sample", *map(str, flags), *out] for said, flags in sampling.items()}
    cases |= {
        "needs data with labels": ["classifier", str(tmp_path / "plain.npz"), "--dry-run"],
        "jaxdiff classifier resumes it": ["train", str(images), "--out", str(reader), "--resume"],
        "jaxdiff train resumes it": ["classifier", str(images), "--out", str(run), "--resume"],
    }
    for said, command in cases.items():
        capsys.readouterr()
        assert main(command) == 2, said
        line = capsys.readouterr().err
        assert said in line
        assert line.count("\n") == 1
    assert _run._cache_size() == before


@pytest.mark.slow
def test_an_unconditional_model_takes_the_classifiers_labels(run, reader, images, tmp_path):
    """Their proportions and their range are the classifier's."""
    out = tmp_path / "blind"
    command = ["train", str(images), "--out", str(out), "--steps", "2", *NETWORK, *TRAIN]
    assert main([*command, "--data.no-labels"]) == 0
    file = draw(out, tmp_path / "a.npz", "--guidance", 2, "--classifier", reader)
    assert set(file["y"].tolist()) == {0, 1}
    assert "y" not in draw(out, tmp_path / "b.npz")
