"""From configurations to what is minimised, and to what is watched on held-out data."""

import math
from collections.abc import Callable
from typing import Any

from jax import Array

from jaxdiff import losses, training
from jaxdiff.config import choice
from jaxdiff.config.fields import Config
from jaxdiff.config.model import (
    build_classifier,
    build_denoiser,
    build_learned_range,
    build_model,
    build_schedule,
    check_variance,
    with_options,
)
from jaxdiff.config.networks import AutoencoderConfig, ClassifierConfig
from jaxdiff.losses.weights import Weight
from jaxdiff.training import latents

__all__ = ["build_loss", "build_validation"]

_OF_EXAMPLES = ("per_example", "weighted", "t")  # what losses tell besides their parts


def build_loss(config: Config) -> Callable:
    """loss_fn(params, batch, key, hyper, aux)."""
    if isinstance(config.model, AutoencoderConfig):
        loss_fn = latents.autoencoder_loss(build_model(config))
    elif isinstance(config.model, ClassifierConfig):
        loss_fn = training.classification_loss(
            build_classifier(config, None), build_schedule(config)
        )
    else:
        loss_fn = _model_loss(config)
    if config.loss.reduction == "sum":
        loss_fn = training.scaled(loss_fn, math.prod(config.data.shape))
    return training.augmented(loss_fn, config.data.augment) if config.data.augment else loss_fn


def _model_loss(config: Config) -> Callable:
    part, schedule, denoiser = config.loss, build_schedule(config), build_denoiser(config, None)
    loss, options = _objective(config)
    options |= {"cond": _condition(config), "cond_dropout": _dropout(config)}
    if part.times == "importance":
        _allow(part.times_options, ("floor",), part.times)
        options |= part.times_options
        return training.importance_loss_of(loss, denoiser, schedule, **options)
    if part.times == "log_normal":
        name = f"loss.times_options of {part.times}"
        times = with_options(losses.log_normal, part.times_options, name)
    else:
        _allow(part.times_options, (), part.times)
        times = losses.TIMES[part.times]
    return training.loss_of(loss, denoiser, schedule, **options, times=times)


def _objective(config: Config) -> tuple[Callable, dict[str, Any]]:
    """What of `losses` is minimised, and its own options."""
    part, weight = config.variance, {"weight": _weight(config)}
    check_variance(config)
    if not part.heads:
        return losses.denoising, weight
    if "learned" not in part.heads:
        return (losses.second_moment, {}) if part.frozen else (losses.joint, weight)
    bound = {"variance": build_learned_range(config), "bins": config.data.bins}
    if part.objective == "bound":
        return losses.chain_bound, bound
    return losses.hybrid, {**weight, **bound, "bound_weight": part.bound_weight}


def _weight(config: Config) -> Weight:
    part = config.loss

    def make(name: str) -> Weight:
        options = f"loss.weight_options of {name}"
        return with_options(losses.WEIGHTS[name], part.weight_options, options)

    return choice.made(part.weight, make, losses.one_of)


def _condition(config: Config) -> Any:
    """Which entries of a batch the network is told."""
    label = "y" if config.data.label_counts else None
    if not config.data.augment:
        return label
    return {"vector": "augment"} | ({} if label is None else {"label": label})


def _dropout(config: Config) -> Any:
    """How often each is hidden; what was done to an image never is, or it would leak."""
    rate = config.loss.cond_dropout
    condition = _condition(config)
    if not isinstance(condition, dict):
        return rate
    return {name: 0.0 if name == "vector" else rate for name in condition}


def build_validation(config: Config) -> Callable[[Any, Any, Array], dict[str, Array]]:
    """validate(params, batch, key) -> {"heldout_loss": [], ...}, to be averaged over batches.

    The loss of training, as a mean, without dropout, hidden conditions or augmentation, at even
    times: equal keys and batches make checkpoints comparable. What a loss is made of is told as
    well: "heldout_mean", "heldout_bound", and each head's by its name.
    """
    if isinstance(config.model, AutoencoderConfig):
        return _autoencoder_validation(config)
    schedule = build_schedule(config)
    if isinstance(config.model, ClassifierConfig):
        classifier = build_classifier(config, None)

        def classified(params: Any, batch: Any, key: Array) -> dict[str, Array]:
            model = classifier.with_params(params)
            loss, seen = losses.classification(
                key, model, batch["x"], batch["y"], schedule, train=False
            )
            return {"heldout_loss": loss, "heldout_accuracy": seen["accuracy"].mean()}

        return classified
    denoiser, (objective, options) = build_denoiser(config, None), _objective(config)
    label = "y" if config.data.label_counts else None

    def watched(params: Any, batch: Any, key: Array) -> dict[str, Array]:
        loss, seen = objective(
            key,
            denoiser.with_params(params),
            batch["x"],
            schedule,
            cond=None if label is None else batch[label],
            times=losses.stratified,
            train=False,
            **options,
        )
        parts = {name: v for name, v in seen.items() if name not in _OF_EXAMPLES}
        return {"heldout_loss": loss} | {f"heldout_{n}": v.mean() for n, v in parts.items()}

    return watched


def _autoencoder_validation(config: Config) -> Callable[[Any, Any, Array], dict[str, Array]]:
    loss_fn = latents.autoencoder_loss(build_model(config))

    def decoded(params: Any, batch: Any, key: Array) -> dict[str, Array]:
        loss, (told, _) = loss_fn(params, batch, key, {}, ())
        return {"heldout_loss": loss} | {f"heldout_{name}": v for name, v in told.items()}

    return decoded


def _allow(options: dict[str, float], known: tuple[str, ...], times: str) -> None:
    for option in options:
        if option not in known:
            raise ValueError(
                f"loss.times_options of {times} must be among {', '.join(known) or 'none'}, "
                f"got {option!r}"
            )
