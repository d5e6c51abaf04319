"""From configurations to the things they stand for: network, schedule, model, step, sampler."""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import data, losses, models, schedules, training
from jaxdiff import parametrization as parametrizations
from jaxdiff.config.fields import SCHEDULES, Config, DataConfig
from jaxdiff.config.networks import ClassifierConfig
from jaxdiff.data import Dataset
from jaxdiff.denoiser import Denoiser, clip_x0, make_denoiser
from jaxdiff.grids import GRIDS
from jaxdiff.guidance import Classifier, make_classifier
from jaxdiff.samplers import make_sampler
from jaxdiff.typing import Denoise, Grid, Sampler, Schedule

__all__ = [
    "averaged",
    "build_classifier",
    "build_data",
    "build_denoise",
    "build_denoiser",
    "build_grid",
    "build_loss",
    "build_model",
    "build_optimizer",
    "build_sampler",
    "build_schedule",
    "build_state",
    "build_step",
    "check",
    "count_parameters",
    "ema_decays",
    "load_data",
]

_KINDS = {
    "mlp": models.MLP,
    "unet": models.UNet,
    "dit": models.DiT,
    "classifier": models.Classifier,
}


def load_data(config: DataConfig, split: str) -> Dataset:
    """A part of the data: "train", "heldout" or "all"."""
    return data.load(
        config.source,
        split=split,
        heldout_every=config.heldout_every,
        value_range=config.value_range,
        size=config.size,
        strict=config.strict,
        coarse=config.coarse,
    )


def build_data(config: Config) -> tuple[Config, Dataset]:
    """The training data, and the configuration with what was found out from them.

    Raises:
        ValueError: the data cannot be read, or are not what the network is for.
    """
    dataset = load_data(config.data, "train")
    counts: tuple[int, ...] = ()
    if config.data.labels and dataset.y is not None:
        counts = tuple(np.bincount(dataset.y, minlength=dataset.num_classes).tolist())
    found = dataclasses.replace(
        config.data, shape=tuple(dataset.example_shape), label_counts=counts
    )
    _check_shape(config, found.shape)
    dataset = dataset.with_batches(
        config.training.batch_size, seed=config.training.seed, flip=config.data.flip
    )
    return dataclasses.replace(config, data=found), dataset


def _check_shape(config: Config, shape: tuple[int, ...]) -> None:
    wanted = 1 if config.model.kind == "mlp" else 3
    if len(shape) != wanted:
        raise ValueError(
            f"preset {config.preset} is for {'vectors' if wanted == 1 else 'images'}, got examples "
            f"of shape {list(shape)} from {config.data.source}; choose another preset"
        )


def build_model(config: Config) -> Any:
    """The network, a Flax module: the same object for equal configurations."""
    return _network(config.model, len(config.data.label_counts))


@functools.cache
def _network(model: Any, num_classes: int) -> Any:
    """jit tells the `apply` of two modules apart, be they equal: two objects, two compiles."""
    return _KINDS[model.kind](**dataclasses.asdict(model), num_classes=num_classes)


def build_schedule(config: Config) -> Schedule:
    """The schedule.

    Raises:
        ValueError: it has no such option, or an option is out of range.
    """
    part = config.schedule
    factory = SCHEDULES[part.name]
    schedule = _with_options(factory, part.options, f"schedule.options of {part.name}")
    return schedule if part.shift == 1 else schedules.shifted(schedule, part.shift)


def _with_options(factory: Callable, options: dict[str, float], name: str) -> Any:
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
    kind: Any = edm if part.name == "edm" else part.name
    feature = part.time_feature or _suited_feature(config)
    return make_denoiser(
        build_model(config).apply, params, parametrization=kind, time_feature=feature
    )


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


def _suited_feature(config: Config) -> str:
    """The time feature for a schedule's clock: a step, sigma, or a number in 0..1."""
    if schedules.whole_steps(build_schedule(config)):
        return "steps"
    return "quarter_log_sigma" if config.schedule.name == "edm" else "thousandths"


def build_optimizer(config: Config) -> Any:
    """The optimiser, of unit learning rate."""
    part = config.optimizer
    return getattr(training, part.name)(
        b1=part.b1, b2=part.b2, eps=part.eps, clip=part.clip, weight_decay=part.weight_decay
    )


def ema_decays(config: Config) -> Any:
    """The decay of the average; where there are more, all by name: {"0.999": 0.999, ...}."""
    part = config.optimizer
    if not part.more_ema_decays:
        return part.ema_decay
    return {f"{decay:g}": decay for decay in (part.ema_decay, *part.more_ema_decays)}


def averaged(config: Config, state: training.TrainState, decay: float | None = None) -> Any:
    """The averaged parameters, of the main decay unless another of the run's is named.

    Raises:
        ValueError: the run keeps no average of that decay.
    """
    decays = ema_decays(config)
    decay = config.optimizer.ema_decay if decay is None else decay
    known = decays if isinstance(decays, dict) else {f"{decays:g}": decays}
    if f"{decay:g}" not in known:
        raise ValueError(f"the run keeps averages of decay {', '.join(known)}, got {decay:g}")
    return state.ema[f"{decay:g}"] if isinstance(decays, dict) else state.ema


