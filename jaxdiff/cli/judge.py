"""What samples are compared in: pixels, principal components, a classifier, a user's function."""

import functools
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays, metrics
from jaxdiff.cli import runs
from jaxdiff.config import ClassifierConfig, build, holds
from jaxdiff.guidance import Classifier, make_classifier
from jaxdiff.metrics import Features
from jaxdiff.schedules import cleanest_time
from jaxdiff.typing import NoiseLevel

__all__ = ["Judge", "judge"]

PCA_DIMS = 16


class Judge(NamedTuple):
    """What examples are compared in.

    Attributes:
        features: [N, ...] to [N, D].
        probabilities: [N, ...] to [N, classes], of a classifier; else None.
    """

    features: Features
    probabilities: Features | None = None


def judge(name: str, heldout: np.ndarray) -> Judge:
    """The features that a name stands for.

    Args:
        name: "pixels", "pca", the path of a run of `jaxdiff classifier`, or "module:function" for
            any function of images [N, ...] to [N, D].
        heldout: [L, ...], the real examples that principal components are fitted to.

    Raises:
        ValueError: none of these, or a classifier of other examples.
    """
    if name == "pixels":
        return Judge(metrics.pixels)
    if name == "pca":
        return Judge(metrics.fit_pca(heldout, PCA_DIMS))
    if Path(name).is_dir():
        return _by_classifier(Path(name), heldout.shape[1:])
    module, colon, function = name.partition(":")
    if colon:
        return Judge(_imported(module, function))
    raise ValueError(
        "--features must be pixels, pca, a run of jaxdiff classifier or module:function,"
        f" got {name!r}"
    )


def _imported(module: str, function: str) -> Features:
    if str(Path.cwd()) not in sys.path:  # as python -m has it, and a console script has not
        sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"--features {module}:{function}: {error}") from error
    if not callable(found):
        raise ValueError(f"--features {module}:{function} is no function, but {found!r}")
    return found


@arrays.pytree
class _AtLevel:
    """What a classifier makes of clean examples, told that they are at a level of little noise."""

    reader: Classifier
    level: NoiseLevel
    last: Callable = arrays.static()

    def __call__(self, x: Array) -> Array:
        return self.last(self.reader.logits(self.level.alpha * x, self.level))


def _by_classifier(path: Path, shape: tuple[int, ...]) -> Judge:
    """Its penultimate layer and its probabilities, at the cleanest level that it was trained on."""
    run = runs.open_run(path)
    config = run.config
    if not isinstance(config.model, ClassifierConfig):
        raise ValueError(f"--features {path}: it holds {holds(config.model)}, not a classifier")
    if tuple(config.data.shape) != tuple(shape):
        raise ValueError(
            f"--features {path}: its examples are {list(config.data.shape)}, those to judge"
            f" {list(shape)}"
        )
    params = build.averaged(config, run.restore())
    schedule = build.build_schedule(config)
    level = schedule(jnp.asarray(cleanest_time(schedule)))
    reader = build.build_classifier(config, params)
    # the same network, read one layer earlier: what `Classifier` calls logits are its features
    layer = functools.partial(build.build_model(config).apply, method="features")
    inputs = jnp.zeros((1, *shape)), jnp.zeros((1,))
    width = jax.eval_shape(layer, params, *inputs).shape[-1]
    penultimate = make_classifier(layer, params, width)
    return Judge(
        metrics.batched(_AtLevel(penultimate, level, _itself), name=str(path)),
        metrics.batched(_AtLevel(reader, level, jax.nn.softmax), name=str(path)),
    )


def _itself(x: Array) -> Array:
    return x
