"""Losses of models, in the form that a training step takes."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax import Array

from jaxdiff import losses
from jaxdiff.data.augment import augment
from jaxdiff.denoiser import Denoiser
from jaxdiff.guidance import Classifier
from jaxdiff.losses.times import LossHistory, Times
from jaxdiff.losses.weights import Weight
from jaxdiff.training.step import LossFn
from jaxdiff.typing import Schedule

__all__ = [
    "augmented",
    "classification_loss",
    "denoising_loss",
    "importance_loss_of",
    "loss_of",
    "scaled",
]

Condition = str | Mapping[str, str] | None
"""The entry of a batch that the network is conditioned on, or {part of the condition: entry}."""

Loss = Callable[..., tuple[Array, dict[str, Array]]]
"""`loss(key, denoiser, x0, schedule, *, cond, times, ...) -> (loss [], {"t", "weighted", ...})`."""


def loss_of(
    loss: Loss,
    denoiser: Denoiser,
    schedule: Schedule,
    *,
    cond: Condition = None,
    times: Times = losses.uniform,
    **options: Any,
) -> LossFn:
    """A loss of `losses` of batches {"x": ..., ...}; the state's params are the denoiser's.

    Args:
        loss: `losses.denoising`, `second_moment`, `joint`, `hybrid` or `chain_bound`.
        denoiser: the network; its own params are not used.
        schedule: the schedule.
        cond: the entry of a batch that the network is conditioned on, such as "y"; or entries by
            part of the condition, such as {"label": "y"}; None for none.
        times: the time sampler.
        **options: the loss's own, such as cond_dropout and weight.

    Returns:
        loss_fn(params, batch, key, hyper, aux), which passes `aux` through.
    """

    def loss_fn(
        params: Any, batch: Any, key: Array, hyper: Any, aux: Any
    ) -> tuple[Array, tuple[dict[str, Array], Any]]:
        model, told = denoiser.with_params(params), _entries(cond, batch)
        value, _ = loss(key, model, batch["x"], schedule, cond=told, times=times, **options)
        return value, ({}, aux)

    return loss_fn


def importance_loss_of(
    loss: Loss,
    denoiser: Denoiser,
    schedule: Schedule,
    *,
    cond: Condition = None,
    floor: Any = 1e-3,
    **options: Any,
) -> LossFn:
    """The same at times drawn by the losses seen so far, which `aux` carries.

    Begin with `losses.loss_history()` as the state's aux. The objective is that of uniform times;
    only its gradient is less noisy.

    Args:
        loss, denoiser, schedule, cond, **options: as for `loss_of`.
        floor: in (0, 1], see `losses.importance`.

    Returns:
        loss_fn(params, batch, key, hyper, aux) with aux a LossHistory.

    Source: Nichol and Dhariwal 2021, arXiv:2102.09672, section 3.3.
    """

    def loss_fn(
        params: Any, batch: Any, key: Array, hyper: Any, aux: LossHistory
    ) -> tuple[Array, tuple[dict[str, Array], LossHistory]]:
        model, told = denoiser.with_params(params), _entries(cond, batch)
        times = losses.importance(aux, floor)
        value, seen = loss(key, model, batch["x"], schedule, cond=told, times=times, **options)
        return value, ({}, aux.update(seen["t"], seen["weighted"], schedule))

    return loss_fn


def denoising_loss(
    denoiser: Denoiser,
    schedule: Schedule,
    *,
    cond: Condition = None,
    cond_dropout: Any = 0.0,
    times: Times = losses.uniform,
    weight: Weight = losses.simple,
) -> LossFn:
    """`loss_of(losses.denoising, ...)`, what most trainings minimise.

    Args:
        denoiser, schedule, cond, times: as for `loss_of`.
        cond_dropout, weight: as for `losses.denoising`.

    Returns:
        loss_fn(params, batch, key, hyper, aux), which passes `aux` through.
    """
    how = {"cond": cond, "cond_dropout": cond_dropout, "times": times, "weight": weight}
    return loss_of(losses.denoising, denoiser, schedule, **how)


def _entries(cond: Condition, batch: Any) -> Any:
    """What of a batch is the condition."""
    if isinstance(cond, Mapping):
        return {part: batch[name] for part, name in cond.items()}
    return None if cond is None else batch[cond]


def scaled(loss_fn: LossFn, factor: Any) -> LossFn:
    """The loss times a number, such as the size of an example, which makes a mean over it a sum.

    In half precision, gradients of means over thousands of numbers underflow.

    Args:
        loss_fn: the loss.
        factor: [].

    Returns:
        loss_fn(params, batch, key, hyper, aux), its metrics as they were.

    Source: Su 2022, on the loss of DDPM; Micikevicius et al. 2018, arXiv:1710.03740, section 3.2.
    """

    def scaled_fn(
        params: Any, batch: Any, key: Array, hyper: Any, aux: Any
    ) -> tuple[Array, tuple[dict[str, Array], Any]]:
        loss, more = loss_fn(params, batch, key, hyper, aux)
        return factor * loss, more

    return scaled_fn


def augmented(loss_fn: LossFn, probability: Any) -> LossFn:
    """The loss of images changed at random, told by batch["augment"] how they were changed.

    Conditioned on it, a network learns from all variants and draws unchanged images, for which
    the entry is zero.

    Args:
        loss_fn: the loss.
        probability: [], in [0, 1], of each kind of change; see `data.augment`.

    Returns:
        loss_fn(params, batch, key, hyper, aux).

    Source: Karras et al. 2022, arXiv:2206.00364, appendix F.2.
    """

    def augmented_fn(
        params: Any, batch: Any, key: Array, hyper: Any, aux: Any
    ) -> tuple[Array, tuple[dict[str, Array], Any]]:
        key_augment, key_loss = jax.random.split(key)
        x, changes = augment(key_augment, batch["x"], probability)
        return loss_fn(params, {**batch, "x": x, "augment": changes}, key_loss, hyper, aux)

    return augmented_fn


def classification_loss(
    classifier: Classifier, schedule: Schedule, *, times: Times = losses.stratified
) -> LossFn:
    """`losses.classification` of batches {"x": ..., "y": ...}, with the accuracy as a metric.

    Args:
        classifier: the network; its own params are not used.
        schedule: the schedule.
        times: the time sampler.

    Returns:
        loss_fn(params, batch, key, hyper, aux), which passes `aux` through.
    """

    def loss_fn(
        params: Any, batch: Any, key: Array, hyper: Any, aux: Any
    ) -> tuple[Array, tuple[dict[str, Array], Any]]:
        model = classifier.with_params(params)
        loss, seen = losses.classification(
            key, model, batch["x"], batch["y"], schedule, times=times
        )
        return loss, ({"accuracy": seen["accuracy"].mean()}, aux)

    return loss_fn
