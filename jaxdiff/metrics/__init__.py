"""How good samples are: arrays in, numbers out. Knows nothing of diffusion."""

from jaxdiff.metrics.copies import Copies, find_copies
from jaxdiff.metrics.features import PCA, fit_pca, pixels
from jaxdiff.metrics.frechet import Moments, frechet_distance, frechet_from_moments, moments
from jaxdiff.metrics.manifold import PrecisionRecall, precision_recall
from jaxdiff.metrics.mmd import median_distance, mmd2, polynomial, rbf
from jaxdiff.metrics.report import Row, evaluate

__all__ = [
    "PCA",
    "Copies",
    "Moments",
    "PrecisionRecall",
    "Row",
    "evaluate",
    "find_copies",
    "fit_pca",
    "frechet_distance",
    "frechet_from_moments",
    "median_distance",
    "mmd2",
    "moments",
    "pixels",
    "polynomial",
    "precision_recall",
    "rbf",
]