def build_loss(config: Config) -> Callable:
    """loss_fn(params, batch, key, hyper, aux)."""
    if isinstance(config.model, ClassifierConfig):
        return training.classification_loss(build_classifier(config, None), build_schedule(config))
    loss_fn = _denoising_loss(config)
    summed = config.loss.reduction == "sum"
    return training.scaled(loss_fn, math.prod(config.data.shape)) if summed else loss_fn


def _denoising_loss(config: Config) -> Callable:
    part, schedule = config.loss, build_schedule(config)
    factory, options = losses.WEIGHTS[part.weight], part.weight_options
    shared = {
        "cond": "y" if config.data.label_counts else None,
        "cond_dropout": part.cond_dropout,
        "weight": _with_options(factory, options, f"loss.weight_options of {part.weight}"),
    }
    denoiser = build_denoiser(config, None)
    if part.times == "importance":
        _allow(part.times_options, ("floor",), part.times)
        return training.importance_denoising_loss(
            denoiser, schedule, **shared, **part.times_options
        )
    if part.times == "log_normal":
        name = f"loss.times_options of {part.times}"
        times = _with_options(losses.log_normal, part.times_options, name)
    else:
        _allow(part.times_options, (), part.times)
        times = losses.TIMES[part.times]
    return training.denoising_loss(denoiser, schedule, **shared, times=times)


def _allow(options: dict[str, float], known: tuple[str, ...], times: str) -> None:
    for option in options:
        if option not in known:
            raise ValueError(
                f"loss.times_options of {times} must be among {', '.join(known) or 'none'}, "
                f"got {option!r}"
            )


def build_step(config: Config) -> Callable:
    """The pure training step."""
    return training.make_train_step(
        build_loss(config),
        build_optimizer(config),
        decay=training.optim.DECAYS[config.optimizer.decay],
        accumulate=config.training.accumulate,
    )


def build_state(config: Config) -> training.TrainState:
    """The state before the first step; under `jax.eval_shape`, what a checkpoint is read into."""
    key = jax.random.key(config.training.seed)
    key_params, key_run = jax.random.split(key)
    inputs = [jnp.zeros((1, *config.data.shape)), jnp.zeros((1,))]
    if config.data.label_counts and not isinstance(config.model, ClassifierConfig):
        inputs.append(jnp.zeros((1,), jnp.int32))
    variables = build_model(config).init(key_params, *inputs)
    part = config.optimizer
    return training.init_state(
        key_run,
        variables,
        build_optimizer(config),
        hyper={"lr": part.lr, "ema_decay": ema_decays(config), "warmup": part.warmup},
        aux=losses.loss_history() if config.loss.times == "importance" else (),
    )


def check(config: Config, batch: dict[str, Any]) -> training.TrainState:
    """Raises what training on such batches, or sampling as configured, would raise in the end.

    Everything is traced, nothing compiled.

    Args:
        config: the configuration, as `build_data` returns it.
        batch: one batch.

    Returns:
        Shapes and dtypes of the state before the first step.

    Raises:
        ValueError: a value out of range, or parts that do not go together: such as a
            parametrization that says nothing where the configured grid begins.
    """
    if isinstance(config.model, ClassifierConfig):
        build_classifier(config, None)
    else:
        _check_sampling(config)
    abstract = jax.eval_shape(lambda: build_state(config))
    jax.eval_shape(build_step(config), abstract, batch)
    return abstract


def _check_sampling(config: Config) -> None:
    part = config.sampling
    grid, sampler = build_grid(config, part.grid, part.steps), build_sampler(part.sampler)
    build_denoiser(config, None).check(grid.levels)
    if hasattr(sampler, "check"):
        sampler.check(grid)


def count_parameters(tree: Any) -> int:
    """How many numbers are in a tree of arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def build_grid(config: Config, name: str, num_steps: int) -> Grid:
    """The levels that a sampler visits.

    Raises:
        ValueError: no such grid, or one that does not go with the schedule.
    """
    if name not in GRIDS:
        raise ValueError(f"grid must be one of {', '.join(GRIDS)}, got {name!r}")
    return GRIDS[name](build_schedule(config), num_steps)


def build_sampler(name: str, **options: Any) -> Sampler:
    """A sampler by name; options that are None are left to it."""
    return make_sampler(name, **{k: v for k, v in options.items() if v is not None})


def build_denoise(
    config: Config,
    params: Any,
    labels: Array | None = None,
    guide: Callable[[Denoiser, Array | None], Denoise] = lambda denoiser, labels: denoiser,
) -> Denoise:
    """What a sampler asks: the network with `params`, under labels [B], clipped if configured.

    `guide(denoiser, labels)` makes of the network what is clipped.
    """
    denoiser = build_denoiser(config, params)
    if labels is not None and config.data.label_counts:
        denoiser = denoiser.with_cond(labels)
    denoise = guide(denoiser, labels)
    return clip_x0(denoise) if config.sampling.clip else denoise
