"""Truth: SciPy's distances and entropies, cases solved by hand, and the multinomial law."""

import numpy as np
import pytest
import scipy.spatial
import scipy.stats
from sklearn.metrics import accuracy_score

from jaxdiff import metrics

GENERATOR = np.random.default_rng(0)
P = GENERATOR.dirichlet([0.3] * 4, size=60)


def test_class_distance_is_half_of_scipys_cityblock():
    x, y = GENERATOR.integers(5, size=70), GENERATOR.integers(2, 7, size=40)
    shares = [np.bincount(z, minlength=7) / len(z) for z in (x, y)]
    expected = scipy.spatial.distance.cityblock(*shares) / 2
    assert metrics.class_distance(x, y) == pytest.approx(expected, rel=1e-12)
    assert metrics.class_distance_estimate(x, y).value == metrics.class_distance(x, y)


def test_class_distance_by_hand():
    assert metrics.class_distance([0, 0, 1, 1], [0, 1]) == 0
    assert metrics.class_distance([0, 0], [3]) == 1
    assert metrics.class_distance(np.array([0, 1, 1, 1], np.uint8), [0, 0, 0, 1]) == 0.5


def test_class_distance_takes_labels_of_any_size_and_type():
    assert metrics.class_distance(np.array([0, 255], np.uint8), np.zeros(2, np.uint8)) == 0.5
    assert metrics.class_distance(np.array([0, 127], np.int8), np.zeros(2, np.int8)) == 0.5
    assert metrics.class_distance(np.array([0, 10**12]), np.zeros(2, int)) == 0.5


def test_error_of_class_distance_is_binomial():
    """Of two classes the distance is |p - q|, far from 0 where it is smooth."""
    x, y = (np.repeat([0, 1], counts) for counts in ((300, 100), (60, 140)))
    expected = np.sqrt(0.75 * 0.25 / 400 + 0.3 * 0.7 / 200)
    found = metrics.class_distance_estimate(x, y, resamples=1000)
    assert found.value == pytest.approx(0.45)
    assert found.error == pytest.approx(expected, rel=4 / np.sqrt(2000))


def test_inception_score_is_scipys_divergence():
    expected = np.exp(np.mean([scipy.stats.entropy(p, P.mean(axis=0)) for p in P]))
    assert metrics.inception_score(P) == pytest.approx(expected, rel=1e-12)
    assert metrics.inception_estimate(P).value == metrics.inception_score(P)


def test_inception_score_at_its_ends():
    assert metrics.inception_score(np.full((5, 4), 0.25)) == pytest.approx(1, rel=1e-12)
    assert metrics.inception_score(np.eye(4)[[0, 1, 2, 3, 0, 1, 2, 3]]) == pytest.approx(4)
    assert metrics.inception_score(np.eye(4)[[1, 1, 1]]) == pytest.approx(1)  # one class alone
    halves = np.array([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    assert metrics.inception_score(halves.astype(np.float16)) == pytest.approx(2)


def test_error_of_the_inception_score_is_scipys_bootstrap():
    score = lambda i: metrics.inception_score(P[i])  # noqa: E731
    drawn = scipy.stats.bootstrap(
        [np.arange(60)], score, n_resamples=1000, vectorized=False, method="percentile"
    )
    found = metrics.inception_estimate(P, resamples=1000).error
    assert found == pytest.approx(drawn.standard_error, rel=5 / np.sqrt(1000))  # two such errors


def test_agreement_is_accuracy():
    guess, asked = GENERATOR.integers(3, size=(2, 50))
    found = metrics.agreement(guess, asked)
    share = accuracy_score(asked, guess)
    assert found == pytest.approx((share, np.sqrt(share * (1 - share) / 49)))
    assert metrics.agreement(asked, asked) == (1, 0)


@pytest.mark.slow
def test_an_interval_of_shares_holds_the_truth_as_often_as_it_should():
    """.68 of 300 within one error, binomial error .027; shares far enough apart to be smooth."""
    p, q, held = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5]), []
    for _ in range(300):
        x, y = GENERATOR.choice(3, 400, p=p), GENERATOR.choice(3, 300, p=q)
        value, error = metrics.class_distance_estimate(x, y)
        held.append(abs(value - 0.3) < error)
    assert np.mean(held) == pytest.approx(0.68, abs=0.11)
