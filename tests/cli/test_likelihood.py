"""Likelihoods from the command line.

Truth: numpy's means and deviations and SciPy's t of the numbers of each example that were written;
that an example's number depends on neither batch nor set; float32 beside what is refused. That the
numbers themselves are right, the tests of `jaxdiff.likelihood` show.
"""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import matplotlib.image
import numpy as np
import pytest
from scipy import stats

from jaxdiff.cli import main, runs
from jaxdiff.config.fields import DataConfig
from jaxdiff.training import rundir
from tests.cli.commands import complaint

BOUND = ["--method", "elbo", "--steps", "4", "--n", "20"]
FLOW = ["--method", "ode-hutchinson", "--probes", "2", "--rtol", "1e-3", "--atol", "1e-3"]
FLOW += ["--density", "--n", "20", "--start", "0.05"]


@pytest.fixture(scope="module")
def whole(points, tmp_path_factory):
    """The same points as bytes, which say themselves how many values they take."""
    with np.load(points, allow_pickle=False) as file:
        x, y = file["x"], file["y"]
    path = tmp_path_factory.mktemp("data") / "whole.npz"
    np.savez(path, x=np.rint((x + 1) * 127.5).astype(np.uint8), y=y)
    return path


def measured(run, tmp_path, *options, name="a.json"):
    """What the file of a run of the command holds."""
    path = tmp_path / name
    command = ["likelihood", run, "--out", path, *options]
    assert main([str(a) for a in command]) == 0
    return json.loads(path.read_text()) if name.endswith(".json") else path


def test_the_numbers_belong_together(run, whole, tmp_path, capsys):
    found = measured(run, tmp_path, *BOUND, "--data", whole, "--plot", tmp_path / "a.png")
    x = np.array(found["examples"])
    assert (found["n"], found["dims"], found["bins"], found["checkpoint"]) == (20, 2, 256, 40)
    # sums of some ten float32 numbers of order one
    close = {"rtol": 1e-5, "atol": 1e-6}
    np.testing.assert_allclose(found["bits_per_dim"], x.mean(), **close)
    np.testing.assert_allclose(found["nats"], -2 * np.log(2) * x.mean(), **close)
    np.testing.assert_allclose(sum(found["terms"].values()), x.mean(), **close)
    np.testing.assert_allclose(
        sum(found["steps"]["bits_per_dim"]), found["terms"]["steps"], **close
    )
    error = x.std(ddof=1) / np.sqrt(20)
    np.testing.assert_allclose(found["bits_errors"]["total"], error, rtol=1e-4)
    interval = stats.t.interval(0.95, 19, x.mean(), error)
    np.testing.assert_allclose(found["bits_interval"], interval, rtol=1e-4)
    assert found["bits_errors"]["dequantisation"] == 0
    assert 0 < found["bits_errors"]["probes"] < found["bits_errors"]["total"]
    assert np.all(np.diff(found["steps"]["log_snr"]) > 0)  # from the noisy end on
    assert matplotlib.image.imread(tmp_path / "a.png").shape == (400, 1000, 4)
    shown = capsys.readouterr().out
    for number in (found["bits_per_dim"], found["nats"], *found["terms"].values()):
        assert (f"{number:.4f}" if number else " 0 ") in shown
    assert "bits/dim ≤" in shown
    assert "of so few examples errors by cause are rough" in " ".join(shown.split())


