"""From examples to the vectors that are compared: any function of arrays [N, ...] to [N, D].

    pixels     every number of an example
    fit_pca    principal components
    batched    a JAX function of one batch, such as a layer of a network

What distances mean depends on the features: two sets may agree in one and differ in another.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import scipy.linalg

from jaxdiff import arrays
from jaxdiff.metrics import distances, frechet

__all__ = ["PCA", "Batched", "Features", "batched", "compute", "fit_pca", "name_of", "pixels"]

Features = Callable[[np.ndarray], np.ndarray]
"""`features(x [N, ...]) -> [N, D]`, any function; its attribute `name`, if any, is reported."""


def compute(features: Features, x: Any, name: str = "x") -> np.ndarray:
    """The features of examples, having checked that they are such.

    Args:
        features: the function.
        x: [N, ...].
        name: what errors call the examples.

    Returns:
        [N, D], finite.

    Raises:
        ValueError: where there are no examples, or the function returns another number of rows,
            another rank, or what is not finite.
    """
    x = np.asarray(x)
    if x.ndim < 2 or x.size == 0:
        raise ValueError(f"{name} must be examples [N, ...], got shape {list(x.shape)}")
    found = np.asarray(features(x))
    if found.ndim != 2 or len(found) != len(x):
        raise ValueError(
            f"features must return [{len(x)}, D] for {len(x)} examples of {name},"
            f" got {list(found.shape)}"
        )
    return distances.check_features(found, f"features of {name}")


def name_of(features: Features) -> str:
    """What a table calls them: their `name`, else that of the function."""
    names = (getattr(features, attribute, None) for attribute in ("name", "__name__"))
    return next((name for name in names if name), type(features).__name__)


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

    @property
    def name(self) -> str:
        """PCA-K."""
        return f"PCA-{len(self.axes)}"

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Projects examples [N, ...] of D numbers to [N, K]."""
        x, (count, width) = pixels(x), self.axes.shape
        if x.shape[1] != width:
            raise ValueError(f"x must hold examples of {width} numbers, got {x.shape[1]}")
        found = np.empty((len(x), count))
        for rows, _ in distances.tiles(len(x), 1, width):
            found[rows] = (x[rows] - self.mean) @ self.axes.T
        return found


def fit_pca(x: np.ndarray, dims: int) -> PCA:
    """The principal axes of a set of real examples.

    Args:
        x: [N, ...], of D numbers each.
        dims: how many axes; fewer are kept where N or D has no more.

    Returns:
        The projection, with K = min(dims, D, N - 1) axes.

    Raises:
        ValueError: where `dims` is not positive or there are fewer than 2 rows.
    """
    if dims < 1:
        raise ValueError(f"dims must be >= 1, got {dims}")
    fit = frechet.moments(pixels(x))
    width = len(fit.mean)
    dims = min(dims, width, fit.n - 1)
    values, vectors = scipy.linalg.eigh(fit.cov, subset_by_index=[width - dims, width - 1])
    total = np.trace(fit.cov)
    explained = float(np.sum(values) / total) if total > 0 else 1.0
    return PCA(fit.mean, vectors[:, ::-1].T, explained)


@dataclasses.dataclass(frozen=True, eq=False)
class Batched:
    """A JAX function asked one batch at a time; `batched` makes one."""

    function: Callable
    batch_size: int
    name: str

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """[N, ...] to [N, D] float32 numpy."""
        x = np.asarray(x)
        parts = []
        for start in range(0, len(x), self.batch_size):
            part = x[start : start + self.batch_size]
            short = self.batch_size - len(part)
            padded = np.concatenate([part, np.repeat(part[-1:], short, axis=0)]) if short else part
            found = _ask(self.function, padded)
            if found.ndim != 2 or len(found) != self.batch_size:
                raise ValueError(
                    f"{self.name} must return [{self.batch_size}, D] for a batch of"
                    f" {self.batch_size}, got {list(found.shape)}"
                )
            parts.append(np.asarray(found, np.float32)[: len(part)])
        if not parts:
            raise ValueError("x must hold at least one example, got none")
        return np.concatenate(parts)


@jax.jit
def _ask(function: Callable, x: Any) -> jax.Array:
    return function(x)


def batched(function: Callable, *, batch_size: int = 256, name: str | None = None) -> Batched:
    """Features by a JAX function of a batch, compiled once: the last batch is padded.

    Args:
        function: [B, ...] to [B, D], each example by itself; a pytree with a call (its arrays are
            then arguments of the program, not constants in it) or a plain function.
        batch_size: B.
        name: what a table calls it; the function's own unless given.

    Returns:
        Features.

    Raises:
        ValueError: where batch_size is not positive.
        TypeError: where the function is none.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be >= 1, got {batch_size}")
    return Batched(arrays.as_pytree(function), batch_size, name or name_of(function))
