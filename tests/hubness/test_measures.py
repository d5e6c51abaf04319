"""Measures against direct float64 formulas, scipy, and scikit-hubness's definitions written out."""

import numpy as np
import pytest
from scipy import stats

from jaxdiff import hubness

K = 5
COUNTS = np.random.default_rng(0).negative_binomial(1, 1 / (1 + K), 400)


@pytest.fixture(scope="module")
def found():
    return hubness.measure(COUNTS, k=K)


def test_all_measures(found):
    n = COUNTS.astype(float)
    a = -n.mean() / n.std(ddof=1)
    pairs = np.abs(n[:, None] - n[None]).sum()
    wanted = {
        "skewness": stats.skew(n),
        "truncated_skewness": stats.truncnorm(a, np.inf).moment(3),
        "robin_hood": 0.5 * np.abs(n - n.mean()).sum() / n.sum(),
        "gini": pairs / (2 * len(n) * n.sum()),
        "atkinson": 1 - np.sqrt(n).mean() ** 2 / n.mean(),
        "hub_share": (n >= 2 * K).mean(),
        "hub_occurrence": n[n >= 2 * K].sum() / n.sum(),
        "antihub_share": (n == 0).mean(),
        "largest_share": n.max() / n.sum(),
        "largest": n.max(),
    }
    assert set(wanted) == set(found._fields)
    for name, value in wanted.items():
        # float32 sums of 400 numbers, cubes among them.
        np.testing.assert_allclose(getattr(found, name), value, rtol=1e-4, err_msg=name)


def test_equal_counts_are_no_inequality():
    found = hubness.measure(np.full(50, K), k=K)
    for name in ("robin_hood", "gini", "atkinson", "antihub_share", "hub_share"):
        assert abs(float(getattr(found, name))) < 1e-6
    assert np.isnan(found.skewness)
    assert np.isnan(found.truncated_skewness)


def test_one_point_has_all():
    """The greatest inequality: gini and robin hood 1 - 1/M, Atkinson likewise."""
    counts = np.zeros(100, int)
    counts[3] = 500
    found = hubness.measure(counts, k=K)
    for name in ("robin_hood", "gini", "atkinson", "antihub_share"):
        np.testing.assert_allclose(getattr(found, name), 0.99, rtol=1e-5)
    np.testing.assert_allclose(found.skewness, stats.skew(counts), rtol=1e-4)


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        (np.zeros(5), {"k": 5}, "counts must be 0 or more and not all 0"),
        (-COUNTS, {"k": 5}, "counts must be 0 or more"),
        (COUNTS[:0], {"k": 5}, r"counts must be \[M\]"),
        (COUNTS[None], {"k": 5}, r"counts must be \[M\]"),
        (COUNTS, {"k": 0}, "k must be"),
        (COUNTS, {"k": 5, "hub_size": 0.0}, "hub_size must"),
    ],
)
def test_bad_input(counts, options, message):
    with pytest.raises(ValueError, match=message):
        hubness.measure(counts, **options)
