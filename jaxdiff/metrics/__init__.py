"""How good samples are: arrays in, numbers out. Knows nothing of diffusion."""

from jaxdiff.metrics.classes import (
    agreement,
    class_distance,
    class_distance_estimate,
    inception_estimate,
    inception_score,
)
from jaxdiff.metrics.copies import Copies, CopiesEstimate, copies_estimate, find_copies
from jaxdiff.metrics.errors import Estimate
from jaxdiff.metrics.features import PCA, Features, batched, fit_pca, pixels
from jaxdiff.metrics.frechet import (
    Moments,
    frechet_distance,
    frechet_estimate,
    frechet_from_moments,
    moments,
)
from jaxdiff.metrics.manifold import (
    DensityCoverage,
    ManifoldShares,
    PrecisionRecall,
    density_coverage,
    manifold_shares,
    precision_recall,
)
from jaxdiff.metrics.mmd import KID, kid, median_distance, mmd2, mmd2_estimate, polynomial, rbf
from jaxdiff.metrics.report import Row, evaluate, evaluate_classes

__all__ = [
    "KID",
    "PCA",
    "Copies",
    "CopiesEstimate",
    "DensityCoverage",
    "Estimate",
    "Features",
    "ManifoldShares",
    "Moments",
    "PrecisionRecall",
    "Row",
    "agreement",
    "batched",
    "class_distance",
    "class_distance_estimate",
    "copies_estimate",
    "density_coverage",
    "evaluate",
    "evaluate_classes",
    "find_copies",
    "fit_pca",
    "frechet_distance",
    "frechet_estimate",
    "frechet_from_moments",
    "inception_estimate",
    "inception_score",
    "kid",
    "manifold_shares",
    "median_distance",
    "mmd2",
    "mmd2_estimate",
    "moments",
    "pixels",
    "polynomial",
    "precision_recall",
    "rbf",
]
