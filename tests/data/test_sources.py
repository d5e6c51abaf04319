"""Truth: the arrays that the sources were made of."""

import numpy as np
import pytest

from jaxdiff import data
from jaxdiff.data import dataset, images, sources
from tests.data import written

STORED = [("u1", None), ("f4", None), ("f8", None), ("f2", None), (">f4", None), ("f8", (-1, 1))]
STORED += [(dtype, (0, 100)) for dtype in ("u1", "i4", "f4", ">u2")]


def mapped(path, x):
    np.save(path, x)
    return np.load(path, mmap_mode="r")


@pytest.mark.parametrize("shape", [(9, 4, 5, 3), (9, 4, 5), (9, 4)])
@pytest.mark.parametrize(("dtype", "value_range"), STORED)
def test_npy_on_disk_is_the_array_in_memory(tmp_path, shape, dtype, value_range):
    high = 2 if value_range is None and "f" in dtype else 100
    x = (np.random.default_rng(0).uniform(0, high, shape) - (high == 2)).astype(dtype)
    if value_range == (-1, 1):
        x = x / 50 - 1
    np.save(tmp_path / "x.npy", x)
    disk = data.load(tmp_path / "x.npy", value_range=value_range)
    memory = data.from_arrays(x, value_range=value_range)
    np.testing.assert_array_equal(disk.images(), memory.images())
    assert disk.example_shape == data.example_shape(tmp_path / "x.npy") == memory.example_shape
    assert (disk.in_memory, memory.in_memory) == (False, True)
    assert disk.x.dtype == memory.x.dtype
    for split in ("train", "heldout"):
        a, b = (d.part(split, heldout_every=2).with_batches(5, seed=1) for d in (disk, memory))
        np.testing.assert_array_equal(a.batch_at(3)["x"], b.batch_at(3)["x"])
        assert not a.in_memory


def test_checks_of_blocks_are_checks_of_the_whole(tmp_path, monkeypatch):
    x = np.linspace(-1, 1, 60, dtype=np.float32).reshape(20, 3)
    monkeypatch.setattr(images, "BLOCK", 3 * x[:1].nbytes)  # 7 blocks, the last of 2 rows
    np.testing.assert_array_equal(data.from_arrays(x).x, x)
    for row, value, says in [(19, np.nan, "1 NaN"), (11, 1.5, r"values in \[-1, 1.5\]")]:
        bad = x.copy()
        bad[row, 1] = value
        for given in (bad, mapped(tmp_path / "bad.npy", bad)):
            with pytest.raises(ValueError, match=says):
                data.from_arrays(given)
    late = np.zeros((20, 3), np.uint8)
    late[18] = 1
    with pytest.raises(ValueError, match=r"values in \[0, 1\]"):
        data.from_arrays(late)
    late[19] = 7
    np.testing.assert_array_equal(data.from_arrays(late).x, late)
    whole = np.arange(60.0).reshape(20, 3)
    with pytest.raises(ValueError, match="whole pixel values"):
        data.from_arrays(whole)


def test_joined_parts(tmp_path):
    parts = [written.random_bytes(n, 3, 2, 1, seed=n) for n in (4, 1, 6)]
    whole = np.concatenate(parts)
    rows = np.random.default_rng(0).integers(0, 11, 40)
    mixed = [parts[0], mapped(tmp_path / "x.npy", parts[1]), parts[2]]
    for given, memory in [(parts, True), (mixed, False)]:
        joined = sources.joined(given, ["a", "b", "c"])
        assert (joined.shape, len(joined), joined.dtype) == ((11, 3, 2, 1), 11, np.uint8)
        assert sources.in_memory(joined) == memory
        np.testing.assert_array_equal(joined[rows], whole[rows])
        chosen = sources.rows_of(joined, np.arange(10, 0, -2))
        np.testing.assert_array_equal(chosen[np.array([0, 4, 1])], whole[[10, 2, 8]])
    with pytest.raises(ValueError, match=r"a and c must be alike, got uint8 \[3, 2, 1\]"):
        sources.joined([*parts[:2], parts[2][:, :2]], ["a", "b", "c"])


def test_images_up_to_a_limit_and_in_blocks(tmp_path, monkeypatch):
    x = np.linspace(-1, 1, 10, dtype=np.float32)[:, None]
    for given in (x, mapped(tmp_path / "x.npy", x)):
        some = data.from_arrays(given)
        np.testing.assert_array_equal(some.images(), x)
        np.testing.assert_array_equal(some.images(5), x[::2])  # evenly among all
        np.testing.assert_array_equal(some.images(limit=11), x)
        blocks = list(some.blocks(4))
        assert [len(block) for block in blocks] == [4, 4, 2]
        np.testing.assert_array_equal(np.concatenate(blocks), x)
    monkeypatch.setattr(dataset, "MOST", x.nbytes - 1)
    with pytest.raises(ValueError, match=r"x\.npy holds 10 examples.*images\(limit\)"):
        data.load(tmp_path / "x.npy").images()
    np.testing.assert_array_equal(some.images(10), x)  # asked for
    for call in (lambda: some.images(0), lambda: some.blocks(-1)):
        with pytest.raises(ValueError, match="must be >= 1"):
            call()


class Squares:
    """A source of one's own."""

    shape, dtype = (50, 1), np.dtype(np.float32)

    def __len__(self):
        return 50

    def __getitem__(self, rows):
        return (rows[:, None] / 50).astype(np.float32) ** 2


def test_any_source_will_do():
    whole = data.from_source(Squares(), np.arange(50), test_from=40).with_batches(8)
    batch = whole.batch_at(2)
    np.testing.assert_allclose(batch["x"][:, 0], (batch["y"] / 50) ** 2, rtol=1e-6)  # float32
    assert whole.part("heldout").y.tolist() == list(range(40, 50))
    for test_from in (0, 50):
        with pytest.raises(ValueError, match=r"test_from must lie in 1\.\.49"):
            data.from_source(Squares(), test_from=test_from)
    with pytest.raises(ValueError, match="uint8 or float32"):
        data.from_source(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="no official test part"):
        data.from_source(Squares()).part("train")
