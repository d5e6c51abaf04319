"""Every mistake is named before any work: the argument, what was given, what was wanted."""

import numpy as np
import pytest

from jaxdiff import metrics
from jaxdiff.metrics import errors, features

X = np.random.default_rng(0).normal(size=(20, 3))
P = np.full((20, 2), 0.5)
NAN = np.where(np.arange(3) == 1, np.nan, X)


def evaluate(**how):
    return metrics.evaluate(X, X, X, **how)


def by(function):
    """What `evaluate` says of a features function."""
    return lambda: evaluate(features=function)


BAD = [
    ("NaN", lambda: metrics.density_coverage(NAN, X), "x must be finite"),
    ("infinite", lambda: metrics.mmd2(X, X / 0.0, metrics.polynomial()), "y must be finite"),
    ("words", lambda: metrics.moments(X.astype(str)), "features must be real numbers, got <U"),
    ("complex", lambda: metrics.moments(X + 0j), "must be real numbers, got complex128"),
    ("empty", lambda: metrics.density_coverage(X[:0], X), "x must have at least 1 rows, got 0"),
    ("no width", lambda: metrics.density_coverage(X[:, :0], X), r"must be features \[N, D\]"),
    ("one row", lambda: metrics.frechet_estimate(X, X[:1]), "y must have at least 2 rows, got 1"),
    ("two rows", lambda: metrics.mmd2_estimate(X[:2], X, metrics.polynomial()), "at least 3 rows"),
    ("k = N", lambda: metrics.density_coverage(X, X, k=20), "k must lie in 1..19 with 20 points"),
    ("k = 0", lambda: metrics.density_coverage(X, X, k=0), "k must lie in 1..19"),
    ("halves", lambda: metrics.manifold_shares(X, X[:11]), "real must have at least 12 rows"),
    ("k of halves", lambda: metrics.manifold_shares(X, X, k=10), "samples must have at least 22"),
    ("widths", lambda: metrics.manifold_shares(X, X[:, :2]), "one width, got x 3 and y 2"),
    ("PCA width", lambda: metrics.fit_pca(X, 2)(X[:, :2]), "examples of 3 numbers, got 2"),
    ("bootstrap 0", lambda: evaluate(resamples=0), "whole number of at least 2, got 0"),
    ("bootstrap 1", lambda: metrics.frechet_estimate(X, X, resamples=1), "at least 2, got 1"),
    ("halves 0", lambda: errors.half_sampling(np.sum, 9, resamples=0), "at least 2, got 0"),
    ("a set of one", lambda: errors.bootstrap(np.sum, 1), "sets must have at least 2 rows, got 1"),
    ("k", lambda: evaluate(k=0), "k must be at least 1, got 0"),
    ("k of coverage", lambda: evaluate(k_coverage=-1), "k_coverage must be at least 1, got -1"),
    ("large k", lambda: evaluate(k=10), r"samples must hold at least 2 \(k \+ 1\) = 22"),
    ("subset size", lambda: metrics.kid(X, X, size=20), "size must be at least 2 and below 20"),
    ("subsets", lambda: metrics.kid(X, X, size=5, subsets=1), "subsets must be at least 2, got 1"),
    ("kernel sums", lambda: metrics.mmd2(X, X, lambda a, b: a), r"must return \[20, 20\], got"),
    ("quantile", lambda: metrics.copies_estimate(X, X, X, quantile=1), "quantile must lie in"),
    ("images", by(lambda x: x[:, None]), r"must return \[20, D\] for 20 examples of samples"),
    ("vector", by(lambda x: x[:, 0]), r"must return \[20, D\].*got \[20\]"),
    ("other length", by(lambda x: x[:-1]), r"must return \[20, D\].*got \[19, 3\]"),
    ("features NaN", by(lambda x: x * np.nan), "features of samples must be finite"),
    ("features none", by(lambda x: x[:, :0]), "features of samples must be features"),
    ("no examples", lambda: features.compute(metrics.pixels, X[:0]), "x must be examples"),
    ("a batch's sum", by(metrics.batched(lambda x: x.sum(axis=0))), r"must return \[256, D\]"),
    (
        "batch size",
        lambda: metrics.batched(metrics.pixels, batch_size=0),
        "batch_size must be >= 1",
    ),
    ("none in batches", lambda: metrics.batched(lambda x: x)(X[:0]), "at least one example"),
    ("sums", lambda: metrics.inception_score(P * 0.9), "must sum to 1, got 0.9 in row 0"),
    ("negative", lambda: metrics.inception_score([[1.5, -0.5]]), "not negative"),
    ("logits", lambda: metrics.inception_score(np.eye(3) * 4), "must sum to 1, got 4 in row 0"),
    ("one class", lambda: metrics.inception_score(P[:, :1]), r"\[N, C\] with C >= 2"),
    ("NaN classes", lambda: metrics.inception_score(P * np.nan), "must be finite"),
    (
        "other classes",
        lambda: metrics.evaluate_classes(P, P, np.eye(3)),
        "same classes, got 2, 2, 3",
    ),
    ("asked alone", lambda: metrics.evaluate_classes(P, P, P, asked=[0] * 20), "go together"),
    (
        "labels of another length",
        lambda: metrics.evaluate_classes(P, P, P, asked=[0] * 19, truth=[0] * 20),
        "asked must be 20, one class an example, got 19",
    ),
    ("one-hot labels", lambda: metrics.class_distance(P, [0]), r"x must be classes \[N\]"),
    ("float labels", lambda: metrics.class_distance([0], [0.5]), "y must be whole numbers"),
    ("null label", lambda: metrics.class_distance([0, -1], [0]), "x must be classes >= 0, got -1"),
    ("no labels", lambda: metrics.class_distance([0], []), r"y must be classes \[N\]"),
    ("one agreement", lambda: metrics.agreement([0], [0]), "at least 2 rows, got 1"),
]


@pytest.mark.parametrize(("call", "says"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_input(call, says):
    with np.errstate(all="ignore"), pytest.raises(ValueError, match=says):
        call()


def test_what_is_no_function():
    with pytest.raises(TypeError, match="wanted a function, got 3"):
        metrics.batched(3)
