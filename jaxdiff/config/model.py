"""From configurations to what is trained: network, schedule, denoiser, classifier."""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

from jaxdiff import arrays, grids, models, schedules
from jaxdiff import parametrization as parametrizations
from jaxdiff.config import choice
from jaxdiff.config.fields import HEADS, SCHEDULES, Config, TuningConfig
from jaxdiff.config.networks import AutoencoderConfig
from jaxdiff.config.tuned import tuned
from jaxdiff.data.augment import LABELS
from jaxdiff.denoiser import Denoiser, make_denoiser
from jaxdiff.guidance import Classifier, make_classifier
from jaxdiff.reverse import learned_range, second_to_last
from jaxdiff.typing import ReverseVariance, Schedule

__all__ = [
    "build_classifier",
    "build_denoiser",
    "build_learned_range",
    "build_model",
    "build_schedule",
    "check_variance",
    "suited_feature",
    "with_options",
]

_KINDS = {
    "mlp": models.MLP,
    "unet": models.UNet,
    "dit": models.DiT,
    "song": models.SongUNet,
    "dhariwal": models.DhariwalUNet,
    "su_a": models.SuA,
    "su_b": models.SuB,
    "classifier": models.Classifier,
}


def build_model(config: Config) -> Any:
    """The network, a Flax module or one with heads: the same object for equal configurations."""
    if isinstance(config.model, AutoencoderConfig):
        return _autoencoder(config.model, config.data.shape)
    more, part, tuning = {"num_classes": _classes(config)}, config.variance, config.tuning
    if config.data.augment:
        more["cond_dim"] = LABELS
    if "learned" in part.heads:  # as published: no head, but a last layer of twice the channels
        more["out_channels"] = 2 * config.data.shape[-1]
    names = tuple(HEADS[name] for name in part.heads if name != "learned")
    shape = config.data.shape if tuning.method else None
    return _network(config.model, tuple(more.items()), names, part.form, part.frozen, tuning, shape)


@functools.cache
def _network(
    model: Any,
    more: tuple[tuple[str, int], ...],
    heads: tuple[str, ...],
    form: str,
    frozen: bool,
    tuning: TuningConfig,
    shape: tuple[int, ...] | None,
) -> Any:
    """jit tells the `apply` of two modules apart, be they equal: two objects, two compiles."""
    net = _KINDS[model.kind](**dataclasses.asdict(model), **dict(more))
    if tuning.method is not None:
        return tuned(net, tuning, shape)
    return models.WithHeads(net, heads, form, frozen) if heads else net


@functools.cache
def _autoencoder(model: AutoencoderConfig, shape: tuple[int, ...]) -> models.Autoencoder:
    if len(shape) != 3:
        raise ValueError(f"an autoencoder is for images, got examples of shape {list(shape)}")
    arrays.check_range("model.std", model.std, 0, math.inf, "()")
    return models.Autoencoder(**dataclasses.asdict(model), out_channels=shape[-1])


def _classes(config: Config) -> int:
    """How many classes the network is to know; one that is tuned knows those of its run."""
    classes, part = len(config.data.label_counts), config.tuning
    if part.method is None:
        return classes
    if bool(classes) != bool(part.classes) or classes > part.classes:
        raise ValueError(
            f"the network of {config.begins} is conditioned on {part.classes or 'no'} classes,"
            f" {config.data.source} has {classes or 'none'}"
        )
    return part.classes


def check_variance(config: Config) -> None:
    """Raises ValueError where what is to be learned of the variance does not go with the rest."""
    part = config.variance
    if "learned" in part.heads:
        if len(part.heads) > 1:
            raise ValueError(
                f"variance.heads must be learned alone, or npr and sn, got {', '.join(part.heads)}"
            )
        if not schedules.whole_steps(build_schedule(config)):
            raise ValueError(
                "variance.heads learned is trained by the bound of a chain, got the continuous"
                f" schedule.name {config.schedule.name}; choose one named after betas"
            )
        arrays.check_range("variance.bound_weight", part.bound_weight, 0, math.inf, "[)")
    elif part.heads and part.frozen and config.optimizer.weight_decay:
        raise ValueError(
            "optimizer.weight_decay must be 0 where the network below its heads stays as it is"
            f" (variance.frozen), got {config.optimizer.weight_decay}"
        )


def build_schedule(config: Config) -> Schedule:
    """The schedule.

    Raises:
        ValueError: it has no such option, or an option is out of range.
    """
    part = config.schedule

    def make(name: str) -> Schedule:
        return with_options(SCHEDULES[name], part.options, f"schedule.options of {name}")

    schedule = choice.made(part.name, make, schedules.one_of)
    return schedule if part.shift == 1 else schedules.shifted(schedule, part.shift)


def with_options(factory: Callable, options: dict[str, float], name: str) -> Any:
    """`factory(**options)`, where unknown options are an error that lists the known ones."""
    known = list(inspect.signature(factory).parameters)
    for option in options:
        if option not in known:
            raise ValueError(f"{name} must be among {', '.join(known) or 'none'}, got {option!r}")
    return factory(**options)


def build_denoiser(config: Config, params: Any) -> Denoiser:
    """The network as a model of x_0 and eps, with `params` its variables {"params": ...}."""
    part = config.parametrization
    edm = parametrizations.edm(part.sigma_data)

    def make(name: str) -> parametrizations.Parametrization:
        return edm if name == "edm" else parametrizations.resolve(name)

    feature = part.time_feature or suited_feature(config)
    return make_denoiser(
        build_model(config).apply,
        params,
        parametrization=choice.made(part.name, make, parametrizations.one_of),
        time_feature=feature,
        heads=tuple(HEADS[name] for name in config.variance.heads),
    )


def build_learned_range(config: Config) -> ReverseVariance:
    """The variance that a network with the head "learned" is trained as, and is to be used as."""
    schedule = build_schedule(config)
    whole = grids.uniform(schedule, schedules.whole_steps(schedule))
    return learned_range(second_to_last(whole))


def build_classifier(config: Config, params: Any) -> Classifier:
    """The network as a model of p(y | x_t), with `params` its variables {"params": ...}.

    Raises:
        ValueError: data of fewer than two classes.
    """
    classes = len(config.data.label_counts)
    if classes < 2:
        raise ValueError(
            f"a classifier needs data with labels of at least 2 classes, got {classes} from"
            f" {config.data.source}"
        )
    return make_classifier(build_model(config).apply, params, classes)


def suited_feature(config: Config) -> str:
    """The time feature for a schedule's clock: a step, sigma, or a number in 0..1.

    Schedules that are one of several, see `choice`, have it in common.
    """
    if schedules.whole_steps(build_schedule(config)):
        return "steps"
    return "quarter_log_sigma" if "edm" in choice.names(config.schedule.name) else "thousandths"
