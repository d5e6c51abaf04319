"""All metrics at once, each beside what real data score."""

from typing import NamedTuple

import numpy as np

from jaxdiff.metrics import copies, features, frechet, manifold, mmd

__all__ = ["Row", "evaluate"]


class Row(NamedTuple):
    """One line of the table.

    Attributes:
        metric: its name.
        value: of the samples against the held-out examples.
        floor: of the training examples against the held-out ones: what a perfect model scores.
        n: how many samples; Frechet distances fall and recall rises with it.
        n_floor: how many training examples.
        n_real: how many held-out examples.
        better: "lower", "higher", or "floor", where too far on either side is a fault.
    """

    metric: str
    value: float
    floor: float
    n: int
    n_floor: int
    n_real: int
    better: str


def evaluate(
    samples: np.ndarray,
    train: np.ndarray,
    heldout: np.ndarray,
    *,
    k: int = 3,
    pca_dims: int = 16,
    quantile: float = 0.05,
) -> tuple[Row, ...]:
    """Judges samples against real examples that the model has not seen.

    The features are the pixels as they are, or the principal components of the held-out examples,
    which favours neither samples nor training examples.

    Args:
        samples: [N, ...] in [-1, 1], all that there are.
        train: [M, ...], what the model was trained on.
        heldout: [L, ...], real examples that it has not seen.
        k: the neighbour of precision and recall.
        pca_dims: how many principal components.
        quantile: see `copies.find_copies`.

    Returns:
        Rows in the order of a table.

    Raises:
        ValueError: where shapes differ or a set is too small.
    """
    shapes = [np.shape(x)[1:] for x in (samples, train, heldout)]
    if len(set(shapes)) != 1:
        raise ValueError(
            "samples, train and heldout must hold examples of one shape, got "
            + ", ".join(str(list(shape)) for shape in shapes)
        )
    for name, x in (("samples", samples), ("train", train), ("heldout", heldout)):
        if len(x) <= k:
            raise ValueError(f"{name} must hold at least k + 1 = {k + 1} examples, got {len(x)}")
    ours, theirs, real = (features.pixels(x) for x in (samples, train, heldout))
    counts = (len(ours), len(theirs), len(real))
    pca, bandwidth = features.fit_pca(real, pca_dims), mmd.median_distance(real)
    table = zip(
        _compare(ours, real, k, pca, bandwidth) + _nearness(ours, theirs, real, quantile),
        _compare(theirs, real, k, pca, bandwidth) + _nearness(real, theirs, real, quantile),
        strict=True,
    )
    return tuple(
        Row(metric, value, floor, *counts, better)
        for (metric, value, better), (_, floor, _) in table
    )


def _compare(
    x: np.ndarray, real: np.ndarray, k: int, pca: features.PCA, bandwidth: float
) -> list[tuple[str, float, str]]:
    """(metric, value, better) of what compares two sets."""
    dims = len(pca.axes)
    precision, recall = manifold.precision_recall(x, real, k=k)
    return [
        ("Frechet distance, pixels", frechet.frechet_distance(x, real), "lower"),
        (f"Frechet distance, PCA-{dims}", frechet.frechet_distance(pca(x), pca(real)), "lower"),
        ("MMD^2, polynomial (KID)", mmd.mmd2(x, real, mmd.polynomial()), "lower"),
        ("MMD^2, Gaussian", mmd.mmd2(x, real, mmd.rbf(bandwidth)), "lower"),
        (f"precision, k={k}", precision, "higher"),
        (f"recall, k={k}", recall, "higher"),
    ]


def _nearness(
    x: np.ndarray, train: np.ndarray, heldout: np.ndarray, quantile: float
) -> list[tuple[str, float, str]]:
    """(metric, value, better) of what looks for copies of training examples."""
    found = copies.find_copies(x, train, heldout, quantile=quantile)
    return [
        ("distance to nearest training example", found.distance, "floor"),
        ("copies of training examples", found.share, "floor"),
    ]
