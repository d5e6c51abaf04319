"""Truth: the formula by scipy.linalg.sqrtm, closed forms for commuting covariances, the nuclear
norm of the data matrices where covariances are singular, invariances, and the bias law."""

import numpy as np
import pytest
import scipy.linalg
import scipy.stats

from jaxdiff import metrics
from jaxdiff.metrics.frechet import frechet_from_moments


def features(seed, n=300, width=6):
    generator = np.random.default_rng(seed)
    mix = generator.normal(size=(width, width))
    return generator.normal(size=(n, width)) @ mix + generator.normal(size=width)


def commuting(a, b, shift=0.0):
    """Moments of Gaussians with eigenvalues a and b on common random axes."""
    width = len(a)
    axes = scipy.stats.ortho_group.rvs(width, random_state=0)
    make = lambda values, mean: metrics.Moments(  # noqa: E731
        np.full(width, mean), (axes * np.asarray(values, float)) @ axes.T, 10
    )
    return make(a, 0.0), make(b, shift)


def test_moments_are_numpys():
    x = features(0, n=5000)  # more than one block of rows
    fit = metrics.moments(x)
    # sums of 5000 doubles in another order
    np.testing.assert_allclose(fit.mean, x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(fit.cov, np.cov(x, rowvar=False), rtol=1e-11)
    assert fit.n == 5000


def test_equals_the_formula_by_scipy_sqrtm():
    x, y = features(0), features(1, n=200)
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    cross = np.trace(scipy.linalg.sqrtm(a @ b)).real
    mean = np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2)
    expected = mean + np.trace(a) + np.trace(b) - 2 * cross
    # condition numbers below 1e4 and traces some ten times the result, in double precision
    np.testing.assert_allclose(metrics.frechet_distance(x, y), expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([1, 2, 3], [4, 5, 6]),
        ([0, 1, 2], [3, 0, 5]),  # singular, on different axes
        ([0, 0, 1], [0, 0, 4]),
        ([0, 0, 0], [1, 2, 3]),
    ],
)
def test_commuting_gaussians(a, b):
    x, y = commuting(a, b, shift=0.5)
    expected = 3 * 0.25 + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
    # some ten roundings of the traces, of order 10
    assert frechet_from_moments(x, y) == pytest.approx(expected, abs=1e-13)


def test_eigenvalues_twelve_orders_apart():
    a, b = np.array([1e-8, 1, 1e4]), np.ones(3)
    expected = np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
    # the matrix holds its least eigenvalue to 1e-12 only (1e4 by 1e-16), hence the root, 1e-4,
    # to 1e-12 / (2 * 1e-4) by a factor of order 1; it enters twice
    assert frechet_from_moments(*commuting(a, b)) == pytest.approx(expected, abs=5e-8)


def test_one_dimension():
    x, y = features(0, width=1), features(1, width=1)
    expected = (x.mean() - y.mean()) ** 2 + (x.std(ddof=1) - y.std(ddof=1)) ** 2
    assert metrics.frechet_distance(x, y) == pytest.approx(expected, rel=1e-10)


def test_fewer_samples_than_features():
    x, y = features(0, n=8, width=40), features(1, n=12, width=40)
    roots = [(z - z.mean(axis=0)) / np.sqrt(len(z) - 1) for z in (x, y)]
    traces = sum(np.sum(root**2) for root in roots)
    # C = R^T R, so the trace of the root is the nuclear norm of R_x R_y^T, without any root
    cross = np.linalg.norm(roots[0] @ roots[1].T, "nuc")
    expected = np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2) + traces - 2 * cross
    # the null spaces must not leak: their eigenvalues, 1e-16, would have roots of 1e-8
    np.testing.assert_allclose(metrics.frechet_distance(x, y), expected, rtol=1e-11)


@pytest.mark.parametrize(("n", "width"), [(300, 6), (8, 40)])
def test_zero_between_equal_sets(n, width):
    x = features(0, n=n, width=width)
    shuffled = np.random.default_rng(0).permutation(x)
    scale = np.trace(metrics.moments(x).cov)
    assert 0 <= metrics.frechet_distance(x, shuffled) < 1e-12 * scale  # rounding of the traces


def test_never_negative():
    for seed in range(30):  # rounding alone has either sign
        x = np.random.default_rng(seed).normal(size=(50, seed + 1))
        assert metrics.frechet_distance(x, x) >= 0


def test_invariances():
    x, y = features(0), features(1)
    distance = metrics.frechet_distance(x, y)
    turn = scipy.stats.ortho_group.rvs(6, random_state=1)
    same = [(y, x), (x @ turn + 3, y @ turn + 3)]
    for a, b in same:
        assert metrics.frechet_distance(a, b) == pytest.approx(distance, rel=1e-10)
    assert metrics.frechet_distance(5 * x, 5 * y) == pytest.approx(25 * distance, rel=1e-10)
    moved = metrics.frechet_distance(x, x + np.arange(6))
    assert moved == pytest.approx(np.sum(np.arange(6) ** 2), rel=1e-10)


def test_bias_falls_as_one_over_n():
    """For two n-samples of N(0, I_d): E d^2 = 2 d / n + d (d + 1) / (2 n) + O(n^-2).

    The first term is that of the means; the second is |C_x - C_y|_F^2 / 4, to which the rest
    reduces near C = I.
    """
    generator = np.random.default_rng(0)
    width, n, repeats = 8, 1000, 60
    draws = generator.normal(size=(repeats, 2, n, width))
    found = [metrics.frechet_distance(x, y) for x, y in draws]
    expected = 2 * width / n + width * (width + 1) / (2 * n)
    error = np.std(found) / np.sqrt(repeats)
    # four standard errors, and 2 % for the next order, some width / n
    assert abs(np.mean(found) - expected) < 4 * error + 0.02 * expected


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (np.ones((1, 3)), np.ones((5, 3)), "x must have at least 2 rows, got 1"),
        (np.ones((5, 3)), np.ones((5, 4)), "one width, got x 3 and y 4"),
        (np.ones((5, 2, 2)), np.ones((5, 4)), r"x must be features.*\[5, 2, 2\]"),
        (np.ones((5, 3)), np.full((5, 3), np.nan), "y must be finite"),
    ],
)
def test_bad_input(x, y, says):
    with pytest.raises(ValueError, match=says):
        metrics.frechet_distance(x, y)


def test_what_is_no_covariance():
    good, bad = commuting([1, 2], [1, -1])
    with pytest.raises(ValueError, match=r"y.cov must be positive semi-definite, got.*-1"):
        frechet_from_moments(good, bad)
    with pytest.raises(ValueError, match="one width"):
        frechet_from_moments(good, commuting([1], [1])[0])
