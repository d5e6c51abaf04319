"""Truth: files that were written are read again by numpy and the csv module, and compared.

Networks are tiny and trained for seconds: what is tested is the way from a command to a file.
"""

import contextlib
import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxdiff import config as configs
from jaxdiff.cli import main, runs
from jaxdiff.cli.sample import _spread_labels
from jaxdiff.training import checkpoint, rundir

SMALL = ["--model.width", "16", "--model.depth", "1", "--training.log-every", "10"]

EPS = ["--parametrization.name", "eps"]
FLOOR = ["--loss.times", "importance", "--loss.times-options", "floor"]
LENGTH = ["--training.steps", "7", "--training.seconds", "5"]
CHAIN = ["--schedule.name", "linear_betas", "--schedule.options", "num_steps"]


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    """Two labelled clusters in the plane."""
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    x = np.where(y[:, None] == 0, -0.5, 0.5) + 0.1 * rng.normal(size=(200, 2))
    path = tmp_path_factory.mktemp("data") / "points.npz"
    np.savez(path, x=x.astype(np.float32), y=y)
    return path


@pytest.fixture(scope="module")
def run(points, tmp_path_factory):
    """A run of 40 steps."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", str(points), "--out", str(out), "--steps", "40", *SMALL]) == 0
    return out


def draw(run, path, *options):
    assert main(["sample", str(run), "--out", str(path), "--steps", "5", *options]) == 0
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


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
    labels = _spread_labels((10, 0, 30), 400)
    # The discrepancy of the golden sequence at n = 400 is below some 5 points.
    np.testing.assert_allclose(np.bincount(labels), [100, 0, 300], atol=5)
    np.testing.assert_array_equal(_spread_labels((10, 0, 30), 50), labels[:50])
    assert set(labels[:5]) == {0, 2}


def test_evaluate_prints_and_writes_the_table(run, tmp_path, capsys):
    draw(run, tmp_path / "a.npz", "--n", "60")
    command = ["evaluate", str(run), "--samples", str(tmp_path / "a.npz")]
    for name in ("table.csv", "table.json"):
        assert main([*command, "--out", str(tmp_path / name)]) == 0
    shown = capsys.readouterr().out
    for metric in ("Frechet distance, pixels", "PCA", "MMD", "precision", "recall", "copies"):
        assert metric in shown
    records = json.loads((tmp_path / "table.json").read_text())
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["value"]) for row in rows] == [record["value"] for record in records]
    assert records[0]["n"] == 60


def test_inspect_shows_the_run(run, tmp_path, capsys):
    assert main(["inspect", str(run), "--plot", str(tmp_path / "loss.png")]) == 0
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr().out
    for words in ('"width": 16', "conditioning", "total", "grad_norm", "steps: 40 of 40"):
        assert words in shown
    assert "checkpoints: 40" in shown


def test_images_and_their_picture(tmp_path):
    small = ["--model.width", "16", "--model.depth", "1", "--model.heads", "1"]
    out = tmp_path / "run"
    command = ["train", "digits", "--out", str(out), "--preset", "dit", "--steps", "3", *small]
    assert main(command) == 0
    file = draw(out, tmp_path / "a.npz", "--n", "4", "--plot", str(tmp_path / "a.png"))
    assert file["x"].shape == (4, 8, 8, 1)
    assert (tmp_path / "a.png").stat().st_size > 0


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


def test_overwrite_removes_the_run_and_nothing_else(points, tmp_path):
    command = ["train", str(points), "--out", str(tmp_path), *SMALL]
    assert main([*command, "--steps", "12"]) == 0
    (tmp_path / "samples.npz").write_bytes(b"kept")
    assert main([*command, "--steps", "5", "--overwrite"]) == 0
    assert checkpoint.finished_steps(rundir.checkpoints(tmp_path)) == [5]
    assert [row["step"] for row in rundir.read_log(tmp_path)] == [5]
    assert (tmp_path / "samples.npz").read_bytes() == b"kept"


def complaint(arguments, capsys):
    """What a command that must fail says."""
    status = main([str(a) for a in arguments])
    assert status == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "command must be one of train, sample, evaluate, inspect, got 'trian'"),
        (["train", "cats"], "unknown data 'cats': must be one of digits, FILE.npz"),
        (["train", "absent.npz", "--out", "x"], "no data file absent.npz"),
        (["train", "digits"], "--out RUN is needed"),
        (["train", "--out", "x"], "DATA comes first"),
        (["train", "digits", "--preset", "best"], "preset must be one of digits, mlp"),
        (["train", "digits", "--preset", "mlp"], "for vectors, got examples of shape [8, 8, 1]"),
        (["train", "digits", "--steps", "1", "--seconds", "1"], "--steps or --seconds, got both"),
        (["train", "digits", "--resume", "--overwrite"], "give one of them"),
        (["train", "digits", "--steps", "0", "--out", "{tmp}/x"], "steps must be a positive"),
        (["train", "digits", "--seconds", "-1", "--out", "{tmp}/x"], "seconds must be positive"),
        (["train"], "DATA comes first"),
        (["train", "digits", "--dry-run", *EPS], "a network that predicts eps says nothing"),
        (["train", "digits", "--dry-run", "--sampling.steps", "0"], "num_steps must be"),
        (["train", "digits", "--dry-run", "--sampling.grid", "leading"], "needs a from_betas"),
        (["train", "digits", "--dry-run", "--parametrization.sigma-data", "-1"], "sigma_data"),
        (["train", "digits", "--dry-run", "--training.keep", "0"], "keep must be a positive"),
        (["train", "digits", "--dry-run", "--training.accumulate", "3"], "accumulate=3"),
        (["train", "digits", "--dry-run", "--loss.cond-dropout", "2"], "cond_dropout"),
        (["train", "digits", "--dry-run", *FLOOR, "3"], "floor"),
        (["train", "digits", "--dry-run", *LENGTH], "either steps or seconds, got steps=7"),
        (["train", "{points}", "--dry-run", *CHAIN, "500.7"], "num_steps must be a whole number"),
        (["train", "{words}", "--dry-run", "--model.width", "8"], "must be an array of real"),
        (["train", "{far}", "--dry-run", "--model.width", "8"], "must lie in [-1, 1]"),
        (["train", "{points}", "--resume", "--out", "{run}", "--steps", "9"], "40 steps already"),
        (
            ["train", "{points}", "--resume", "--out", "{run}", "--seconds", "3"],
            "a resumed run keeps its number of steps",
        ),
        (
            ["train", "digits", "--schedule.options", "b", "1", "--dry-run"],
            "must be among offset, got 'b'",
        ),
        (["train", "digits", "--training.batch-size", "0"], "batch_size must be >= 1, got 0"),
        (["train", "digits", "--optimizer.lr", "-1", "--dry-run"], "'lr'"),
        (["train", "digits", "--model.groups", "7", "--dry-run"], "groups=7"),
        (["train", "digits", "--steps", "1", "--out", "{points}/x"], "Not a directory"),
        (["train", "{points}", "--steps", "1", "--out", "{run}"], "holds a run of 40 steps"),
        (["sample", "{tmp}", "--out", "{tmp}/a.npz"], "is not a run directory"),
        (["sample", "{run}", "--out", "{tmp}/a.png"], "--out must end in .npz"),
        (["sample", "{run}", "--out", "{tmp}/b/a.npz"], "no directory"),
        (["sample", "{run}", "--out", "{tmp}/a.npz", "--n", "0"], "--n must be at least 1"),
        (["sample", "{run}", "--out", "{tmp}/a.npz", "--steps", "0"], "--steps must be"),
        (["sample", "{run}", "--out", "{tmp}/a.npz", "--seed", "-1"], "--seed must lie in"),
        (["sample", "{run}", "--out", "{tmp}/a.npz", "--seed", str(2**70)], "--seed must lie in"),
        (["sample", "{run}", "--out", "{tmp}/a.npz", "--label", "2"], "must be in 0..1, got 2"),
        (["sample", "{run}", "--out", "{tmp}/a.npz", "--eta", "-1"], "eta must"),
        (
            ["sample", "{run}", "--out", "{tmp}/a.npz", "--sampler", "ddpm", "--eta", "1"],
            "ddpm takes variance",
        ),
        (["sample", "{run}", "--out", "{tmp}/a.npz", "--grid", "leading"], "needs a from_betas"),
        (["sample", "{run}", "--out", "{tmp}/a.npz", "--checkpoint", "7"], "(there are [40])"),
        (["sample", "{run}", "--out", "{tmp}/a.npz", "--plot", "a.gif"], "--plot must end in"),
        (["evaluate", "{run}", "--samples", "{tmp}/none.npz"], "none.npz"),
        (["evaluate", "{run}", "--samples", "{points}", "--data", "digits"], "of one shape"),
        (["evaluate", "{run}", "--samples", "{points}", "--out", "t.txt"], ".csv or .json"),
        (["inspect", "{tmp}"], "is not a run directory"),
    ],
)
def test_mistakes_end_in_one_line_and_2(arguments, words, run, points, tmp_path, capsys):
    places = {"{tmp}": tmp_path, "{run}": run, "{points}": points}
    for name, x in {"words": np.full((20, 2), "ink"), "far": np.full((20, 2), 9.0)}.items():
        places[f"{{{name}}}"] = tmp_path / f"{name}.npz"
        np.savez(places[f"{{{name}}}"], x=x)
    for name, place in places.items():
        arguments = [argument.replace(name, str(place)) for argument in arguments]
    said = complaint(arguments, capsys)
    *notes, last = said.strip().splitlines()
    assert words in last
    assert last.startswith("jaxdiff")
    assert "Traceback" not in said
    assert not notes


@pytest.mark.parametrize(
    ("arguments", "choices"),
    [
        (["train", "digits", "--schedule.name", "straight"], ("rectified", "edm", "cosine")),
        (["train", "digits", "--parametrization.name", "noise"], ("eps", "x0", "flow")),
        (["train", "digits", "--loss.weight", "flat"], ("min_snr", "sigmoid")),
        (["train", "digits", "--model.chanels", "8"], ("--model.channels",)),
        (["sample", "run", "--out", "a.npz", "--sampler", "euler?"], ("ddpm", "ddim")),
        (["sample", "run", "--out", "a.npz", "--grid", "even"], ("karras", "trailing")),
    ],
)
def test_unknown_names_list_the_choices(arguments, choices, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    said = captured.err + captured.out
    for choice in choices:
        assert choice in said
    assert "Traceback" not in said


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


META = "checkpoints/40/meta/metadata"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", b"{", "config.json is damaged"),
        ("config.json", b"\xff\xfe{}", "config.json is damaged"),
        ("config.json", b"[" * 100_000, "config.json is damaged"),
        ("config.json", ("model", {"kind": []}), "config.model.kind must be one of"),
        ("config.json", ("data", {"shape": [-2]}), "config.json is damaged"),
        ("log.csv", b"when,loss\n1,2\n", "log.csv is damaged: columns must hold step, seconds"),
        ("log.csv", b"step,seconds,loss\n1,2,abc\n", "log.csv is damaged: could not convert"),
        (META, b"{}", "checkpoints/40 is damaged"),
        (META, b"[", "checkpoints/40 is damaged"),
        ("checkpoints/40/state/_METADATA", b"x", "checkpoints/40 is damaged"),
    ],
)
def test_a_damaged_run_is_named(name, content, words, run, tmp_path, capsys):
    broken = tmp_path / "run"
    shutil.copytree(run, broken)
    if isinstance(content, tuple):
        values, total = rundir.read_config(broken)
        rundir.write_config(broken, {**values, content[0]: content[1]}, total)
    else:
        (broken / name).write_bytes(content)
    arguments = ["inspect", broken]
    if name.startswith("checkpoints"):
        arguments = ["sample", broken, "--out", tmp_path / "a.npz", "--n", "1"]
    assert words in complaint(arguments, capsys)


def test_evaluation_of_too_few_samples(run, tmp_path, capsys):
    draw(run, tmp_path / "a.npz", "--n", "1")
    said = complaint(["evaluate", run, "--samples", tmp_path / "a.npz"], capsys)
    assert "samples must hold at least k + 1 = 4 examples, got 1" in said


def test_resume_keeps_the_configuration(run, points, capsys):
    command = ["train", points, "--out", run, "--resume", "--steps", "40"]
    said = complaint([*command, "--optimizer.lr", "0.5"], capsys)
    assert "a resumed run keeps its configuration, got optimizer.lr 0.001 -> 0.5" in said
    assert "was begun with preset mlp" in complaint([*command, "--preset", "digits"], capsys)


def test_label_of_an_unlabelled_run(points, tmp_path, capsys):
    out = tmp_path / "run"
    command = ["train", str(points), "--out", str(out), "--steps", "1", "--data.no-labels"]
    assert main([*command, *SMALL]) == 0
    file = draw(out, tmp_path / "a.npz", "--n", "2")
    assert "y" not in file
    capsys.readouterr()
    said = complaint(["sample", out, "--out", tmp_path / "b.npz", "--label", "0"], capsys)
    assert "trained without labels" in said


@pytest.mark.parametrize("command", ["train", "sample", "evaluate", "inspect"])
def test_help(command, capsys):
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "usage: jaxdiff" in shown
    if command == "train":
        assert "--model.channels" in shown
        assert "--optimizer.lr" in shown


def test_help_of_a_preset_shows_its_network(capsys):
    assert main(["train", "x.npz", "--preset", "mlp", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--model.width" in shown
    assert "--model.channels" not in shown


def test_overview_is_quick():
    """It imports no network, optimiser, plotting or parsing library."""
    code = "import sys; from jaxdiff.cli import main; s = main(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    shown, modules = done.stdout.rsplit("jaxdiff inspect", 1)
    for command in ("train", "sample", "inspect"):
        assert command in shown
    heavy = {"flax", "optax", "orbax", "tyro", "matplotlib", "sklearn", "diffrax"}
    assert not heavy & set(modules.split())


def test_no_command_and_version(capsys):
    assert main([]) == 0
    assert "usage: jaxdiff COMMAND" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip()[0].isdigit()


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
