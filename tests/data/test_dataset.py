"""Truth: what a permutation is (each example once an epoch), the binomial and chi-square laws,
and the defining formula of the byte scale."""

import numpy as np
import pytest
import scipy.stats

from jaxdiff import data
from jaxdiff.data import images


def numbered(n):
    """Examples that carry their own number as label."""
    return data.from_arrays(np.linspace(-1, 1, n)[:, None], np.arange(n), name="numbered")


def dealt(dataset, count):
    """The labels of the first `count` examples of the sequence."""
    steps = -(-count // dataset.batch_size)
    return np.concatenate([dataset.batch_at(step)["y"] for step in range(steps)])[:count]


@pytest.mark.parametrize("batch_size", [1, 7, 12, 13, 60])
def test_every_example_once_an_epoch_in_an_order_that_no_batch_size_changes(batch_size):
    n, epochs = 12, 5
    order = dealt(numbered(n).with_batches(batch_size, seed=3), n * epochs).reshape(epochs, n)
    np.testing.assert_array_equal(np.sort(order, axis=1), np.tile(np.arange(n), (epochs, 1)))
    one_by_one = dealt(numbered(n).with_batches(1, seed=3), n * epochs)
    np.testing.assert_array_equal(order.ravel(), one_by_one)
    assert len(np.unique(order, axis=0)) == epochs  # chance of a repeat: 10 / 12!


def test_a_batch_is_a_function_of_seed_and_step_alone():
    first, second = (numbered(50).with_batches(8, seed=7) for _ in range(2))
    for step in (0, 1, 40):
        first.batch_at(step)
    for step in (123_456_789, 40, 0):  # a resumed run asks for any step first
        a, b = first.batch_at(step), second.batch_at(np.int64(step))
        np.testing.assert_array_equal(a["x"], b["x"])
        np.testing.assert_array_equal(a["y"], b["y"])
    other = numbered(50).with_batches(8, seed=8)
    assert not np.array_equal(first.batch_at(0)["y"], other.batch_at(0)["y"])


def test_examples_stay_with_their_labels():
    batch = numbered(50).with_batches(16).batch_at(2)
    np.testing.assert_array_equal(
        batch["x"], np.linspace(-1, 1, 50)[batch["y"], None].astype(np.float32)
    )
    assert batch["x"].dtype == np.float32
    assert batch["y"].dtype == np.int32


def test_orders_are_uniform():
    n, seeds = 6, 3000
    firsts = np.array([dealt(numbered(n).with_batches(n, seed=s), n) for s in range(seeds)])
    for place in range(n):  # fixed seeds; a fair deal fails one of 6 with chance 6e-4
        counts = np.bincount(firsts[:, place], minlength=n)
        assert scipy.stats.chisquare(counts).pvalue > 1e-4
    # consecutive epochs of one seed are unrelated: the first example repeats with chance 1/n
    epochs = dealt(numbered(n).with_batches(n), n * 3000).reshape(-1, n)[:, 0]
    repeats = np.sum(epochs[1:] == epochs[:-1])
    assert scipy.stats.binomtest(int(repeats), 2999, 1 / n).pvalue > 1e-4


def test_flip_mirrors_half_of_the_images_and_nothing_else():
    key = np.random.default_rng(0)
    x = key.integers(0, 256, (200, 4, 6, 3), dtype=np.uint8)
    plain = data.from_arrays(x, np.arange(200))
    flipped = plain.with_batches(50, flip=True)
    again = plain.with_batches(8, flip=True)
    seen = {}
    for step in range(4):
        batch = flipped.batch_at(step)
        for image, label in zip(batch["x"], batch["y"], strict=True):
            original = images.from_uint8(x[label])
            mirrored = np.array_equal(image, original[:, ::-1])
            assert mirrored != np.array_equal(image, original)
            seen[int(label)] = image
    share = np.mean([np.array_equal(v, images.from_uint8(x[k])[:, ::-1]) for k, v in seen.items()])
    assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(200)  # four standard errors of a fair coin
    for step in range(200 // 8):
        batch = again.batch_at(step)
        for image, label in zip(batch["x"], batch["y"], strict=True):
            np.testing.assert_array_equal(image, seen[int(label)])


def test_bytes_become_floats_and_return():
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    x = data.from_uint8(every)
    # two float32 roundings at magnitude up to 2
    np.testing.assert_allclose(x, np.arange(256.0).reshape(1, 16, 16, 1) / 127.5 - 1, atol=3e-7)
    assert (x.min(), x.max()) == (-1, 1)
    np.testing.assert_array_equal(data.to_uint8(x), every)
    np.testing.assert_array_equal(data.to_uint8([-1.5, -0.9999, 1.5]), [0, 0, 255])


def test_bytes_stay_bytes_in_memory_and_come_out_as_floats():
    x = np.random.default_rng(0).integers(0, 256, (10, 4, 4), dtype=np.uint8)
    dataset = data.from_arrays(x).with_batches(10)
    assert dataset.x.dtype == np.uint8
    assert dataset.x.shape == (10, 4, 4, 1)
    assert dataset.example_shape == (4, 4, 1)
    batch = dataset.batch_at(0)
    assert set(batch) == {"x"}
    np.testing.assert_array_equal(
        np.sort(batch["x"], axis=None), np.sort(dataset.images(), axis=None)
    )


@pytest.mark.parametrize("low_high", [(0, 16), (-3, 5), (0.25, 0.75)])
def test_a_stated_range_maps_to_minus_one_and_one(low_high):
    low, high = low_high
    x = np.linspace(low, high, 9).reshape(3, 3)
    mapped = data.from_arrays(x, value_range=low_high).x
    np.testing.assert_allclose(mapped, np.linspace(-1, 1, 9).reshape(3, 3), atol=3e-7)
    assert (mapped.min(), mapped.max()) == (-1, 1)


@pytest.mark.parametrize("every", [2, 3, 10])
def test_parts_are_disjoint_cover_all_and_follow_the_rule(every):
    whole = numbered(31)
    train, heldout = (whole.part(s, heldout_every=every) for s in ("train", "heldout"))
    assert set(heldout.y) == {i for i in range(31) if i % every == every - 1}
    np.testing.assert_array_equal(np.sort(np.concatenate([train.y, heldout.y])), np.arange(31))
    assert train.num_classes == heldout.num_classes == 31  # classes of the whole, in both


def test_stored_arrays_cannot_be_written_through():
    dataset = numbered(5)
    with pytest.raises(ValueError, match="read-only"):
        dataset.x[0] = 1
    batch = dataset.with_batches(5).batch_at(0)
    batch["x"][:] = 0  # a batch is the caller's own
    assert dataset.x.max() == 1


def test_how_many_values_there_are():
    """Whole numbers between whole bounds, wherever they are stored; of floats nothing is known."""
    byte, three = np.array([[0], [255]], np.uint8), np.array([[0], [2]])
    assert data.from_arrays(byte).bins == 256
    assert data.from_arrays(byte, value_range=(0, 255)).bins == 256
    assert data.from_arrays(three, value_range=(0, 2)).bins == 3
    assert data.from_arrays(three, value_range=(-0.5, 2.5)).bins is None
    assert data.from_arrays(three.astype(float), value_range=(0, 2)).bins is None
    assert data.from_arrays(np.array([[-1.0], [1.0]])).bins is None
    assert data.from_arrays(byte).part("train", heldout_every=2).bins == 256


@pytest.mark.parametrize("source", ["digits", "bytes"])
def test_values_are_bins_of_which_both_ends_are_values(source):
    """Value n of b lies at 2 n / (b - 1) - 1: what likelihoods take for granted."""
    every = np.arange(256, dtype=np.uint8)[:, None]
    dataset = data.load("digits") if source == "digits" else data.from_arrays(every)
    bins = {"digits": 17, "bytes": 256}[source]
    assert dataset.bins == bins
    places = (dataset.images().astype(np.float64) + 1) * (bins - 1) / 2
    # float32 on [-1, 1] knows places to a few 1e-7 of a half range
    np.testing.assert_allclose(places, np.rint(places), atol=1e-6 * bins)
    assert set(np.rint(places).ravel()) == set(range(bins))
