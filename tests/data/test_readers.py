"""Truth: scikit-learn's own arrays, and arrays written by numpy."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from jaxdiff import data
from jaxdiff.data import files, npz


def test_digits_are_scikit_learns():
    bunch = load_digits()
    digits = data.load("digits")
    np.testing.assert_array_equal(digits.x[..., 0], (bunch.images / 8 - 1).astype(np.float32))
    np.testing.assert_array_equal(digits.y, bunch.target)
    assert digits.x.shape == (1797, 8, 8, 1)
    assert digits.num_classes == 10


def test_halves_of_the_digits_are_even_and_odd_rows():
    bunch = load_digits()
    for split, rows in [("train", slice(0, None, 2)), ("heldout", slice(1, None, 2))]:
        half = data.load("digits", split=split)
        np.testing.assert_array_equal(half.y, bunch.target[rows])
        np.testing.assert_array_equal(half.images()[..., 0], bunch.images[rows] / 8 - 1)


@pytest.mark.parametrize(
    ("shape", "stored"),
    [((6, 5, 4, 3), (6, 5, 4, 3)), ((6, 5, 7), (6, 5, 7, 1)), ((6, 2), (6, 2))],
)
def test_npz_of_every_rank(tmp_path, shape, stored):
    x = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    y = np.array([0, 1, 2, 0, 1, 2], np.uint8)
    np.savez(tmp_path / "data.npz", x=x, y=y)
    dataset = data.load(tmp_path / "data.npz")
    np.testing.assert_array_equal(dataset.x, x.reshape(stored))
    np.testing.assert_array_equal(dataset.y, y)
    assert (dataset.name, dataset.num_classes) == ("data.npz", 3)


def test_the_range_in_a_file_and_the_one_in_a_call(tmp_path):
    x = np.array([[0.0, 4.0], [2.0, 1.0]])
    np.savez(tmp_path / "a.npz", x=x, range=[0, 4])
    np.testing.assert_array_equal(data.load(tmp_path / "a.npz").x, x / 2 - 1)
    overruled = data.load(tmp_path / "a.npz", value_range=(0, 8))
    np.testing.assert_array_equal(overruled.x, x / 4 - 1)


def test_unlabelled_files_hold_out_every_tenth(tmp_path):
    x = np.linspace(-1, 1, 40).astype(np.float32)[:, None]
    np.savez(tmp_path / "a.npz", x=x)
    heldout = data.load(tmp_path / "a.npz", split="heldout")
    np.testing.assert_array_equal(heldout.x, x[9::10])
    assert heldout.y is None
    halves = data.load(tmp_path / "a.npz", split="train", heldout_every=2)
    np.testing.assert_array_equal(halves.x, x[::2])


def test_what_is_written_is_read_back(tmp_path):
    x = np.random.default_rng(0).uniform(0, 1, (4, 2, 2, 1)).astype(np.float32)
    npz.write(tmp_path / "a.npz", x, [0, 1, 2, 3])
    read = data.load(tmp_path / "a.npz")  # never below 0, yet accepted: its range is stated
    # (x + 1) - 1 in float32
    np.testing.assert_allclose(read.x, x, atol=1.2e-7)
    np.testing.assert_array_equal(read.y, [0, 1, 2, 3])


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def stop_halfway():
        with files.replacing(path) as file:
            file.write(b"half of the n")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stop_halfway()
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"
    with files.replacing(path) as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
