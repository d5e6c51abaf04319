"""Distances, precision and recall, copies. Truth: scipy's cdist, scikit-learn's neighbours, cases
solved by hand, and the binomial law."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from jaxdiff import metrics
from jaxdiff.metrics import distances

REAL = np.random.default_rng(0).normal(size=(120, 4))
FAKE = np.random.default_rng(1).normal(size=(80, 4)) * 0.7 + 0.3


@pytest.fixture(params=[4096, 7], ids=["whole", "tiles"])
def tile(request, monkeypatch):
    monkeypatch.setattr(distances, "TILE", request.param)


def table(x, y):
    found = np.full((len(x), len(y)), np.nan)
    for rows, columns, squared in distances.squared_distances(x, y):
        found[rows, columns] = squared
    return found


@pytest.mark.usefixtures("tile")
def test_distances_are_scipys():
    # the product form loses some 10 roundings of the norms, of order 10
    np.testing.assert_allclose(table(FAKE, REAL), cdist(FAKE, REAL) ** 2, atol=1e-13)
    np.testing.assert_allclose(
        distances.nearest(FAKE, REAL), cdist(FAKE, REAL).min(axis=1), atol=1e-13
    )


def test_distances_far_from_the_origin():
    x, y = FAKE + 1e6, REAL + 1e6
    # uncentred, norms of 4e12 would leave errors of 1e-3; storing 1e6 + x rounds x by 1e-10
    np.testing.assert_allclose(table(x, y), cdist(x, y) ** 2, atol=1e-12)


def test_a_copy_has_distance_zero_exactly():
    x = np.random.default_rng(2).uniform(-1, 1, (50, 3072)).astype(np.float32)
    copied = table(x, np.concatenate([x[::-1], x]))
    assert np.all(np.diag(copied[:, 50:]) == 0)
    assert np.all(copied[:, 50:][~np.eye(50, dtype=bool)] > 1)
    close = x + np.float32(1e-4) * np.sign(x)  # a hardly visible change is no copy
    assert np.diag(table(close, x)) == pytest.approx(1e-8 * 3072, rel=1e-2)


@pytest.mark.usefixtures("tile")
@pytest.mark.parametrize("k", [1, 3, 10])
def test_kth_neighbour_is_scikit_learns(k):
    # with no argument kneighbors leaves out each point itself
    found, _ = NearestNeighbors(n_neighbors=k).fit(REAL).kneighbors()
    ours = distances.kth_neighbours(REAL, (k, 1))
    np.testing.assert_allclose(np.sqrt(ours), found.T[[k - 1, 0]], rtol=1e-12)


@pytest.mark.usefixtures("tile")
@pytest.mark.parametrize("k", [1, 3, 5])
def test_precision_and_recall_by_scikit_learns_radii(k):
    def share(points, centres):
        reach = NearestNeighbors(n_neighbors=k).fit(centres).kneighbors()[0][:, -1]
        return np.mean([np.any(cdist(p[None], centres)[0] <= reach) for p in points])

    found = metrics.precision_recall(FAKE, REAL, k=k)
    assert found.precision == share(FAKE, REAL)
    assert found.recall == share(REAL, FAKE)
    assert 0 < found.precision < 1 or k == 5
    assert 0 < found.recall < 1


def test_precision_and_recall_by_hand():
    real = np.array([[0.0], [1.0], [3.0], [10.0]])  # k = 1: radii 1, 1, 2, 7
    fake = np.array([[-1.5], [2.9], [3.05], [40.0]])  # radii 4.4, .15, .15, 36.95
    # of the samples only 2.9 and 3.05 are in [-1, 1], [0, 2], [1, 5] or [3, 17]
    # of the real 0, 1 are in [-5.9, 2.9], 3 in [2.9, 3.2] and 10 in [3.05, 76.95]
    assert metrics.precision_recall(fake, real, k=1) == (0.5, 1.0)


def test_precision_and_recall_at_the_extremes():
    assert metrics.precision_recall(REAL, REAL[::-1]) == (1, 1)
    assert metrics.precision_recall(REAL + 100, REAL) == (0, 0)
    one_mode = np.repeat(REAL[:1], 10, axis=0)  # radii 0: only exact copies are inside
    assert metrics.precision_recall(one_mode, REAL) == (1, pytest.approx(1 / 120))


def test_precision_and_recall_do_not_change_with_units_or_axes():
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(4, 4)))[0]
    moved = metrics.precision_recall(7 * FAKE @ turn - 2, 7 * REAL @ turn - 2)
    assert moved == metrics.precision_recall(FAKE, REAL)


@pytest.mark.usefixtures("tile")
def test_copies_are_counted_by_scikit_learns_distances():
    train, heldout = REAL[:70], REAL[70:]
    near = NearestNeighbors(n_neighbors=1).fit(train)
    ours, theirs = (near.kneighbors(z)[0][:, 0] for z in (FAKE, heldout))
    found = metrics.find_copies(FAKE, train, heldout, quantile=0.3)
    threshold = np.quantile(theirs, 0.3)
    assert found.share == np.mean(ours < threshold)
    # square roots of squared distances that lose a few roundings
    assert found[1:] == pytest.approx((threshold, np.median(ours), np.median(theirs)), rel=1e-12)


def test_a_memoriser_a_blurred_one_and_an_honest_model():
    generator = np.random.default_rng(4)
    train, heldout, honest = generator.normal(size=(3, 2000, 3))
    copied = train[generator.integers(0, 2000, 500)]
    assert metrics.find_copies(copied, train, heldout)[::2] == (1, 0)
    blurred = copied + 1e-3 * generator.normal(size=copied.shape)
    assert metrics.find_copies(blurred, train, heldout).share > 0.95
    found = metrics.find_copies(honest, train, heldout)
    # two independent binomial errors about .05: of the samples, and of the quantile
    assert abs(found.share - 0.05) < 4 * np.sqrt(2 * 0.05 * 0.95 / 2000)
    assert found.distance == pytest.approx(found.heldout_distance, rel=0.1)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: metrics.precision_recall(FAKE, REAL, k=0), "k must lie in 1..119"),
        (lambda: metrics.precision_recall(FAKE[:3], REAL, k=3), "k must lie in 1..2 with 3 points"),
        (lambda: metrics.precision_recall(FAKE[:, :2], REAL), "one width"),
        (lambda: metrics.find_copies(FAKE[:0], REAL, REAL), "at least 1 rows, got 0"),
        (lambda: metrics.find_copies(FAKE, REAL, REAL[:, :2]), "one width"),
        (lambda: metrics.find_copies(FAKE, REAL, REAL, quantile=5), "quantile must lie in"),
    ],
)
def test_bad_input(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_copies_are_seen_where_the_held_out_set_has_duplicates_too():
    """A tenth of it lies in the training set, so that the threshold is 0; all samples copy."""
    rng = np.random.default_rng(0)
    train = rng.normal(size=(40, 3))
    heldout = np.concatenate([train[:4], rng.normal(size=(36, 3))])
    assert metrics.find_copies(train, train, heldout).share == 1