@pytest.mark.slow
def test_the_batch_changes_nothing_and_csv_is_json(run, whole, tmp_path):
    options = [*BOUND, "--data", whole]
    found = measured(run, tmp_path, *options)
    path = measured(run, tmp_path, *options, "--batch", "7", name="a.csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    examples = [float(row["value"]) for row in rows if row["quantity"] == "examples"]
    # matrix products of another batch size round otherwise
    np.testing.assert_allclose(examples, found["examples"], rtol=1e-4, atol=1e-4)
    single = {row["quantity"]: row["value"] for row in rows if not row["index"]}
    assert single["method"] == "elbo"
    assert float(single["bits_errors.total"]) == pytest.approx(
        found["bits_errors"]["total"], rel=1e-3
    )


@pytest.mark.slow
def test_what_changes_the_numbers(run, whole, tmp_path):
    options = [*BOUND, "--data", whole]
    base = measured(run, tmp_path, *options)
    assert measured(run, tmp_path, *options) == base
    changes = (["--labels"], ["--seed", "1"], ["--raw"], ["--split", "train"], ["--eta", "0.5"])
    for more in (*changes, ["--variance", "large"]):
        other = measured(run, tmp_path, *options, *more)
        assert np.isfinite(other["examples"]).all(), more
        assert other["examples"] != base["examples"], more


def test_a_density_has_no_bins(run, tmp_path, capsys):
    """Its nats are those of Gaussian data of deviation 0.1 at best: differential entropy."""
    found = measured(run, tmp_path, *BOUND, "--density", "--last-std", "0.2")
    assert found["bins"] is None
    # the clusters are a fair coin of two Gaussians of 0.1 in the plane: no density does better
    # on average than minus their entropy, up to the error of 20 examples
    entropy = np.log(2) + 2 * 0.5 * np.log(2 * np.pi * np.e * 0.1**2)
    assert found["nats"] < -entropy + 3 * found["nats_errors"]["total"]
    assert "bits/dim of density ≤" in capsys.readouterr().out


def test_other_data_are_read_with_what_options_fit_them():
    own = DataConfig("pictures", value_range=(0.0, 4.0), size=32, strict=True, augment=0.1)
    assert runs.other_data(own, None, None) is own
    other = runs.other_data(own, "a.npz", None)
    assert (other.value_range, other.size, other.strict) == ((0, 4), None, False)
    assert (other.source, other.augment) == ("a.npz", 0.1)
    assert runs.other_data(own, "digits", None).value_range is None
    assert runs.other_data(own, "a.npy", (0.0, 1.0)).value_range == (0, 1)


@pytest.mark.parametrize(
    ("part", "change", "options", "words"),
    [
        ("loss", {"cond_dropout": 0.0}, [], "knows nothing without a label: give --labels"),
        ("data", {"label_counts": []}, ["--labels"], "the model was trained without labels"),
        ("data", {"label_counts": [180]}, ["--labels"], "--labels must be in 0..0, got 1"),
    ],
)
def test_labels_that_are_not_there(part, change, options, words, run, tmp_path, capsys):
    other = tmp_path / "run"
    shutil.copytree(run, other)
    values, total = rundir.read_config(other)
    rundir.write_config(other, {**values, part: {**values[part], **change}}, total)
    assert words in complaint(["likelihood", other, *BOUND, "--density", *options], capsys)


@pytest.mark.slow
def test_half_precision_is_put_aside(run, whole, tmp_path, capsys):
    half = tmp_path / "half"
    shutil.copytree(run, half)
    values, total = rundir.read_config(half)
    model = {**values["model"], "dtype": "bfloat16"}
    rundir.write_config(half, {**values, "model": model}, total)
    options = [*BOUND, "--data", whole]
    found = measured(half, tmp_path, *options)
    assert "trained in bfloat16 and is evaluated in float32" in capsys.readouterr().err
    assert found == measured(run, tmp_path, *options)


def test_the_flow(run, tmp_path, capsys):
    found = measured(run, tmp_path, *FLOW, "--plot", tmp_path / "a.png")
    assert list(found["terms"]) == ["prior", "volume"]
    assert found["bits_errors"]["dequantisation"] == 0
    assert 0 < found["bits_errors"]["probes"] < found["bits_errors"]["total"]
    assert matplotlib.image.imread(tmp_path / "a.png").shape == (400, 700, 4)
    assert "2 rademacher probes" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_the_flow_in_batches(run, tmp_path):
    whole = measured(run, tmp_path, *FLOW)
    parts = measured(run, tmp_path, *FLOW, "--batch", "13")
    # a batch shares its steps; each example is within some tolerances, 1e-3, of the exact flow
    np.testing.assert_allclose(parts["examples"], whole["examples"], atol=2e-2)


@pytest.mark.slow
def test_probes_agree_with_the_trace_on_whole_numbers(run, whole, tmp_path):
    """Within 4 errors of the draws alone: dequantisation is the same, by equal keys."""
    options = ["--data", whole, "--n", "20", "--start", "0.05"]
    exact = measured(run, tmp_path, *options, "--method", "ode-exact")
    assert exact["bits_errors"]["probes"] == 0
    assert exact["bits_errors"]["dequantisation"] > 0
    for method in ("ode-hutchinson", "ode-hutchpp"):
        probes = ["--probes", "2"]
        found = measured(run, tmp_path, *options, "--method", method, *probes)
        error = found["bits_errors"]["probes"] + 1e-4
        assert abs(found["bits_per_dim"] - exact["bits_per_dim"]) < 4 * error, method


# rounding decides whether steps end for being too many or too small
_EITHER = "(max_steps_reached|step_underflow)"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "status"),
    [
        (["--rtol", "1e-12", "--atol", "1e-12"], _EITHER),
        (["--max-steps", "2"], "max_steps_reached"),
    ],
)
def test_a_failed_solve_is_named(option, status, run, tmp_path, capsys):
    said = complaint(["likelihood", run, *FLOW, *option], capsys)
    last = said.strip().splitlines()[-1]
    assert re.match(f"jaxdiff likelihood: error: solver status {status} after", last), last
    assert "loosen rtol and atol" in last
    assert "Traceback" not in said


@pytest.mark.slow
def test_ctrl_c_ends_quietly(run, whole):
    command = [sys.executable, "-m", "jaxdiff", "likelihood", str(run), "--method", "elbo"]
    command += ["--data", str(whole), "--split", "all", "--steps", "20000", "--batch", "4"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    time.sleep(15)  # into the work, or at least into the command
    process.send_signal(signal.SIGINT)
    try:
        said = process.communicate(timeout=120)[1]
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in said
