"""Truth: scikit-learn's kernels with the estimator written out, and the closed form for
Gaussians under a Gaussian kernel."""

import numpy as np
import pytest
import scipy.spatial.distance
from sklearn.metrics.pairwise import polynomial_kernel, rbf_kernel

from jaxdiff import metrics
from jaxdiff.metrics import distances

X = np.random.default_rng(0).normal(size=(40, 5))
Y = np.random.default_rng(1).normal(size=(30, 5)) * 1.3 + 0.2


def written_out(xx, yy, xy):
    """The unbiased estimator, from whole kernel matrices."""
    n, m = len(xx), len(yy)
    within_x = (xx.sum() - np.trace(xx)) / (n * (n - 1))
    within_y = (yy.sum() - np.trace(yy)) / (m * (m - 1))
    return within_x + within_y - 2 * xy.mean()


@pytest.mark.parametrize("entries", [2**24, 100])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (metrics.polynomial(), lambda a, b: polynomial_kernel(a, b, 3, gamma=1 / 5, coef0=1)),
        (metrics.polynomial(2, 0), lambda a, b: polynomial_kernel(a, b, 2, gamma=1 / 5, coef0=0)),
        (metrics.rbf(1.5), lambda a, b: rbf_kernel(a, b, gamma=1 / (2 * 1.5**2))),
    ],
)
def test_equals_scikit_learns_kernels_in_whole_and_in_blocks(monkeypatch, ours, theirs, entries):
    monkeypatch.setattr(distances, "BLOCK_ENTRIES", entries)
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
