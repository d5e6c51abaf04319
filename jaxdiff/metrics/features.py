"""From images to the vectors that are compared: all pixels, or their principal components."""

import dataclasses

import numpy as np
import scipy.linalg

from jaxdiff.metrics import frechet

__all__ = ["PCA", "fit_pca", "pixels"]


def pixels(x: np.ndarray) -> np.ndarray:
    """Every number of an example as a feature: [N, ...] to [N, D].

    Raises:
        ValueError: where there are no examples.
    """
    x = np.asarray(x)
    if x.ndim < 2 or x.size == 0:
        raise ValueError(f"x must be examples [N, ...], got shape {list(x.shape)}")
    return x.reshape(len(x), -1)


@dataclasses.dataclass(frozen=True, eq=False)
class PCA:
    """A projection on principal axes, z = (x - mean) axes^T, which keeps distances within them.

    Attributes:
        mean: [D].
        axes: [K, D], orthonormal, by falling variance.
        explained: the share of the variance that the axes carry, in [0, 1].
    """

    mean: np.ndarray
    axes: np.ndarray
    explained: float

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Projects features [N, D] to [N, K]."""
        return (features - self.mean) @ self.axes.T


def fit_pca(features: np.ndarray, dims: int) -> PCA:
    """The principal axes of a set of real features.

    Args:
        features: [N, D].
        dims: how many axes; fewer are kept where N or D has no more.

    Returns:
        The projection, with K = min(dims, D, N - 1) axes.

    Raises:
        ValueError: where `dims` is not positive or there are fewer than 2 rows.
    """
    if dims < 1:
        raise ValueError(f"dims must be >= 1, got {dims}")
    fit = frechet.moments(features)
    width = len(fit.mean)
    dims = min(dims, width, fit.n - 1)
    values, vectors = scipy.linalg.eigh(fit.cov, subset_by_index=[width - dims, width - 1])
    total = np.trace(fit.cov)
    explained = float(np.sum(values) / total) if total > 0 else 1.0
    return PCA(fit.mean, vectors[:, ::-1].T, explained)
