"""Guidance by a classifier that has learned to read noisy data."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import expand_to
from jaxdiff.denoiser import add_score
from jaxdiff.denoiser.time_features import resolve_feature
from jaxdiff.guidance.scale import Scale, as_scale, scale_at
from jaxdiff.typing import Denoise, Denoised, NoiseLevel

__all__ = ["Classifier", "classifier", "log_prob_of", "make_classifier"]


@arrays.pytree
class Classifier:
    """A network with its parameters, seen as p(y | x_t); see `make_classifier`."""

    params: Any
    apply: Callable = arrays.static()
    time_feature: Callable = arrays.static()
    num_classes: int = arrays.static()
    dropout: bool = arrays.static()

    def __call__(self, x_t: Array, level: NoiseLevel) -> Array:
        """log p(y | x_t), [B, num_classes]."""
        return jax.nn.log_softmax(self.logits(x_t, level), axis=-1)

    def logits(
        self, x_t: Array, level: NoiseLevel, *, key: Array | None = None, train: bool = False
    ) -> Array:
        """The network's own output.

        Args:
            x_t: [B, ...], unscaled.
            level: fields [] or [B].
            key: for dropout.
            train: static, whether dropout is on.

        Returns:
            [B, num_classes].

        Raises:
            ValueError: the network returns another shape.
        """
        x = x_t * expand_to(1 / jnp.hypot(level.alpha, level.sigma), x_t)
        feature = jnp.broadcast_to(self.time_feature(level), x.shape[:1]).astype(x.dtype)
        more: dict[str, Any] = {}
        if train and self.dropout:
            more = {"train": True, "rngs": {"dropout": key}}
        y = self.apply(self.params, x, feature, **more)
        if y.shape != (x.shape[0], self.num_classes):
            raise ValueError(
                f"apply must return [{x.shape[0]}, {self.num_classes}], one logit a class,"
                f" got {list(y.shape)}"
            )
        return y

    def with_params(self, params: Any) -> "Classifier":
        """The same network with other parameters of the same shapes."""
        return Classifier(params, self.apply, self.time_feature, self.num_classes, self.dropout)


def make_classifier(
    apply: Callable,
    params: Any,
    num_classes: int,
    *,
    time_feature: Callable[[NoiseLevel], Array] | str = "quarter_log_sigma",
) -> Classifier:
    """A model of p(y | x_t) from a network.

    The network sees x_t / sqrt(alpha**2 + sigma**2), which has unit scale on every schedule. With
    a feature of the log-SNR, as by default, a classifier trained on one schedule therefore serves
    on every other.

    Args:
        apply: `apply(params, x, feature)` -> logits [B, num_classes], with x [B, ...] and feature
            [B]; a linen module's own `apply`, whose `__call__` has `train`, gets dropout too.
        params: the pytree it takes.
        num_classes: how many classes, at least 2.
        time_feature: as in `make_denoiser`.

    Returns:
        A Classifier: a pytree with params as leaves; called, it says log p(y | x_t).

    Raises:
        ValueError: fewer than two classes, or an unknown feature.
    """
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}")
    time_feature = resolve_feature(time_feature)
    module = getattr(apply, "__self__", None)
    dropout = callable(module) and "train" in inspect.signature(module.__call__).parameters
    return Classifier(params, apply, time_feature, num_classes, dropout)


def log_prob_of(labels: Any, logits: Array) -> Array:
    """log p(label) of each example, [B], from logits or log-probabilities [B, classes].

    A label that is no class gives NaN, in value and gradient: it must not pass for another.

    Raises:
        ValueError: labels are not [B].
    """
    labels = jnp.asarray(labels)
    if labels.shape != logits.shape[:1]:
        raise ValueError(
            f"labels must be [{logits.shape[0]}], one an example, got {list(labels.shape)}"
        )
    rows = jax.nn.log_softmax(logits, axis=-1)
    known = (labels >= 0) & (labels < rows.shape[-1])
    own = jnp.take_along_axis(rows, jnp.where(known, labels, 0)[:, None], axis=-1)[:, 0]
    return jnp.where(known, 1, jnp.nan) * own


@arrays.pytree
class ClassifierGuidance:
    """See `classifier`."""

    denoise: Denoise
    log_prob: Callable[[Array, NoiseLevel], Array]
    labels: Any
    scale: Scale

    def __call__(self, x_t: Array, level: NoiseLevel) -> Denoised:
        """The model's answer with the classifier's gradient in its score."""
        d = self.denoise(x_t, level)
        gradient = jax.grad(lambda x: jnp.sum(self._log_prob(x, level)))(x_t)
        return add_score(d, scale_at(self.scale, level, x_t, neutral=0.0) * gradient, level)

    def _log_prob(self, x_t: Array, level: NoiseLevel) -> Array:
        """log p(y | x_t) of each example's own label, [B]."""
        log_prob = self.log_prob(x_t, level)
        wanted = 1 if self.labels is None else 2
        if log_prob.ndim != wanted or log_prob.shape[0] != x_t.shape[0]:
            shape = f"[{x_t.shape[0]}{', classes' * (wanted - 1)}]"
            given = "without" if self.labels is None else "with"
            raise ValueError(
                f"log_prob must return {shape} {given} labels, got {list(log_prob.shape)}"
            )
        if self.labels is None:
            return log_prob
        return log_prob_of(self.labels, log_prob)


def classifier(
    denoise: Denoise,
    log_prob: Callable[[Array, NoiseLevel], Array],
    labels: Any = None,
    scale: Scale = 1.0,
) -> ClassifierGuidance:
    """Classifier guidance: the gradient of log p(y | x_t) in the score.

        g = w grad log p(y | x_t),    eps <- eps - sigma g,    x0 <- x0 + (sigma**2 / alpha) g

    With w = 1 and the exact classifier of the noisy data, an unconditional model becomes the
    conditional one (Bayes). At alpha = 0, where x_t is noise alone, the model's answer passes
    unguided. The classifier must treat each example by itself.

    Args:
        denoise: the model, unconditional or conditional.
        log_prob: what is known of noisy data, (x_t, level) -> [B, classes] logits or log p(y |
            x_t) where labels are given, such as `make_classifier` gives; else [B], any log-density.
        labels: [B] int, the class wanted of each example, or None.
        scale: w, [] or [B], or a function of the level (`limited`).

    Returns:
        A denoise.

    Raises:
        ValueError: labels that are no class; when asked, a number of labels other than of
            examples, or a log_prob of another shape.
        TypeError: no function.

    Source: Dhariwal and Nichol 2021, arXiv:2105.05233, eq. 13-14 and algorithm 2 (theirs moves
        the mean of a DDPM step by the same gradient, to first order).
    """
    _check_labels(labels, getattr(log_prob, "num_classes", None))
    functions = arrays.as_pytree(denoise), arrays.as_pytree(log_prob)
    return ClassifierGuidance(*functions, labels, as_scale(scale))


def _check_labels(labels: Any, num_classes: int | None) -> None:
    numbers = None if labels is None else arrays.concrete(labels)
    if numbers is None:
        return
    if not np.issubdtype(numbers.dtype, np.integer):
        raise ValueError(f"labels must be whole numbers, got {numbers.dtype}")
    high = np.iinfo(numbers.dtype).max if num_classes is None else num_classes - 1
    if numbers.size and (numbers.min() < 0 or numbers.max() > high):
        wrong = numbers[(numbers < 0) | (numbers > high)].flat[0]
        raise ValueError(f"labels must lie in 0..{high}, got {wrong}")
