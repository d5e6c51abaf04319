"""Mistakes end in one line that says what was given and what was wanted, and in status 2."""

import shutil

import numpy as np
import pytest

from jaxdiff.cli import main
from jaxdiff.training import rundir
from tests.cli.commands import EPS, complaint

FLOOR = ["--loss.times", "importance", "--loss.times-options", "floor"]


LENGTH = ["--training.steps", "7", "--training.seconds", "5"]


NARROW = ["--schedule.name", "ve", "--schedule.options", "sigma_max", "0.3"]
NARROW += ["--parametrization.name", "eps"]


BOUND, FLOW = ["--method", "elbo"], ["--method", "ode-exact"]
PLUS, RANGE = ["--method", "ode-hutchpp"], ["--value-range", "0", "4"]
LONG = "{tmp}/" + "a" * 245 + ".json"  # the hidden neighbour's name, not its own, is too long


CHAIN = ["--schedule.name", "linear_betas", "--schedule.options", "num_steps"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["trian"],
            "command must be one of train, classifier, autoencoder, learn-grid,",
        ),
        (["train", "cats"], "unknown data 'cats': must be one of digits, FILE.npz"),
        (["train", "absent.npz", "--out", "x"], "no data file absent.npz"),
        (["train", "digits", "--data.latents", "{tmp}/none", "--out", "x"], "there is no run of"),
        (["train", "digits"], "--out RUN is needed"),
        (["train", "--out", "x"], "DATA comes first"),
        (["train", "digits", "--preset", "best"], "preset must be one of digits, mnist"),
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
        (["train", "digits", "--optimizer.lr", "-1", "--dry-run"], "optimizer.lr must lie in"),
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
        (["train", "{points}", "--dry-run", *NARROW], "must end with noise beyond the data's"),
        (["likelihood", "{tmp}", *BOUND], "is not a run directory"),
        (["likelihood", "{run}", *BOUND], "give --bins N, or --density"),
        (
            ["likelihood", "{run}", *BOUND, "--bins", "5"],
            "--bins 5: points.npz must hold the 5 values",
        ),
        (["likelihood", "{run}", *BOUND, "--bins", "1"], "--bins must be at least 2, got 1"),
        (["likelihood", "{run}", *BOUND, "--data", "{wide}"], "value_range=(low, high)"),
        (
            ["likelihood", "{run}", *BOUND, "--data", "{wide}", *RANGE, "--bins", "6"],
            "--bins 6: wide",
        ),
        (["likelihood", "{run}", *BOUND, *RANGE], "--value-range is of --data"),
        (["evaluate", "{run}", "--samples", "{points}", *RANGE], "--value-range is of --data"),
        (
            ["likelihood", "{run}", *BOUND, "--raw", "--ema", "0.1"],
            "--ema and --raw say different parameters",
        ),
        (
            ["sample", "{run}", "--out", "{tmp}/a.npz", "--raw", "--ema", "0.1"],
            "--ema and --raw say different",
        ),
        (["likelihood", "{run}", *BOUND, "--bins", "5", "--density"], "--density has no bins"),
        (["likelihood", "{run}", *BOUND, "--data", "digits"], "[8, 8, 1], the model is of [2]"),
        (["likelihood", "{run}", *BOUND, "--probes", "3"], "--probes is not of --method elbo"),
        (["likelihood", "{run}", *FLOW, "--max-steps", "9", "--eta", "1"], "--eta is not of"),
        (["likelihood", "{run}", *FLOW, "--clip"], "--clip is not of --method ode-exact"),
        (["likelihood", "{run}", *FLOW, "--probes", "3"], "--probes is not of --method ode-exact"),
        (
            ["likelihood", "{run}", *FLOW, "--density", "--start", "0"],
            "--start must be a time with noise",
        ),
        (["likelihood", "{run}", *FLOW, "--density", "--start", "7"], "--start must lie in [0, 1)"),
        (["likelihood", "{run}", *PLUS, "--density", "--probes", "0"], "--probes must be at least"),
        (
            ["likelihood", "{run}", *PLUS, "--density", "--probes", "3"],
            "--probes must be at most 2",
        ),
        (["likelihood", "{run}", *FLOW, "--max-steps", "0"], "--max-steps must be at least 1"),
        (["likelihood", "{run}", *FLOW, "--density", "--atol", "nan"], "--atol must lie in"),
        (["likelihood", "{run}", *FLOW, "--density", "--rtol", "0"], "--rtol must lie in"),
        (["likelihood", "{run}", *FLOW, "--density", "--n", "0"], "--n must be at least 1"),
        (["likelihood", "{run}", *FLOW, "--density", "--draws", "0"], "--draws must be at least 1"),
        (["likelihood", "{run}", *FLOW, "--density", "--seed", "-1"], "--seed must lie in"),
        (["likelihood", "{run}", *BOUND, "--density", "--eta", "0"], "--eta must lie in (0, 1]"),
        (["likelihood", "{run}", *BOUND, "--last-std", "0"], "--last-std must lie in (0, inf)"),
        (["likelihood", "{run}", *BOUND, "--density", "--grid", "leading"], "needs a from_betas"),
        (
            ["likelihood", "{run}", *BOUND, "--density", "--steps", "0"],
            "--steps must be at least 1",
        ),
        (["likelihood", "{run}", *BOUND, "--out", "a.txt"], "--out must end in .csv or .json"),
        (["likelihood", "{run}", *BOUND, "--plot", "a.gif"], "--plot must end in"),
        (["likelihood", "{run}", *BOUND, "--plot", "{tmp}/b/a.png"], "no directory"),
        (["likelihood", "{run}", *BOUND, "--plot", "{folder}"], "--plot must be a file, got"),
        (["likelihood", "{run}", *BOUND, "--out", LONG], "--out cannot be written: File name too"),
        (
            ["sample", "{run}", "--out", "{tmp}/a.npz", "--plot", "{folder}"],
            "--plot must be a file",
        ),
        (["inspect", "{tmp}"], "is not a run directory"),
    ],
)
def test_mistakes_end_in_one_line_and_2(arguments, words, run, points, tmp_path, capsys):
    places = {"{tmp}": tmp_path, "{run}": run, "{points}": points}
    arrays = {"words": np.full((20, 2), "ink"), "far": np.full((20, 2), 9.0)}
    arrays["wide"] = np.arange(40).reshape(20, 2) % 5
    for name, x in arrays.items():
        places[f"{{{name}}}"] = tmp_path / f"{name}.npz"
        np.savez(places[f"{{{name}}}"], x=x)
    places["{folder}"] = tmp_path / "folder.png"
    places["{folder}"].mkdir()
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


META = "checkpoints/40/meta.json"


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
        (META, b"{}", "meta.json was altered; there is no sound one"),
        (META, b"[", "no checkpoint in"),
        ("checkpoints/40/state/_METADATA", b"x", "state/_METADATA was altered"),
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
