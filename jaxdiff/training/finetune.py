"""Tuning a classifier of texts, for `fit`: the trained parameters apart from all others.

    state.params    the trained leaves, by path: what has a gradient, moments and an average
    state.aux       the frozen leaves, which a step hands on as they are

so that a checkpoint is complete, and nothing is computed or kept for what does not change.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff.data.text import Tokens, in_turn
from jaxdiff.models import layers, tuning
from jaxdiff.models.sentence import SentenceClassifier
from jaxdiff.models.tuning import paths
from jaxdiff.training.state import TrainState, init_state
from jaxdiff.training.step import LossFn

__all__ = [
    "Score",
    "Validation",
    "begin",
    "divided",
    "importance",
    "log_probs",
    "score",
    "text_loss",
    "whole",
]

Leaves = dict[str, Array]
"""Parameters by their path."""


def divided(classifier: SentenceClassifier, variables: dict[str, Any]) -> tuple[Leaves, Leaves]:
    """The trained leaves and the frozen ones of a classifier's variables."""
    leaves, marks = paths.flat(variables), paths.flat(classifier.labels(variables))
    trained = {path: leaf for path, leaf in leaves.items() if marks[path] == paths.TRAINED}
    return trained, {path: leaf for path, leaf in leaves.items() if path not in trained}


def whole(trained: Leaves, frozen: Leaves) -> dict[str, Any]:
    """The variables that were divided."""
    return paths.nested({**frozen, **trained})


def begin(
    key: Array,
    classifier: SentenceClassifier,
    variables: dict[str, Any],
    optimizer: Any,
    *,
    lr: float,
    warmup: float = 0.0,
) -> TrainState:
    """The state before the first step; there is no average of the parameters.

    Args:
        key: of dropout.
        classifier: what is tuned.
        variables: as its `init` made them.
        optimizer: as for `init_state`.
        lr: the peak learning rate.
        warmup: steps over which it rises.
    """
    trained, frozen = divided(classifier, variables)
    hyper = {"lr": lr, "warmup": warmup, "ema_decay": 0.0}
    return init_state(key, trained, optimizer, hyper=hyper, aux=frozen)


def importance(
    key: Array, classifier: SentenceClassifier, backbone: Any, tokens: Tokens, labels: np.ndarray
) -> Any:
    """How much each parameter of a network matters to the classes: its Fisher information.

        sum_i (d log softmax(logits_i)[y_i] / d params)^2

    By a head that is drawn at random: that which is trained starts as zero, and behind it nothing
    matters.

    Args:
        key: of the head.
        classifier: what is to be tuned.
        backbone: the parameters of its trained network.
        tokens: of N > 0 texts.
        labels: [N], their classes.

    Returns:
        A tree like `backbone`.

    Source: Sung et al. 2022, arXiv:2206.06522, section 3.2; there the head is a pretrained one.
    """
    plain = dataclasses.replace(classifier, net=tuning.full(classifier.net.backbone))
    head = jax.eval_shape(plain.init, key, tokens.ids[:1], tokens.mask[:1])["params"]["head"]
    drawn = {
        "kernel": layers.LECUN(key, head["kernel"].shape, head["kernel"].dtype),
        "bias": jnp.zeros(head["bias"].shape, head["bias"].dtype),
    }

    def loss(params: Any, example: tuple[Array, Array, Array]) -> Array:
        ids, mask, label = example
        variables = {"params": {"net": {"backbone": params}, "head": drawn}}
        logits = plain.apply(variables, ids[None], mask[None])
        return -jax.nn.log_softmax(logits)[0, label]

    examples = (tokens.ids, tokens.mask, jnp.asarray(labels))
    return jax.jit(functools.partial(tuning.fisher, loss))(backbone, examples)


def text_loss(classifier: SentenceClassifier) -> LossFn:
    """The cross entropy of batches {"ids", "mask", "y"}, with the accuracy as a metric.

        mean_i -log softmax(logits_i)[y_i]

    Args:
        classifier: what is tuned.

    Returns:
        loss_fn(params, batch, key, hyper, aux) of the leaves that `divided` gives, for
        `make_train_step`.
    """

    def loss_fn(
        params: Any, batch: Any, key: Array, hyper: Any, aux: Any
    ) -> tuple[Array, tuple[dict[str, Array], Any]]:
        variables = whole(params, aux)
        logits = classifier.apply(variables, batch["ids"], batch["mask"], key=key, train=True)
        told = jnp.take_along_axis(jax.nn.log_softmax(logits), batch["y"][:, None], axis=1)
        right = jnp.mean(jnp.argmax(logits, axis=1) == batch["y"], dtype=logits.dtype)
        return -jnp.mean(told), ({"accuracy": right}, aux)

    return loss_fn


@functools.partial(jax.jit, static_argnums=0)
def _log_probs(
    classifier: SentenceClassifier, trained: Leaves, frozen: Leaves, ids: Array, mask: Array
) -> Array:
    return jax.nn.log_softmax(classifier.apply(whole(trained, frozen), ids, mask))


def log_probs(
    classifier: SentenceClassifier, state: TrainState, tokens: Tokens, batch_size: int = 32
) -> np.ndarray:
    """How probable each class is for texts, without dropout.

    Args:
        classifier: what was tuned.
        state: its state.
        tokens: of N texts.
        batch_size: how many are taken at once.

    Returns:
        [N, classes], float32, logarithms.
    """
    parts = [
        np.asarray(_log_probs(classifier, state.params, state.aux, part.ids, part.mask))
        for part in in_turn(tokens, min(batch_size, max(1, len(tokens.ids))))
    ]
    empty = np.zeros((0, classifier.classes), np.float32)
    return np.concatenate([empty, *parts])[: len(tokens.ids)]


class Score(NamedTuple):
    """How well classes are told.

    Attributes:
        accuracy: the share of texts whose likeliest class is the right one.
        standard_error: of it, sqrt(accuracy (1 - accuracy) / texts).
        loss: the mean cross entropy, in nats.
        texts: how many there were.
    """

    accuracy: float
    standard_error: float
    loss: float
    texts: int


def score(log_probabilities: np.ndarray, labels: np.ndarray) -> Score:
    """How well [N, classes] tell [N] labels, N >= 1.

    Raises:
        ValueError: there are none.
    """
    count = len(labels)
    if count < 1 or len(log_probabilities) != count:
        raise ValueError(f"as many labels as texts are wanted, 1 or more, got {count}")
    right = float(np.mean(np.argmax(log_probabilities, axis=1) == labels))
    told = log_probabilities[np.arange(count), labels]
    error = float(np.sqrt(right * (1 - right) / count))
    return Score(right, error, float(-np.mean(told, dtype=np.float64)), count)


class Validation:
    """Asked at checkpoints: {"validation_loss", "validation_accuracy", "validation_error"}.

    The error is 1 - accuracy, so that the best is the lowest.
    """

    def __init__(
        self,
        classifier: SentenceClassifier,
        tokens: Tokens,
        labels: np.ndarray,
        batch_size: int = 32,
    ):
        """Of these texts and classes."""
        self._ask = functools.partial(log_probs, classifier)
        self._tokens, self._labels, self._batch_size = tokens, labels, batch_size

    def __call__(self, state: TrainState) -> dict[str, float]:
        """The numbers of a state."""
        found = score(self._ask(state, self._tokens, self._batch_size), self._labels)
        return {
            "validation_loss": found.loss,
            "validation_accuracy": found.accuracy,
            "validation_error": 1 - found.accuracy,
        }
