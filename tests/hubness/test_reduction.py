"""Rescaled distances against direct formulas on all pairs, in float64."""

import numpy as np
import pytest
from scipy import spatial, stats

from jaxdiff import hubness

N, K = 60, 5
X = np.random.default_rng(0).normal(size=(N, 30)).astype(np.float32)
D = spatial.distance.squareform(spatial.distance.pdist(X.astype(float)))
OTHERS = np.array([np.delete(row, i) for i, row in enumerate(D)])  # all are candidates


def local_scaling(i, j):
    return 1 - np.exp(-(D[i, j] ** 2) / (OTHERS[i].max() * OTHERS[j].max()))


def nicdm(i, j):
    return D[i, j] / np.sqrt(OTHERS[i].mean() * OTHERS[j].mean())


def empirical(i, j):
    return 1 - (OTHERS[i] > D[i, j]).mean() * (OTHERS[j] > D[i, j]).mean()


def gaussian(i, j):
    beyond = [stats.norm(OTHERS[n].mean(), OTHERS[n].std()).sf(D[i, j]) for n in (i, j)]
    return 1 - beyond[0] * beyond[1]


def dis_sim_local(i, j):
    x, mean = X.astype(float), lambda n: np.delete(X.astype(float), n, axis=0).mean(axis=0)
    return D[i, j] ** 2 - sum(((x[n] - mean(n)) ** 2).sum() for n in (i, j))


FORMULAS = {
    "local_scaling": local_scaling,
    "nicdm": nicdm,
    "mutual_proximity": empirical,
    "mutual_proximity_gaussian": gaussian,
    "dis_sim_local": dis_sim_local,
}


@pytest.mark.parametrize("name", hubness.REDUCTIONS)
def test_are_the_formulas(name):
    found = hubness.reduced(X, k=K, by=name, candidates=N - 1)
    for i in range(0, N, 7):
        values = np.array([np.inf if j == i else FORMULAS[name](i, j) for j in range(N)])
        order = np.argsort(values)[:K]
        # Differences of squares near 60 in float32 for dis_sim_local: some 1e-4.
        np.testing.assert_allclose(found.distance[i], values[order], rtol=1e-4, atol=2e-4)
        if name != "mutual_proximity":  # whose values are fractions of 59**2, with ties
            np.testing.assert_array_equal(found.index[i], order)


@pytest.mark.slow
def test_hubs_are_fewer_after_each():
    """What they are for: Gaussian points of 50 dimensions, of which half the candidates remain."""
    x = np.random.default_rng(1).normal(size=(500, 50)).astype(np.float32)
    plain = hubness.measure(hubness.k_occurrence(x, k=K), k=K)
    for name in hubness.REDUCTIONS:
        index = hubness.reduced(x, k=K, by=name, candidates=250).index
        after = hubness.measure(np.bincount(np.ravel(index), minlength=500), k=K)
        assert after.skewness < 0.6 * plain.skewness
        assert after.antihub_share < 0.6 * plain.antihub_share


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "none"}, "by must be one of local_scaling"),
        ({"by": "nicdm", "k": 20, "candidates": 10}, "k must be at most candidates=10"),
        ({"by": "nicdm", "candidates": N}, "candidates must be at most 59, the number of other"),
        ({"by": "nicdm", "candidates": 10, "metric": "inner"}, "metric must be a distance"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        hubness.reduced(X, **{"k": K, **options})


def test_equal_points_are_at_no_distance():
    x = np.ones((20, 3), np.float32)
    for name in hubness.REDUCTIONS:
        assert np.isfinite(hubness.reduced(x, k=3, by=name, candidates=10).distance).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", hubness.REDUCTIONS)
@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_size_does_not_matter(name, size):
    """All but differences of squares are free of units; squares of these are beyond float32."""
    found, usual = (
        hubness.reduced(x, k=K, by=name, candidates=20) for x in (X * np.float32(size), X)
    )
    np.testing.assert_array_equal(found.index, usual.index)
    if name != "dis_sim_local":
        np.testing.assert_allclose(found.distance, usual.distance, rtol=1e-4)
