"""Truth: scikit-learn's PCA, what must hold of a model that is perfect, shifted or a memoriser,
and the metrics themselves, each tested beside this file."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from jaxdiff import metrics

DIGITS = (load_digits().images / 8 - 1)[..., None].astype(np.float32)
TRAIN, HELDOUT = DIGITS[::2], DIGITS[1::2]


def by_name(rows):
    return {row.metric.split(",")[0] + row.metric[-3:]: row for row in rows}


@pytest.mark.parametrize("n", [898, 10])
def test_pca_is_scikit_learns(n):
    x = metrics.pixels(HELDOUT)[:n].astype(np.float64)
    ours, theirs = metrics.fit_pca(x, 8), PCA(8, svd_solver="full").fit(x)
    z, expected = ours(x), theirs.transform(x)
    signs = np.sign(np.sum(z * expected, axis=0))
    # axes are eigenvectors: rounding over the gap of eigenvalues, of order 1e-2 of the largest
    np.testing.assert_allclose(z * signs, expected, atol=1e-10)
    assert ours.explained == pytest.approx(theirs.explained_variance_ratio_.sum(), rel=1e-12)


def test_pca_keeps_no_more_axes_than_there_are():
    assert metrics.fit_pca(np.eye(3, 7), 16).axes.shape == (2, 7)
    assert metrics.fit_pca(metrics.pixels(TRAIN[:, :2, :2]), 16).axes.shape == (4, 4)


def test_pca_of_all_axes_keeps_the_frechet_distance():
    x, y = metrics.pixels(TRAIN), metrics.pixels(HELDOUT)
    turned = metrics.fit_pca(y, 64)
    expected = metrics.frechet_distance(x, y)
    assert metrics.frechet_distance(turned(x), turned(y)) == pytest.approx(expected, rel=1e-9)


def test_every_row_states_its_numbers_and_its_floor():
    rows = metrics.evaluate(DIGITS[:500], TRAIN, HELDOUT)
    assert [row.metric for row in rows] == [
        "Frechet distance, pixels",
        "Frechet distance, PCA-16",
        "MMD^2, polynomial (KID)",
        "MMD^2, Gaussian",
        "precision, k=3",
        "recall, k=3",
        "distance to nearest training example",
        "copies of training examples",
    ]
    assert {(row.n, row.n_floor, row.n_real) for row in rows} == {(500, 899, 898)}
    x, train, real = (metrics.pixels(z) for z in (DIGITS[:500], TRAIN, HELDOUT))
    assert rows[0].value == metrics.frechet_distance(x, real)
    assert rows[0].floor == metrics.frechet_distance(train, real)
    pca = metrics.fit_pca(real, 16)
    assert rows[1].value == metrics.frechet_distance(pca(x), pca(real))
    assert rows[1].floor == metrics.frechet_distance(pca(train), pca(real))
    width = metrics.rbf(metrics.median_distance(real))
    assert [row.value for row in rows[2:4]] == [
        metrics.mmd2(x, real, kernel) for kernel in (metrics.polynomial(), width)
    ]
    assert (rows[4].value, rows[5].value) == metrics.precision_recall(x, real)
    assert (rows[4].floor, rows[5].floor) == metrics.precision_recall(train, real)
    assert rows[7].value == metrics.find_copies(x, train, real).share
    assert rows[7].floor == pytest.approx(0.05, abs=1 / 898)  # by its definition


def test_a_perfect_model_scores_the_floor():
    rows = metrics.evaluate(TRAIN[::-1], TRAIN, HELDOUT)
    for row in rows[:6]:
        assert row.value == pytest.approx(row.floor, rel=1e-9)


def test_a_memoriser_is_caught_by_its_copies_alone():
    *others, distance, share = metrics.evaluate(TRAIN, TRAIN, HELDOUT)
    assert all(row.value == pytest.approx(row.floor, rel=1e-9) for row in others)
    assert (distance.value, share.value) == (0, 1)
    assert distance.floor > 1


def test_noise_is_worse_on_every_row():
    noise = np.random.default_rng(0).uniform(-1, 1, HELDOUT.shape)
    for row in metrics.evaluate(noise, TRAIN, HELDOUT):
        if row.better == "lower":
            assert row.value > 10 * max(row.floor, 1e-3)
    blurred = np.repeat(HELDOUT.mean(axis=0, keepdims=True), 100, axis=0)  # the mean digit alone
    rows = metrics.evaluate(blurred, TRAIN, HELDOUT)
    assert rows[5].value == 0  # nothing is recalled


def test_vectors_are_judged_too():
    x = np.random.default_rng(0).uniform(-1, 1, (3, 60, 2))
    assert metrics.evaluate(*x)[1].metric == "Frechet distance, PCA-2"


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        (HELDOUT[..., 0], r"one shape, got \[8, 8\], \[8, 8, 1\], \[8, 8, 1\]"),
        (HELDOUT[:0], "samples must hold at least k . 1 = 4 examples, got 0"),
        (HELDOUT[:3], "samples must hold at least k . 1 = 4 examples, got 3"),
        (HELDOUT * np.nan, "must be finite"),
    ],
)
def test_bad_input(samples, says):
    with pytest.raises(ValueError, match=says):
        metrics.evaluate(samples, TRAIN, HELDOUT)
    with pytest.raises(ValueError, match="dims must be >= 1"):
        metrics.fit_pca(np.eye(3), 0)
