"""Every reader's batches are a function of (seed, step): whatever was asked before, from several
threads at once, after a fresh start in the middle of an epoch. Truth: what a permutation is (every
example once an epoch), and the reader's own examples in stored order."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from jaxdiff import data
from tests.data import written

N = 23


def write_npz(home):
    np.savez(home / "x.npz", x=written.random_bytes(N, 4, 4, 1))
    return home / "x.npz"


def write_npy(dtype):
    def write(home):
        np.save(home / "x.npy", written.random_bytes(N, 4, 4, 1).astype(dtype))
        return home / "x.npy"

    return write


def write_idx(suffix):
    def write(home):
        written.mnist(home / "set", suffix, 17, N - 17)
        return home / "set"

    return write


def write_cifar(home):
    x = written.random_bytes(N, 32, 32, 3)
    written.cifar(home / "train.bin", x[:17], np.zeros(17), np.arange(17))
    written.cifar(home / "test.bin", x[17:], np.zeros(N - 17), np.arange(17, N))
    return home


def write_pictures(home):
    written.pictures(home, [f"{i % 3}/{i:02}.png" for i in range(N)])
    return home


READERS = {
    "npz": (write_npz, {}),
    "npy": (write_npy(np.uint8), {}),
    "npy, scaled": (write_npy(np.float64), {"value_range": (0, 255)}),
    "idx": (write_idx(""), {}),
    "idx, packed": (write_idx(".gz"), {}),
    "cifar": (write_cifar, {}),
    "pictures": (write_pictures, {}),
    "pictures, resized": (write_pictures, {"size": 4}),
}


def bits(batch):
    return {name: column.tobytes() for name, column in batch.items()}


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("write", "options"), READERS.values(), ids=READERS)
def test_batches_of_every_reader(tmp_path, write, options, flip):
    path = write(tmp_path)

    def opened(seed=5):
        return data.load(path, **options).with_batches(6, seed=seed, flip=flip)

    first, steps = opened(), 9  # 54 places: two epochs and a part
    assert len(first) == N
    batches = [bits(first.batch_at(step)) for step in range(steps)]
    resumed = opened()  # begins in the middle of the first epoch, and of the second
    assert [bits(resumed.batch_at(step)) for step in (2, 3, 4, 5)] == batches[2:6]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda t: bits(first.batch_at(t)), range(steps))) == batches
    with data.prefetch(opened()) as ahead:
        assert [bits(ahead.batch_at(step)) for step in range(steps)] == batches
    assert [bits(opened(seed=6).batch_at(step)) for step in range(steps)] != batches
    x = np.concatenate([first.batch_at(step)["x"] for step in range(steps)])[: 2 * N]
    stored = first.images()
    if flip:  # a mirrored image and its original by what they have in common
        x, stored = (np.sort(part, axis=2) for part in (x, stored))
    for epoch in (x[:N], x[N:]):
        np.testing.assert_array_equal(sorted(map(bytes, epoch)), sorted(map(bytes, stored)))


@pytest.mark.parametrize(("write", "options"), READERS.values(), ids=READERS)
@pytest.mark.parametrize("every", [None, 2, 5])
def test_parts_of_every_reader_are_disjoint_and_cover_all(tmp_path, write, options, every):
    path = write(tmp_path)
    parts = [data.load(path, split=s, heldout_every=every, **options) for s in ("train", "heldout")]
    whole = data.load(path, **options)
    together = np.concatenate([part.images() for part in parts])
    assert sorted(map(bytes, together)) == sorted(map(bytes, whole.images()))
    assert {part.num_classes for part in parts} == {whole.num_classes}
