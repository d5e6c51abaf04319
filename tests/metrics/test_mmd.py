"""Truth: scikit-learn's kernels with the estimator written out, and the closed form for
Gaussians under a Gaussian kernel."""

import numpy as np
import pytest
import scipy.spatial.distance
from sklearn.metrics.pairwise import polynomial_kernel, rbf_kernel

from jaxdiff import metrics
from jaxdiff.metrics import distances, mmd

X = np.random.default_rng(0).normal(size=(40, 5))
Y = np.random.default_rng(1).normal(size=(30, 5)) * 1.3 + 0.2


def written_out(xx, yy, xy):
    """The unbiased estimator, from whole kernel matrices."""
    n, m = len(xx), len(yy)
    within_x = (xx.sum() - np.trace(xx)) / (n * (n - 1))
    within_y = (yy.sum() - np.trace(yy)) / (m * (m - 1))
    return within_x + within_y - 2 * xy.mean()


@pytest.mark.parametrize("tile", [4096, 7])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (metrics.polynomial(), lambda a, b: polynomial_kernel(a, b, 3, gamma=1 / 5, coef0=1)),
        (metrics.polynomial(2, 0), lambda a, b: polynomial_kernel(a, b, 2, gamma=1 / 5, coef0=0)),
        (metrics.rbf(1.5), lambda a, b: rbf_kernel(a, b, gamma=1 / (2 * 1.5**2))),
    ],
)
def test_equals_scikit_learns_kernels_in_whole_and_in_tiles(monkeypatch, ours, theirs, tile):
    monkeypatch.setattr(distances, "TILE", tile)
    expected = written_out(theirs(X, X), theirs(Y, Y), theirs(X, Y))
    # kernel means of order 1 to 10 cancel to the result, in double precision
    assert metrics.mmd2(X, Y, ours) == pytest.approx(expected, abs=1e-12)


def test_float32_features_are_summed_in_float64():
    x, y = X.astype(np.float32), Y.astype(np.float32)
    exact = metrics.mmd2(x.astype(np.float64), y.astype(np.float64), metrics.polynomial())
    assert metrics.mmd2(x, y, metrics.polynomial()) == exact


def test_unbiased_for_gaussians_under_a_gaussian_kernel():
    """x ~ N(0, 1), y ~ N(m, 1), width h: differences are Gaussian with variance 2, so that
    MMD^2 = 2 h / sqrt(h^2 + 2) (1 - exp(-m^2 / (2 (h^2 + 2)))).
    """
    generator, width, mean, repeats = np.random.default_rng(0), 1.2, 0.7, 800
    draws = generator.normal(size=(repeats, 2, 9, 1))
    kernel = metrics.rbf(width)
    found = [metrics.mmd2(x, y + mean, kernel) for x, y in draws]
    var = width**2 + 2
    expected = 2 * width / np.sqrt(var) * (1 - np.exp(-(mean**2) / (2 * var)))
    # sets of 9, so that the biased estimator would be off by 1/9, some twenty standard errors
    assert abs(np.mean(found) - expected) < 4 * np.std(found) / np.sqrt(repeats)


@pytest.mark.parametrize("tile", [4096, 7])
def test_jackknife_leaves_out_one_by_one(monkeypatch, tile):
    monkeypatch.setattr(distances, "TILE", tile)
    kernel = metrics.rbf(1.5)
    var = 0
    for left_out in (
        [metrics.mmd2(np.delete(X, i, axis=0), Y, kernel) for i in range(40)],
        [metrics.mmd2(X, np.delete(Y, i, axis=0), kernel) for i in range(30)],
    ):
        n = len(left_out)
        var += (n - 1) ** 2 / n * np.var(left_out, ddof=1)  # the definition
    found = metrics.mmd2_estimate(X, Y, kernel)
    assert found.value == metrics.mmd2(X, Y, kernel)
    # differences of 1e-3 of numbers of order 1, in double precision
    assert found.error == pytest.approx(np.sqrt(var), rel=1e-9)


def test_kid_averages_subsets(monkeypatch):
    """By scikit-learn's kernel over the same subsets; by its own law otherwise."""
    drawn = []
    whole = mmd.mmd2
    monkeypatch.setattr(mmd, "mmd2", lambda x, y, k: drawn.append((x, y)) or whole(x, y, k))
    found = metrics.kid(X, Y, subsets=6, size=10)
    kernel = lambda a, b: polynomial_kernel(a, b, 3, gamma=1 / 5, coef0=1)  # noqa: E731
    each = [written_out(kernel(x, x), kernel(y, y), kernel(x, y)) for x, y in drawn]
    assert len(each) == 6
    assert {len(np.unique(z, axis=0)) for pair in drawn for z in pair} == {10}  # no repeats
    # kernel means of order 10 cancel to the result
    assert found[:2] == pytest.approx((np.mean(each), np.std(each, ddof=1)), rel=1e-10)
    assert found.error == pytest.approx(found.spread * np.sqrt(10 / 20), rel=1e-12)
    assert metrics.kid(X, Y, subsets=6, size=10) == found
    assert metrics.kid(X, Y, subsets=6, size=10, seed=1) != found


@pytest.mark.slow
def test_errors_are_those_of_many_sets():
    """The deviation over 200 pairs of sets, known to 5 %; either error to some 10 % on average."""
    generator, kernel = np.random.default_rng(0), metrics.rbf(2.0)
    sets = generator.normal(size=(200, 2, 120, 3))
    found = [metrics.mmd2_estimate(x, y[:80] + 0.7, kernel) for x, y in sets]
    values, error = np.transpose(found)
    assert np.sqrt(np.mean(error**2)) == pytest.approx(np.std(values), rel=0.2)
    blocks = [metrics.kid(x, y[:80] + 0.7, kernel=kernel, subsets=50, size=20) for x, y in sets]
    ratio = np.sqrt(np.mean([b.error**2 for b in blocks])) / np.std([b.value for b in blocks])
    # subsets of a quarter hold the term of order 1 / size^2 as well: at most too large
    assert 0.85 < ratio < 1.5
    null = np.transpose([metrics.mmd2_estimate(x, y, kernel) for x, y in sets])
    ratio = np.sqrt(np.mean(null[1] ** 2)) / np.std(null[0])
    assert ratio == pytest.approx(np.sqrt(2), rel=0.2)  # as its docstring says


def test_median_distance():
    expected = np.median(scipy.spatial.distance.pdist(X))
    assert metrics.median_distance(X) == pytest.approx(expected, rel=1e-12)
    some = metrics.median_distance(X, at_most=5)
    spaced = X[np.linspace(0, 39, 5).astype(int)]
    assert some == pytest.approx(np.median(scipy.spatial.distance.pdist(spaced)), rel=1e-12)


def test_bad_input():
    with pytest.raises(ValueError, match="bandwidth must be positive, got 0"):
        metrics.rbf(0)
    with pytest.raises(ValueError, match="y must have at least 2 rows, got 1"):
        metrics.mmd2(X, Y[:1], metrics.polynomial())
    with pytest.raises(ValueError, match="one width"):
        metrics.mmd2(X, Y[:, :3], metrics.polynomial())
