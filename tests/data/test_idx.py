"""Truth: arrays that the tests wrote by the format's description, and the facts that the makers of
Fashion-MNIST state: 60,000 and 10,000 images of 28 x 28, 6,000 and 1,000 of each of 10 classes."""

from pathlib import Path

import numpy as np
import pytest

from jaxdiff import data
from tests.data import written

FASHION = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_directory_is_a_set_with_its_official_test_part(tmp_path, suffix):
    (x, y), (x_test, y_test) = written.mnist(tmp_path / "set", suffix)
    for split, images, labels in [
        ("train", x, y),
        ("heldout", x_test, y_test),
        ("all", np.concatenate([x, x_test]), np.concatenate([y, y_test])),
    ]:
        part = data.load(tmp_path / "set", split=split)
        np.testing.assert_array_equal(part.images()[..., 0], data.from_uint8(images))
        np.testing.assert_array_equal(part.y, labels)
        assert part.in_memory == (suffix == ".gz")
        assert part.num_classes == 3
        assert part.bins == 256
    assert data.example_shape(tmp_path / "set") == (6, 5, 1)


def test_a_stated_rule_takes_the_place_of_the_official_part(tmp_path):
    parts = written.mnist(tmp_path / "set", ".gz")
    whole = np.concatenate([x for x, _ in parts])
    heldout = data.load(tmp_path / "set", split="heldout", heldout_every=4)
    np.testing.assert_array_equal(heldout.images()[..., 0], data.from_uint8(whole[3::4]))


def test_one_file_with_and_without_its_labels(tmp_path):
    (x, y), _ = written.mnist(tmp_path, ".gz")
    path = tmp_path / "train-images-idx3-ubyte.gz"
    np.testing.assert_array_equal(data.load(path).y, y)
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    alone = data.load(path, split="heldout")  # no official part: every tenth
    assert alone.y is None
    np.testing.assert_array_equal(alone.images()[..., 0], data.from_uint8(x[9::10]))


def test_a_set_that_lies_there_both_ways_is_read_once(tmp_path):
    written.mnist(tmp_path / "set", ".gz")
    written.mnist(tmp_path / "set", "")
    (tmp_path / "set" / "more-images-idx3-ubyte").mkdir()  # as some archives unpack
    assert len(data.load(tmp_path / "set")) == 17
    assert not data.load(tmp_path / "set").in_memory


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("kind", ["i1", "i2", "i4", "f4", "f8"])
def test_every_type_of_numbers(tmp_path, kind, suffix):
    x = np.array([[[-3, 5], [0, 1]], [[2, 4], [-1, -2]]]).astype(kind)
    path = written.idx(tmp_path / f"some.idx3{suffix}", x)
    read = data.load(path, value_range=(-3, 5))
    np.testing.assert_array_equal(read.images()[..., 0], (x.astype(float) - 1) / 4)
    assert read.bins == (9 if kind[0] == "i" else None)


def test_vectors_and_colours(tmp_path):
    for shape in [(7, 3), (7, 4, 5, 3)]:
        x = written.random_bytes(*shape)
        path = written.idx(tmp_path / f"x.idx{len(shape)}", x)
        np.testing.assert_array_equal(data.load(path).images(), data.from_uint8(x))
        assert data.example_shape(path) == shape[1:]


@pytest.mark.skipif(not FASHION.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_mnist():
    for split, n in [("train", 60_000), ("heldout", 10_000)]:
        part = data.load(FASHION, split=split)
        assert part.x.shape == (n, 28, 28, 1)
        np.testing.assert_array_equal(np.bincount(part.y), np.full(10, n // 10))
    # clothes on black: the corners are empty (background 0 in the published files)
    assert np.mean(part.x[:, 0, 0] == 0) > 0.95
