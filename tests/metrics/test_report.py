"""Truth: scikit-learn's PCA, what must hold of a model that is perfect, shifted or a memoriser,
and the metrics themselves, each tested beside this file."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from jaxdiff import metrics

DIGITS = (load_digits().images / 8 - 1)[..., None].astype(np.float32)
TRAIN, HELDOUT = DIGITS[::2], DIGITS[1::2]


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


@pytest.mark.slow
def test_every_row_states_its_numbers_and_its_floor():
    rows = metrics.evaluate(DIGITS[:500], TRAIN, HELDOUT, resamples=3)
    assert [row.metric for row in rows] == [
        "Frechet distance",
        "KID, all pairs",
        "KID, 100 subsets of 250",
        "MMD^2, Gaussian",
        "precision, k=3",
        "recall, k=3",
        "density, k=5",
        "coverage, k=5",
        "nearest training example",
        "copies of training examples",
    ]
    assert {row[5:8] for row in rows} == {(500, 899, 898)}
    assert {row.features for row in rows} == {"pixels"}
    x, train, real = (metrics.pixels(z) for z in (DIGITS[:500], TRAIN, HELDOUT))
    how, bandwidth = {"resamples": 3}, metrics.median_distance(real)
    for of, columns in ((x, slice(1, 3)), (train, slice(3, 5))):
        blocks = metrics.kid(of, real, size=250)
        expected = [
            metrics.frechet_estimate(of, real, **how),
            metrics.mmd2_estimate(of, real, metrics.polynomial()),
            (blocks.value, blocks.error),
            metrics.mmd2_estimate(of, real, metrics.rbf(bandwidth)),
            *metrics.manifold_shares(of, real, **how),
        ]
        assert [row[columns] for row in rows[:8]] == expected
    near = metrics.copies_estimate(x, train, real, **how)
    assert rows[8][1:5] == (*near.distance, *near.heldout_distance)
    assert rows[9][1:5] == (*near.share, 0.05, 0)  # by its definition


@pytest.mark.slow
def test_a_perfect_model_scores_the_floor():
    rows = metrics.evaluate(TRAIN[::-1], TRAIN, HELDOUT, resamples=2)
    for row in rows[:8]:
        if "subsets" not in row.metric:  # drawn by place
            assert row.value == pytest.approx(row.floor, rel=1e-9)


@pytest.mark.slow
def test_a_memoriser_is_caught_by_its_copies_alone():
    *others, distance, share = metrics.evaluate(TRAIN, TRAIN, HELDOUT, resamples=2)
    assert all(row.value == pytest.approx(row.floor, rel=1e-9) for row in others)
    assert (distance.value, share.value) == (0, 1)
    assert distance.floor > 1


@pytest.mark.slow
def test_noise_is_worse_on_every_row():
    noise = np.random.default_rng(0).uniform(-1, 1, HELDOUT.shape)
    for row in metrics.evaluate(noise, TRAIN, HELDOUT, resamples=4):
        if row.better == "lower":
            # far beyond both errors, and beyond what real data score
            assert row.value - row.floor > 10 * (row.error + row.floor_error)
    blurred = np.repeat(HELDOUT.mean(axis=0, keepdims=True), 100, axis=0)  # the mean digit alone
    rows = metrics.evaluate(blurred, TRAIN, HELDOUT, resamples=2)
    assert {row.metric: row.value for row in rows}["recall, k=3"] == 0  # nothing is recalled


def test_other_features():
    x = np.random.default_rng(0).uniform(-1, 1, (3, 60, 2))
    rows = metrics.evaluate(*x, features=metrics.fit_pca(x[2], 16), resamples=2)
    assert {row.features for row in rows} == {"PCA-2"}
    turned = metrics.evaluate(*x, resamples=2)  # all axes: distances are those of the points
    kept = [row for row in rows if not row.metric.startswith("KID")]  # of dot products
    for row, same in zip(kept, [r for r in turned if not r.metric.startswith("KID")], strict=True):
        assert row[1:5] == pytest.approx(same[1:5], rel=1e-6, abs=1e-9)

    def size(x):
        return np.linalg.norm(x, axis=1, keepdims=True)

    (first, *_) = metrics.evaluate(*x, features=size, resamples=2)
    a, b = (np.linalg.norm(z, axis=1) for z in (x[0], x[2]))
    expected = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert (first.features, first.value) == ("size", pytest.approx(expected))


def test_features_that_say_little():
    """A constant feature: distances and radii of 0, no bandwidth; nothing divides by it."""
    x = np.random.default_rng(0).uniform(-1, 1, (3, 30, 2))
    rows = metrics.evaluate(*x, features=lambda x: np.ones((len(x), 3)), resamples=2)
    assert "MMD^2, Gaussian" not in [row.metric for row in rows]
    assert np.isfinite([row[1:5] for row in rows]).all()
    assert rows[0].value == 0


def test_classes_are_judged_by_a_classifier():
    p = np.random.default_rng(0).dirichlet([0.2] * 3, size=(3, 80))
    guess = p.argmax(axis=-1)
    asked, truth = np.arange(80) % 3, guess[2] * (np.arange(80) % 4 > 0)
    rows = metrics.evaluate_classes(*p, asked=asked, truth=truth, features="reader")
    assert [row.metric for row in rows] == ["class shares", "Inception score", "class as asked"]
    shares = [metrics.class_distance_estimate(guess[i], guess[2]) for i in (0, 1)]
    scores = [metrics.inception_estimate(p[i]) for i in (0, 1)]
    right = metrics.agreement(guess[0], asked), metrics.agreement(guess[2], truth)
    assert [row[1:5] for row in rows] == [(*a, *b) for a, b in (shares, scores, right)]
    assert {row.features for row in rows} == {"reader"}
    assert len(metrics.evaluate_classes(*p)) == 2


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        (HELDOUT[..., 0], r"one shape, got \[8, 8\], \[8, 8, 1\], \[8, 8, 1\]"),
        (HELDOUT[:0], r"samples must hold at least 2 \(k \+ 1\) = 12 examples, got 0"),
        (HELDOUT[:11], r"samples must hold at least 2 \(k \+ 1\) = 12 examples, got 11"),
        (HELDOUT * np.nan, "must be finite"),
    ],
)
def test_bad_input(samples, says):
    with pytest.raises(ValueError, match=says):
        metrics.evaluate(samples, TRAIN, HELDOUT)
    with pytest.raises(ValueError, match="dims must be >= 1"):
        metrics.fit_pca(np.eye(3), 0)
