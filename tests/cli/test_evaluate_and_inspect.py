"""The tables that `evaluate` and `inspect` print and write.

Truth: the metrics themselves, each tested by its own formula, on the arrays in the files.
"""

import csv
import json

import numpy as np
import pytest
import scipy.special

from jaxdiff import metrics
from jaxdiff.cli import main
from jaxdiff.cli.judge import judge
from jaxdiff.cli.runs import open_run
from tests.cli.commands import complaint, draw

IMAGES = ["--model.channels", "4", "--model.multipliers", "1", "--model.groups", "2"]
IMAGES += ["--training.devices", "1"]


@pytest.fixture(scope="module")
def samples(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("samples") / "a[1].npz"
    draw(run, path, "--n", "60")
    return path


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A classifier of two kinds of images, and the images."""
    home = tmp_path_factory.mktemp("reader")
    y = np.arange(64) % 2
    noise = 0.1 * np.random.default_rng(0).normal(size=(64, 4, 4, 1))
    x = np.where(y == 0, -0.6, 0.6)[:, None, None, None] + noise
    np.savez(home / "images.npz", x=x.astype(np.float32), y=y)
    command = ["classifier", str(home / "images.npz"), "--out", str(home / "run")]
    steps = ["--steps", "60", "--optimizer.lr", "0.01", "--training.log-every", "20"]
    assert main([*command, *steps, *IMAGES]) == 0
    return home


def test_evaluate_prints_and_writes_the_table(run, samples, tmp_path, capsys):
    command = ["evaluate", str(run), "--samples", str(samples), "--bootstrap", "3"]
    for name in ("table.csv", "table.json"):
        assert main([*command, "--out", str(tmp_path / name)]) == 0
    shown = capsys.readouterr().out
    for words in (
        "Frechet",
        "KID",
        "MMD",
        "precision",
        "recall",
        "density",
        "coverage",
        "a[1].npz",
    ):
        assert words in shown
    records = json.loads((tmp_path / "table.json").read_text())
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(records[0]) == list(metrics.Row._fields)
    for row, record in zip(rows, records, strict=True):
        assert [row[name] for name in row] == [str(value) for value in record.values()]
        line = next(line for line in shown.splitlines() if record["metric"] in line)
        assert f"{record['value']:.4f} ± {record['error']:.4f}" in line  # on one line of 80
    assert records[0]["n"] == 60


def test_evaluate_in_principal_components_of_a_limited_part(run, points, samples, tmp_path):
    """Rows evenly spaced among all, the held-out rows by the reader's own choice: one in ten."""
    out = tmp_path / "table.json"
    options = ["--features", "pca", "--limit", "15", "--k", "2", "--bootstrap", "2", "--seed", "5"]
    assert main(["evaluate", str(run), "--samples", str(samples), "--out", str(out), *options]) == 0
    found = json.loads(out.read_text())
    with np.load(points) as file, np.load(samples) as drawn:
        x, ours = file["x"], drawn["x"]
    heldout = np.arange(200) % 10 == 9
    assert {record["n_real"] for record in found} == {15}
    spaced = [z[np.arange(15) * len(z) // 15] for z in (ours, x[~heldout], x[heldout])]
    pca = metrics.fit_pca(spaced[2], 16)
    expected = metrics.evaluate(*spaced, features=pca, k=2, resamples=2, seed=5)
    assert [record["metric"] for record in found] == [row.metric for row in expected]
    assert found[4]["metric"] == "precision, k=2"
    for record, row in zip(found, expected, strict=True):
        assert (record["value"], record["error"]) == pytest.approx(row[1:3], rel=1e-6)


@pytest.mark.slow
def test_evaluate_by_a_classifier(run, reader, tmp_path, capsys):
    """Samples of which half were asked to be what they are not."""
    with np.load(reader / "images.npz") as file:
        x, y = file["x"], file["y"]
    wrong = np.where(np.arange(64) < 32, 1 - y, y)
    np.savez(tmp_path / "a.npz", x=x, y=wrong)
    command = ["evaluate", str(reader / "run"), "--samples", str(tmp_path / "a.npz")]
    command += ["--features", str(reader / "run"), "--bootstrap", "2"]
    assert main([*command, "--k-coverage", "2", "--k", "1", "--out", str(tmp_path / "a.json")]) == 0
    rows = {row["metric"]: row for row in json.loads((tmp_path / "a.json").read_text())}
    assert rows["class as asked"]["value"] == pytest.approx(0.5)
    assert rows["class as asked"]["floor"] == 1  # two kinds that differ by twelve deviations
    # every tenth row is held out, and odd: all of one class
    assert rows["class shares"]["value"] == pytest.approx(0.5)
    assert rows["Frechet distance"]["features"] == str(reader / "run")
    judged = judge(str(reader / "run"), x)
    features, p = judged.features(x), judged.probabilities(x)
    np.testing.assert_array_equal(p.argmax(axis=1), y)
    assert rows["Inception score"]["value"] == pytest.approx(metrics.inception_score(p))
    last = open_run(reader / "run").restore().ema["params"]["out"]
    logits = features @ np.asarray(last["kernel"]) + np.asarray(last["bias"])
    # float32
    np.testing.assert_allclose(p, scipy.special.softmax(logits, axis=1), rtol=1e-5)
    said = complaint([*command[:2], "--samples", tmp_path / "a.npz", "--features", run], capsys)
    assert "it holds a model of the data, not a classifier" in said


def test_evaluate_by_a_function_of_the_user(run, samples, tmp_path):
    out = tmp_path / "table.json"
    command = ["evaluate", str(run), "--samples", str(samples), "--out", str(out)]
    assert main([*command, "--features", "numpy:square", "--bootstrap", "2"]) == 0
    record = json.loads(out.read_text())[0]
    assert record["features"] == "square"


def test_inspect_shows_the_run(run, tmp_path, capsys):
    assert main(["inspect", str(run), "--plot", str(tmp_path / "loss.png")]) == 0
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr().out
    for words in ('"width": 16', "conditioning", "total", "grad_norm", "steps: 40 of 40"):
        assert words in shown
    assert "checkpoints: 40" in shown


def test_mistakes(run, reader, samples, tmp_path, capsys):
    draw(run, tmp_path / "one.npz", "--n", "1")
    evaluate = ["evaluate", run, "--samples", samples]
    mistakes = {
        "samples must hold at least 2 (k + 1) = 12 examples, got 1": [
            *evaluate[:3],
            tmp_path / "one.npz",
        ],
        "--bootstrap must be a whole number of at least 2, got 0": [*evaluate, "--bootstrap", 0],
        "--limit must be at least 1, got 0": [*evaluate, "--limit", 0],
        "--seed must not be negative, got -1": [*evaluate, "--seed", -1],
        "k must be at least 1, got 0": [*evaluate, "--k", 0],
        "at least 2 (k + 1) = 82 examples, got 60": [*evaluate, "--k", 40],
        "--features must be pixels, pca, a run": [*evaluate, "--features", "inception"],
        "No module named 'nowhere'": [*evaluate, "--features", "nowhere:f"],
        "has no attribute 'nothing'": [*evaluate, "--features", "numpy:nothing"],
        "is no function, but 3.14": [*evaluate, "--features", "math:pi"],
        "must return [60, D]": [*evaluate, "--features", "numpy:sum"],
        "its examples are [4, 4, 1], those to judge [2]": [
            *evaluate,
            "--features",
            reader / "run",
        ],
        "--out must end in .csv or .json": [*evaluate, "--out", tmp_path / "table.txt"],
        "there is no directory": [*evaluate, "--out", tmp_path / "no" / "table.csv"],
        "is not a run directory": [*evaluate, "--features", tmp_path],
    }
    for says, arguments in mistakes.items():
        assert says in complaint(arguments, capsys)
