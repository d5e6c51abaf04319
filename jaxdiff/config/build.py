"""From configurations to the things they stand for: network, schedule, model, step, sampler."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from jaxdiff import data, guidance, schedules, training
from jaxdiff.config.fields import Config, DataConfig
from jaxdiff.config.latents import build_decode, open_codec, see
from jaxdiff.config.loss import build_loss, build_validation
from jaxdiff.config.model import (
    build_classifier,
    build_denoiser,
    build_learned_range,
    build_model,
    build_schedule,
)
from jaxdiff.config.networks import A_MODEL, AutoencoderConfig, ClassifierConfig, holds
from jaxdiff.config.state import averaged, begin, build_optimizer, build_state, ema_decays
from jaxdiff.data import Dataset
from jaxdiff.denoiser import Denoiser, clip_x0
from jaxdiff.grids import GRIDS
from jaxdiff.samplers import make_sampler
from jaxdiff.training.latents import Encoded
from jaxdiff.typing import Denoise, Grid, Sampler

__all__ = [
    "averaged",
    "begin",
    "build_classifier",
    "build_data",
    "build_decode",
    "build_denoise",
    "build_denoiser",
    "build_grid",
    "build_guide",
    "build_layout",
    "build_learned_range",
    "build_loss",
    "build_mesh",
    "build_model",
    "build_optimizer",
    "build_sampler",
    "build_schedule",
    "build_state",
    "build_step",
    "build_validation",
    "check",
    "check_sampling",
    "count_parameters",
    "count_trained",
    "ema_decays",
    "load_data",
    "load_seen",
    "open_codec",
    "own_eta",
]


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


def load_seen(config: DataConfig, split: str) -> Dataset | Encoded:
    """The same as the network sees it: in latents, where it learns in such."""
    return see(config, load_data(config, split))[1]


def build_data(config: Config) -> tuple[Config, Dataset | Encoded]:
    """The training data, and the configuration with what was found out from them.

    Raises:
        ValueError: the data cannot be read, or are not what the network is for.
        FileNotFoundError: there is no such autoencoder.
    """
    _check_latents(config)
    if not 0 <= config.data.augment <= 1:
        raise ValueError(f"data.augment must lie in [0, 1], got {config.data.augment}")
    dataset = load_data(config.data, "train")
    counts: tuple[int, ...] = ()
    if config.data.labels and dataset.y is not None:
        counts = tuple(np.bincount(dataset.y, minlength=dataset.num_classes).tolist())
    part, seen = see(config.data, dataset)
    found = dataclasses.replace(
        part,
        shape=tuple(seen.example_shape),
        label_counts=counts,
        bins=seen.bins,
    )
    _check_shape(config, found.shape)
    if config.data.augment and len(found.shape) != 3:
        raise ValueError(f"data.augment is for images, got examples of shape {list(found.shape)}")
    seen = seen.with_batches(
        config.training.batch_size, seed=config.training.seed, flip=config.data.flip
    )
    return dataclasses.replace(config, data=found), seen


def _check_latents(config: Config) -> None:
    if isinstance(config.model, AutoencoderConfig) and (config.data.latents or config.data.augment):
        raise ValueError(
            "an autoencoder is of images as they are: no data.latents, no data.augment"
        )
    if config.data.latents and config.sampling.clip and holds(config.model) == A_MODEL:
        raise ValueError(
            "sampling.clip holds estimates to [-1, 1], the range of data, which latents have not:"
            " give --sampling.no-clip with --data.latents"
        )


def _check_shape(config: Config, shape: tuple[int, ...]) -> None:
    wanted = 1 if config.model.kind == "mlp" else 3
    if len(shape) != wanted:
        raise ValueError(
            f"preset {config.preset} is for {'vectors' if wanted == 1 else 'images'}, got examples "
            f"of shape {list(shape)} from {config.data.source}; choose another preset"
        )


def build_step(config: Config, over: Mesh | None = None) -> Callable:
    """The pure training step; where sums are ordered, for the devices of a mesh.

    Raises:
        ValueError: what is ordered does not fit the mesh, or what else is asked for.
    """
    part = config.training
    if part.ordered is not None:
        if part.accumulate > 1 or part.fully_sharded or part.model_devices > 1:
            raise ValueError(
                "training.ordered cuts batches itself and copies the state to each device: it goes"
                " with neither accumulate nor fully_sharded nor model_devices"
            )
        return training.make_ordered_step(
            build_loss(config),
            build_optimizer(config),
            parts=part.ordered,
            over=over,
            decay=training.optim.DECAYS[config.optimizer.decay],
        )
    return training.make_train_step(
        build_loss(config),
        build_optimizer(config),
        decay=training.optim.DECAYS[config.optimizer.decay],
        accumulate=config.training.accumulate,
    )


def build_mesh(config: Config) -> Mesh | None:
    """The devices of a training, None for one.

    Raises:
        ValueError: there are fewer, or they do not divide the batch; or a network that cannot be
            split over `model_devices`.
    """
    part = config.training
    if part.model_devices > 1 and config.model.kind != "dit":
        raise ValueError(
            f"training.model_devices is for the transformer, model dit, got {config.model.kind}"
        )
    return training.parallel.mesh(
        part.devices, batch_size=part.batch_size, model=part.model_devices
    )


def build_layout(config: Config, mesh: Mesh | None) -> Callable[[Any], Any] | None:
    """From a state to where its leaves lie on a mesh; None where each device has a copy."""
    part = config.training
    if mesh is None or not (part.fully_sharded or part.model_devices > 1):
        return None
    rules = training.sharding.TRANSFORMER if part.model_devices > 1 else ()
    return functools.partial(
        training.sharding.layout, over=mesh, full=part.fully_sharded, rules=rules
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
            parametrization that says nothing where the configured grid begins, or a schedule
            whose noise ends below the spread of the data.
    """
    if isinstance(config.model, ClassifierConfig):
        build_classifier(config, None)
    if holds(config.model) == A_MODEL:
        check_sampling(config)
        schedules.check_spread(build_schedule(config), batch["x"])
    abstract = jax.eval_shape(lambda: build_state(config))
    jax.eval_shape(build_step(config), abstract, batch)
    return abstract


