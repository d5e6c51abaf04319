"""Truth: closed forms for means and medians, SciPy's own bootstrap, the closed Frechet distance of
Gaussians, and how often an interval of one error holds what it should."""

import numpy as np
import pytest
import scipy.stats
from scipy.spatial.distance import cdist

from jaxdiff import metrics
from jaxdiff.metrics import errors, frechet

X = np.random.default_rng(0).normal(size=(200, 1))


def test_of_a_mean():
    expected = np.std(X) / np.sqrt(200)
    found = errors.bootstrap(lambda i: np.mean(X[i]), 200, resamples=2000)
    assert found == pytest.approx(expected, rel=4 / np.sqrt(2 * 2000))  # four standard errors
    found = errors.half_sampling(lambda i: np.mean(X[i]), 200, resamples=2000)
    assert found == pytest.approx(expected, rel=4 / np.sqrt(2 * 2000))


def test_of_the_difference_of_two_means_of_other_lengths():
    y = np.random.default_rng(1).normal(size=(50, 1)) * 3
    expected = np.sqrt(np.var(X) / 200 + np.var(y) / 50)
    difference = lambda i, j: np.mean(X[i]) - np.mean(y[j])  # noqa: E731
    found = errors.bootstrap(difference, 200, 50, resamples=2000)
    assert found == pytest.approx(expected, rel=4 / np.sqrt(2 * 2000))
    found = errors.half_sampling(difference, 200, 50, resamples=2000)
    assert found == pytest.approx(expected, rel=4 / np.sqrt(2 * 2000))


def test_large_sets_are_halved_by_part():
    """The parts are of the asked size, share nothing, and the error is that of the whole."""
    x, seen = np.random.default_rng(0).normal(size=5000), []

    def mean(i, j):
        seen.append((i, j))
        return np.array([np.mean(x[i]), np.mean(x[j])])

    found = errors.half_sampling(mean, 5000, 500, resamples=400, at_most=100)
    assert {(len(i), len(j)) for i, j in seen} == {(100, 10)}
    assert not set(seen[0][0]) & set(seen[1][0])
    assert found == pytest.approx(
        [1 / np.sqrt(5000), 1 / np.sqrt(500)], rel=4 / np.sqrt(800) + 0.02
    )


def test_frechet_resamples_are_sets_drawn_again():
    """Weighted moments and eigenvalues against the distance of the rows themselves, repeated."""
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(40, 5)).astype(np.float32), generator.normal(size=(30, 5)) + 1
    drawn = []
    whole = errors.bootstrap

    def spy(statistic, *sizes, **how):
        return whole(lambda *i: drawn.append((i, statistic(*i))) or drawn[-1][1], *sizes, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(errors, "bootstrap", spy)
        found = metrics.frechet_estimate(x, y, resamples=5)
    for (i, j), distance in drawn:
        # the roots of eigenvalues, see the function; distances of order 5
        assert distance == pytest.approx(metrics.frechet_distance(x[i], y[j]), abs=1e-6)
    assert found.value == metrics.frechet_distance(x, y)
    assert found.error == pytest.approx(np.std([d for _, d in drawn], ddof=1), rel=1e-12)


def test_frechet_error_with_fewer_examples_than_features():
    x, y = np.random.default_rng(0).normal(size=(2, 6, 20))
    a, b = frechet.moments(x), frechet.moments(y)
    quick = frechet._squared(a, b, frechet._overlap_by_eigenvalues(a.cov, b.cov))
    # eigenvalues near rounding are lost with their roots, 1e-8 each
    assert quick == pytest.approx(metrics.frechet_distance(x, y), abs=1e-6)
    assert metrics.frechet_estimate(x, y, resamples=4).error > 0


def test_one_seed_one_error():
    one, same, other = (
        metrics.frechet_estimate(X, X + 1, resamples=5, seed=s).error for s in (3, 3, 4)
    )
    assert one == same != other


def test_of_a_share_of_copies():
    """Both sets of distances alike: binomial errors of the share and of the quantile."""
    train, heldout, samples = np.random.default_rng(0).normal(size=(3, 1500, 2))
    found = metrics.copies_estimate(samples, train, heldout, quantile=0.2, resamples=400)
    plain = metrics.find_copies(samples, train, heldout, quantile=0.2)
    values = (found.share.value, found.distance.value, found.heldout_distance.value)
    assert values == (plain.share, plain.distance, plain.heldout_distance)
    # the density of distances at the quantile cancels; 4 / sqrt(800) of the resampling
    assert found.share.error == pytest.approx(np.sqrt(2 * 0.2 * 0.8 / 1500), rel=0.2)
    near = cdist(samples, train).min(axis=1)
    median = scipy.stats.bootstrap([near], np.median, n_resamples=1000, method="percentile")
    assert found.distance.error == pytest.approx(median.standard_error, rel=0.2)


@pytest.mark.slow
def test_an_interval_holds_the_truth_as_often_as_it_should():
    """Frechet distances of Gaussians far apart, where the bias is small: |m|^2 + tr (R - 1)^2.

    One error on either side holds it for .68 of 300 pairs, with a binomial error of .027; the
    bias, (2 d + ..) / n, and the 50 resamples of each take some .02 away.
    """
    generator, shift, std = np.random.default_rng(0), np.array([1.0, -1.0]), np.array([1.5, 0.5])
    truth = np.sum(shift**2) + np.sum((std - 1) ** 2)
    found = np.array(
        [
            metrics.frechet_estimate(
                generator.normal(size=(400, 2)), shift + std * generator.normal(size=(300, 2))
            )
            for _ in range(300)
        ]
    )
    assert np.mean(np.abs(found[:, 0] - truth) < found[:, 1]) == pytest.approx(0.68, abs=0.1)
    assert np.mean(np.abs(found[:, 0] - truth) < 2 * found[:, 1]) == pytest.approx(0.95, abs=0.05)
    assert np.mean(found[:, 1]) == pytest.approx(np.std(found[:, 0]), rel=0.2)


@pytest.mark.slow
def test_percentiles_of_the_bootstrap_lie_beside_a_biased_distance():
    """Why only the deviation is used: two like sets in 20 dimensions, where the bias is all.

    Resamples have twice the examples' bias, so that most lie above the value, while the deviation
    stays right within a half.
    """
    generator = np.random.default_rng(0)
    sets = generator.normal(size=(60, 2, 200, 20))
    found = np.array([metrics.frechet_estimate(x, y) for x, y in sets])
    ratio = np.mean(found[:, 1]) / np.std(found[:, 0])
    assert 0.8 < ratio < 1.7
    x, y = sets[0]
    drawn = [metrics.frechet_distance(x[generator.integers(200, size=200)], y) for _ in range(50)]
    assert np.quantile(drawn, 0.05) > found[0, 0]
