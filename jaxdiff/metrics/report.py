"""All metrics at once, each with its error, beside what real data score."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdiff.metrics import classes, copies, errors, frechet, manifold, mmd
from jaxdiff.metrics.errors import Estimate
from jaxdiff.metrics.features import Features, compute, name_of, pixels

__all__ = ["Row", "evaluate", "evaluate_classes"]

KID_SUBSETS, KID_SIZE = 100, 1000  # as published; smaller sets give subsets of half their size


class Row(NamedTuple):
    """One line of the table.

    Attributes:
        metric: its name.
        value: of the samples against the held-out examples.
        error: its standard error; see `errors`.
        floor: of the training examples against the held-out ones: what a perfect model scores.
        floor_error: its standard error.
        n: how many samples; Frechet distances fall and recall rises with it.
        n_floor: how many training examples.
        n_real: how many held-out examples.
        better: "lower", "higher", or "floor", where too far on either side is a fault.
        features: what of the examples is compared.
    """

    metric: str
    value: float
    error: float
    floor: float
    floor_error: float
    n: int
    n_floor: int
    n_real: int
    better: str
    features: str


class _Part(NamedTuple):
    """A metric of one set."""

    metric: str
    estimate: Estimate
    better: str


def evaluate(
    samples: np.ndarray,
    train: np.ndarray,
    heldout: np.ndarray,
    *,
    features: Features = pixels,
    k: int = 3,
    k_coverage: int = 5,
    quantile: float = 0.05,
    resamples: int = 50,
    seed: int = 0,
) -> tuple[Row, ...]:
    """Judges samples against real examples that the model has not seen.

    Args:
        samples: [N, ...], all that there are.
        train: [M, ...], what the model was trained on.
        heldout: [L, ...], real examples that it has not seen.
        features: what of them is compared: `pixels`, `fit_pca(heldout, 16)` (which favours neither
            samples nor training examples), `batched` networks, any function.
        k: the neighbour of precision and recall.
        k_coverage: the neighbour of density and coverage.
        quantile: see `copies.find_copies`.
        resamples: for standard errors.
        seed: of the resampling.

    Returns:
        Rows in the order of a table.

    Raises:
        ValueError: where shapes differ, a set is too small, or features are not finite [N, D].
    """
    errors.check_resamples(resamples)
    named = {"samples": samples, "train": train, "heldout": heldout}
    _check_sets(named, k, k_coverage)
    ours, theirs, real = (compute(features, x, name) for name, x in named.items())
    how = {"resamples": resamples, "seed": seed}

    def compare(x: np.ndarray) -> list[_Part]:
        return [*_distances(x, real, bandwidth, size, how), *_shares(x, real, k, k_coverage, how)]

    bandwidth = mmd.median_distance(real)
    size = min(KID_SIZE, min(map(len, named.values())) // 2)
    near = copies.copies_estimate(ours, theirs, real, quantile=quantile, **how)
    nearness = [
        _Part("nearest training example", near.distance, "floor"),
        _Part("copies of training examples", near.share, "floor"),
    ]
    floor = [near.heldout_distance, Estimate(quantile, 0.0)]  # the latter by its definition
    return _rows(
        [*compare(ours), *nearness],
        [*(part.estimate for part in compare(theirs)), *floor],
        [len(x) for x in named.values()],
        name_of(features),
    )


def _check_sets(named: dict[str, np.ndarray], k: int, k_coverage: int) -> None:
    shapes = [np.shape(x)[1:] for x in named.values()]
    if len(set(shapes)) != 1:
        raise ValueError(
            "samples, train and heldout must hold examples of one shape, got "
            + ", ".join(str(list(shape)) for shape in shapes)
        )
    for name, value in (("k", k), ("k_coverage", k_coverage)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    least = 2 * (max(k, k_coverage) + 1)
    for name, x in named.items():
        if len(x) < least:
            raise ValueError(
                f"{name} must hold at least 2 (k + 1) = {least} examples, got {len(x)}"
            )


def _distances(
    x: np.ndarray, real: np.ndarray, bandwidth: float, size: int, how: dict[str, int]
) -> list[_Part]:
    blocks = mmd.kid(x, real, subsets=KID_SUBSETS, size=size, seed=how["seed"])
    found = [
        ("Frechet distance", frechet.frechet_estimate(x, real, **how)),
        ("KID, all pairs", mmd.mmd2_estimate(x, real, mmd.polynomial())),
        (f"KID, {KID_SUBSETS} subsets of {size}", Estimate(blocks.value, blocks.error)),
    ]
    if bandwidth > 0:  # most of the real features may be alike
        found.append(("MMD^2, Gaussian", mmd.mmd2_estimate(x, real, mmd.rbf(bandwidth))))
    return [_Part(metric, estimate, "lower") for metric, estimate in found]


def _shares(
    x: np.ndarray, real: np.ndarray, k: int, k_coverage: int, how: dict[str, int]
) -> list[_Part]:
    found = manifold.manifold_shares(x, real, k=k, k_coverage=k_coverage, **how)
    return [
        _Part(f"precision, k={k}", found.precision, "higher"),
        _Part(f"recall, k={k}", found.recall, "higher"),
        _Part(f"density, k={k_coverage}", found.density, "floor"),
        _Part(f"coverage, k={k_coverage}", found.coverage, "higher"),
    ]


def evaluate_classes(
    samples: np.ndarray,
    train: np.ndarray,
    heldout: np.ndarray,
    *,
    asked: Any = None,
    truth: Any = None,
    resamples: int = 50,
    seed: int = 0,
    features: str = "probabilities",
) -> tuple[Row, ...]:
    """Judges samples by what a classifier sees in them.

    Args:
        samples: [N, C], the probabilities that it gives to each class.
        train: [M, C], those of what the model was trained on.
        heldout: [L, C], those of real examples that it has not seen.
        asked: [N], the class that each sample was asked to be, None without labels.
        truth: [L], the classes of the held-out examples; with `asked`.
        resamples: for standard errors.
        seed: of the resampling.
        features: what a table calls the classifier.

    Returns:
        Rows: the distance of class shares; the Inception score; with `asked` how often the class
        is the one asked for, its floor the classifier's own accuracy.

    Raises:
        ValueError: where rows are no probabilities of the same classes, or lengths differ.
    """
    sets = [classes.check_probabilities(p) for p in (samples, train, heldout)]
    if len({p.shape[1] for p in sets}) != 1:
        raise ValueError(
            "samples, train and heldout must be of the same classes, got "
            + ", ".join(str(p.shape[1]) for p in sets)
        )
    if (asked is None) != (truth is None):
        raise ValueError("asked and truth go together, got one of them")
    how = {"resamples": resamples, "seed": seed}
    guesses = [np.argmax(p, axis=1) for p in sets]

    def judge(i: int, labels: Callable[[], Estimate]) -> list[_Part]:
        shares = classes.class_distance_estimate(guesses[i], guesses[2], **how)
        clear = classes.inception_estimate(sets[i], **how)
        parts = [_Part("class shares", shares, "lower"), _Part("Inception score", clear, "higher")]
        return parts if asked is None else [*parts, _Part("class as asked", labels(), "floor")]

    ours = judge(0, lambda: classes.agreement(guesses[0], asked))
    theirs = judge(1, lambda: classes.agreement(guesses[2], truth))
    counts = [len(p) for p in sets]
    return _rows(ours, [part.estimate for part in theirs], counts, features)


def _rows(
    parts: Sequence[_Part], floor: Sequence[Estimate], counts: Sequence[int], features: str
) -> tuple[Row, ...]:
    return tuple(
        Row(part.metric, *part.estimate, *real, *counts, part.better, features)
        for part, real in zip(parts, floor, strict=True)
    )