def check_sampling(config: Config) -> None:
    """Raises what sampling as configured would raise, before anything is traced."""
    part = config.sampling
    build_guide(config)
    grid = build_grid(config, part.grid, part.steps)
    sampler = build_sampler(part.sampler, eta=part.eta)
    build_denoiser(config, None).check(grid.levels)
    if hasattr(sampler, "check"):
        sampler.check(grid)


def count_parameters(tree: Any) -> int:
    """How many numbers are in a tree of arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def count_trained(config: Config, variables: Any) -> int:
    """How many of the network's parameters a method of tuning trains; all, where none does."""
    if config.tuning.method is None:
        return count_parameters(variables)
    labels = jax.tree.leaves(build_model(config).labels(variables))
    pairs = zip(jax.tree.leaves(variables), labels, strict=True)
    return sum(leaf.size for leaf, label in pairs if label == "trained")


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


def own_eta(config: Config, sampler: str | None, eta: float | None) -> float | None:
    """The eta that was asked for; the configured one, where nothing was and the sampler is its."""
    mine = eta is None and sampler in (None, config.sampling.sampler)
    return config.sampling.eta if mine else eta


def build_guide(config: Config) -> Callable[[Denoiser, Array | None], Denoise]:
    """The configured guidance, as `build_denoise` takes it.

    Raises:
        ValueError: the network knows nothing of labels, or nothing without them.
    """
    scale = config.sampling.guidance
    if scale is None:
        return lambda denoiser, labels: denoiser
    if not config.data.label_counts or not config.loss.cond_dropout:
        raise ValueError(
            f"sampling.guidance {scale} needs data with labels, and loss.cond_dropout above 0"
        )
    return lambda denoiser, labels: guidance.cfg(denoiser, scale)


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
