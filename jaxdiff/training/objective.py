"""Losses of models, in the form that a training step takes."""

from typing import Any

from jax import Array

from jaxdiff import losses
from jaxdiff.denoiser import Denoiser
from jaxdiff.guidance import Classifier
from jaxdiff.losses.times import LossHistory, Times
from jaxdiff.losses.weights import Weight
from jaxdiff.training.step import LossFn
from jaxdiff.typing import Schedule

__all__ = ["classification_loss", "denoising_loss", "importance_denoising_loss"]


def denoising_loss(
    denoiser: Denoiser,
    schedule: Schedule,
    *,
    cond: str | None = None,
    cond_dropout: Any = 0.0,
    times: Times = losses.uniform,
    weight: Weight = losses.simple,
) -> LossFn:
    """`losses.denoising` of batches {"x": ..., ...}; the state's params are the denoiser's.

    Args:
        denoiser: the network; its own params are not used.
        schedule: the schedule.
        cond: the entry of a batch that the network is conditioned on, such as "y"; None for none.
        cond_dropout: [], in [0, 1], see `losses.denoising`.
        times: the time sampler.
        weight: the weight.

    Returns:
        loss_fn(params, batch, key, hyper, aux), which passes `aux` through.
    """

    def loss_fn(
        params: Any, batch: Any, key: Array, hyper: Any, aux: Any
    ) -> tuple[Array, tuple[dict[str, Array], Any]]:
        loss, _ = losses.denoising(
            key,
            denoiser.with_params(params),
            batch["x"],
            schedule,
            cond=None if cond is None else batch[cond],
            cond_dropout=cond_dropout,
            times=times,
            weight=weight,
        )
        return loss, ({}, aux)

    return loss_fn


def importance_denoising_loss(
    denoiser: Denoiser,
    schedule: Schedule,
    *,
    cond: str | None = None,
    cond_dropout: Any = 0.0,
    floor: Any = 1e-3,
    weight: Weight = losses.simple,
) -> LossFn:
    """The same at times drawn by the losses seen so far, which `aux` carries.

    Begin with `losses.loss_history()` as the state's aux. The objective is that of uniform times;
    only its gradient is less noisy.

    Args:
        denoiser, schedule, cond, cond_dropout, weight: as for `denoising_loss`.
        floor: in (0, 1], see `losses.importance`.

    Returns:
        loss_fn(params, batch, key, hyper, aux) with aux a LossHistory.

    Source: Nichol and Dhariwal 2021, arXiv:2102.09672, section 3.3.
    """

    def loss_fn(
        params: Any, batch: Any, key: Array, hyper: Any, aux: LossHistory
    ) -> tuple[Array, tuple[dict[str, Array], LossHistory]]:
        loss, seen = losses.denoising(
            key,
            denoiser.with_params(params),
            batch["x"],
            schedule,
            cond=None if cond is None else batch[cond],
            cond_dropout=cond_dropout,
            times=losses.importance(aux, floor),
            weight=weight,
        )
        return loss, ({}, aux.update(seen["t"], seen["weighted"], schedule))

    return loss_fn


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
