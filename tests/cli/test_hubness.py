"""`jaxdiff hubness` against scikit-learn's neighbours, read back from the files that it writes."""

import csv
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from jaxdiff.cli import main
from tests.cli.commands import complaint

X = np.random.default_rng(0).normal(size=(120, 4, 4, 1)).astype(np.float32)


@pytest.fixture
def points(tmp_path):
    path = tmp_path / "points.npz"
    np.savez(path, x=X)
    return path


def wanted(x, k):
    index = NearestNeighbors(n_neighbors=k).fit(x.reshape(len(x), -1)).kneighbors()[1]
    return np.bincount(index.ravel(), minlength=len(x))


def test_counts_table_and_pictures(points, tmp_path, capsys):
    out, plot, pictures = (tmp_path / name for name in ("n.csv", "n.png", "hubs.png"))
    files = ["--out", str(out), "--plot", str(plot), "--pictures", str(pictures)]
    how = ["--k", "3", "--reduce", "nicdm", "--candidates", "500"]
    assert main(["hubness", str(points), *how, *files]) == 0
    told = capsys.readouterr().out
    assert "120 points of 16 numbers, k = 3" in told
    assert "nicdm" in told
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    counts = np.array([int(row["N_3 euclidean"]) for row in rows])
    np.testing.assert_array_equal(counts, wanted(X, 3))
    assert sum(int(row["N_3 nicdm"]) for row in rows) == 3 * 120
    assert f"{(counts == 0).mean():.4g}" in told
    assert plot.stat().st_size > 5000
    assert pictures.stat().st_size > 1000


def test_vectors_of_any_numbers_and_a_reference(tmp_path):
    """An .npy file of embeddings far outside [-1, 1]; counts are those of the reference."""
    x, y = X.reshape(120, -1)[:70] * 100, X.reshape(120, -1)[70:] * 100
    for name, a in (("x.npy", x), ("y.npy", y)):
        np.save(tmp_path / name, a)
    out = tmp_path / "n.npy"
    arguments = ["--k", "2", "--reference", str(tmp_path / "y.npy"), "--out", str(out)]
    assert main(["hubness", str(tmp_path / "x.npy"), *arguments]) == 0
    index = NearestNeighbors(n_neighbors=2).fit(y).kneighbors(x)[1]
    np.testing.assert_array_equal(np.load(out), np.bincount(index.ravel(), minlength=50))


def test_data_that_train_reads(tmp_path):
    out = tmp_path / "n.npy"
    assert main(["hubness", "digits", "--limit", "150", "--out", str(out)]) == 0
    assert np.load(out).sum() == 150 * 5


def test_grey_images_without_channels(tmp_path):
    np.save(tmp_path / "x.npy", X[..., 0])
    picture = tmp_path / "p.png"
    assert main(["hubness", str(tmp_path / "x.npy"), "--pictures", str(picture)]) == 0
    assert picture.stat().st_size > 1000


def test_points_are_not_replaced_by_their_counts(tmp_path, capsys):
    path = tmp_path / "x.npy"
    np.save(path, X)
    assert "--out would replace" in complaint(["hubness", path, "--out", path], capsys)
    np.testing.assert_array_equal(np.load(path), X)


@pytest.mark.slow
def test_ctrl_c_is_heard_while_a_program_runs(tmp_path):
    """It ends at once, by 130 and not by a crash of what still runs; compilation is waited for."""
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(60_000, 64)))
    command = [sys.executable, "-m", "jaxdiff", "hubness", str(tmp_path / "x.npy")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        time.sleep(8)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        out, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert not out
    assert not errors
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--k", "120"], "k must be at most 119"),
        (["--limit", "0"], "--limit must be at least 1"),
        (["--seed", "-1"], "--seed must not be negative"),
        (["--out", "n.txt"], "--out must end in .csv or .npy"),
        (["--metric", "manhattan"], "metric"),
        (["--reduce", "nicdm", "--reference", "digits"], "leave out --reference"),
        (["--reduce", "nicdm", "--metric", "inner"], "metric must be a distance"),
        (["--hub-size", "0"], "--hub-size must lie in (0, inf), got 0"),
    ],
)
def test_mistakes(points, options, message, capsys):
    assert message in complaint(["hubness", points, *options], capsys)


def test_mistakes_in_files(tmp_path, capsys):
    assert "nowhere.npz" in complaint(["hubness", tmp_path / "nowhere.npz"], capsys)
    flat = tmp_path / "flat.npz"
    np.savez(flat, x=np.zeros((5, 3), np.float32))
    assert "--pictures needs images" in complaint(
        ["hubness", flat, "--k", "2", "--pictures", tmp_path / "p.png"], capsys
    )
    np.savez(flat, x=np.full((5, 3), np.nan))
    assert "x must be finite" in complaint(["hubness", flat, "--k", "2"], capsys)
    np.savez(flat, x=np.full((5, 3), 1e200))
    assert "numbers of float32, got up to 1e+200" in complaint(
        ["hubness", flat, "--k", "2"], capsys
    )
    np.savez(flat, x=np.array([["a"]]))
    assert "must hold real numbers" in complaint(["hubness", flat], capsys)
    np.save(tmp_path / "line.npy", np.zeros(4))
    assert "must hold real numbers" in complaint(["hubness", tmp_path / "line.npy"], capsys)
