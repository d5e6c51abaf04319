"""Training from the command line: what is written, resumed, overwritten, interrupted."""

import contextlib
import csv
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxdiff import config as configs
from jaxdiff.cli import main, runs
from jaxdiff.training import checkpoint, rundir
from tests.cli.commands import EPS, SMALL, complaint


def test_train_writes_a_run(run, points):
    config = configs.from_json(rundir.read_config(run)[0])
    assert config.preset == "mlp"  # chosen by the data
    assert config.data.source == str(points)
    assert config.data.shape == (2,)
    assert config.model == configs.MLPConfig(width=16, depth=1)
    assert config.training.steps == 40
    with (run / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [10, 20, 30, 40]
    assert checkpoint.finished_steps(rundir.checkpoints(run)) == [40]


def test_dry_run_prints_the_configuration_and_writes_nothing(points, tmp_path, capsys):
    out = tmp_path / "run"
    command = ["train", str(points), "--out", str(out), "--dry-run", "--seconds", "9"]
    command += ["--optimizer.lr", "0.125", "--schedule.options", "offset", "0.01", "--seed", "5"]
    assert main(command) == 0
    config = configs.from_json(json.loads(capsys.readouterr().out))
    assert config.optimizer.lr == 0.125
    assert config.schedule.options == {"offset": 0.01}
    assert config.training.seconds == 9
    assert config.training.steps is None
    assert config.training.seed == 5
    assert not out.exists()


@pytest.mark.slow
def test_resume_goes_on_and_equals_a_run_in_one(points, tmp_path):
    """A run to 20 that is extended to 40 has another learning rate than one to 40 from the start,
    unless that is constant."""
    steady = [*SMALL, "--optimizer.decay", "constant"]
    halves, whole = (str(tmp_path / name) for name in ("halves", "whole"))
    for out, steps, more in (
        (halves, "20", []),
        (halves, "40", ["--resume"]),
        (whole, "40", []),
    ):
        assert main(["train", str(points), "--out", out, "--steps", steps, *steady, *more]) == 0
    a, b = (runs.open_run(Path(out)).restore() for out in (halves, whole))
    jax.tree.map(np.testing.assert_array_equal, (a.params, a.ema), (b.params, b.ema))
    assert rundir.read_config(halves)[1] == 40


@pytest.mark.slow
def test_overwrite_removes_the_run_and_nothing_else(points, tmp_path):
    command = ["train", str(points), "--out", str(tmp_path), *SMALL]
    assert main([*command, "--steps", "12"]) == 0
    (tmp_path / "samples.npz").write_bytes(b"kept")
    assert main([*command, "--steps", "5", "--overwrite"]) == 0
    assert checkpoint.finished_steps(rundir.checkpoints(tmp_path)) == [5]
    assert [row["step"] for row in rundir.read_log(tmp_path)] == [5]
    assert (tmp_path / "samples.npz").read_bytes() == b"kept"


def test_overwrite_that_cannot_train_removes_nothing(run, points, capsys):
    def content():
        return {path: path.stat().st_mtime_ns for path in run.rglob("*")}

    before = content()
    command = ["train", points, "--out", run, "--overwrite", *SMALL]
    for bad in (["--training.keep", "0"], ["--training.accumulate", "3"], EPS):
        complaint([*command, *bad], capsys)
        assert content() == before, bad


def test_vectors_that_need_a_range_choose_their_preset(tmp_path, capsys):
    path = tmp_path / "far.npz"
    np.savez(path, x=np.linspace(-9, 9, 40).reshape(20, 2))
    command = ["train", str(path), "--dry-run", "--data.value-range", "-9", "9", *SMALL]
    assert main(command) == 0
    config = configs.from_json(json.loads(capsys.readouterr().out))
    assert config.preset == "mlp"
    assert config.data.value_range == (-9, 9)


def test_dotted_seconds_take_the_place_of_steps(points, capsys):
    assert main(["train", str(points), "--dry-run", "--training.seconds", "5", *SMALL]) == 0
    config = configs.from_json(json.loads(capsys.readouterr().out))
    assert (config.training.steps, config.training.seconds) == (None, 5)


def test_resume_keeps_the_configuration(run, points, capsys):
    command = ["train", points, "--out", run, "--resume", "--steps", "40"]
    said = complaint([*command, "--optimizer.lr", "0.5"], capsys)
    assert "a resumed run keeps its configuration, got optimizer.lr 0.001 -> 0.5" in said
    assert "was begun with preset mlp" in complaint([*command, "--preset", "digits"], capsys)


@pytest.mark.slow
def test_ctrl_c_saves_exits_130_and_the_run_resumes(points, tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "jaxdiff", "train", str(points), "--out", str(out)]
    command += ["--steps", "1000000", *SMALL]
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)
    with contextlib.closing(process.stderr):
        while not (out / "log.csv").is_file() or not rundir.read_log(out):
            assert process.poll() is None, process.stderr.read()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        said = process.stderr.read()
    step = checkpoint.latest_step(rundir.checkpoints(out))
    assert f"SIGINT: saved at step {step}" in said
    shown = io.StringIO()
    with contextlib.redirect_stderr(shown):
        more = ["--resume", "--steps", str(step + 5)]
        assert main(["train", str(points), "--out", str(out), *SMALL, *more]) == 0
    assert checkpoint.latest_step(rundir.checkpoints(out)) == step + 5
