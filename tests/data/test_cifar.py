"""Truth: records that the tests wrote by the format's description."""

import numpy as np
import pytest

from jaxdiff import data
from tests.data import written

X = written.random_bytes(14, 32, 32, 3)
Y = np.arange(14) % 10


def ten(folder):
    """CIFAR-10: five files of two images and one of four."""
    folder.mkdir()
    for i in range(5):
        rows = slice(2 * i, 2 * i + 2)
        written.cifar(folder / f"data_batch_{i + 1}.bin", X[rows], Y[rows])
    written.cifar(folder / "test_batch.bin", X[10:], Y[10:])
    return folder


def test_cifar_10(tmp_path):
    folder = ten(tmp_path / "cifar-10-batches-bin")
    (folder / "batches.meta.txt").write_text("airplane\n")
    for split, rows in [("train", slice(10)), ("heldout", slice(10, None)), ("all", slice(None))]:
        part = data.load(folder, split=split)
        np.testing.assert_array_equal(part.images(), data.from_uint8(X[rows]))
        np.testing.assert_array_equal(part.y, Y[rows])
        assert not part.in_memory
    assert data.example_shape(folder) == (32, 32, 3)


@pytest.mark.parametrize("coarse", [False, True])
def test_cifar_100_has_two_sorts_of_labels(tmp_path, coarse):
    fine, rough = np.arange(14) * 7, np.arange(14)[::-1]
    written.cifar(tmp_path / "train.bin", X[:9], rough[:9], fine[:9])
    written.cifar(tmp_path / "test.bin", X[9:], rough[9:], fine[9:])
    whole = data.load(tmp_path, coarse=coarse)
    np.testing.assert_array_equal(whole.y, rough if coarse else fine)
    np.testing.assert_array_equal(whole.images(), data.from_uint8(X))
    heldout = data.load(tmp_path, split="heldout", coarse=coarse)
    np.testing.assert_array_equal(heldout.images(), data.from_uint8(X[9:]))


def test_one_file(tmp_path):
    path = written.cifar(tmp_path / "mine.bin", X, Y)
    np.testing.assert_array_equal(data.load(path, split="train", heldout_every=2).y, Y[::2])
    path = written.cifar(tmp_path / "hundred.bin", X, Y, Y)
    assert data.load(path).num_classes == 10
