"""Configurations of runs whose weights were trained by another library."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdiff import models, schedules, training
from jaxdiff.config.build import build_state
from jaxdiff.config.fields import (
    Config,
    LossConfig,
    OptimizerConfig,
    ParametrizationConfig,
    SamplingConfig,
    ScheduleConfig,
    VarianceConfig,
)
from jaxdiff.config.model import check_variance
from jaxdiff.config.networks import DhariwalConfig, DiTConfig, SongConfig, UNetConfig
from jaxdiff.config.presets import PRESETS
from jaxdiff.data import files
from jaxdiff.data.augment import LABELS
from jaxdiff.interop import Network
from jaxdiff.training.comparison import leaf_differences, leaves

__all__ = ["FORMATS", "adopted", "base", "negated", "state"]

FORMATS = ("diffusers", "edm", "adm", "score_sde")
"""Libraries whose weights are read; the recipe of a run that began from them."""

_KINDS = {
    models.UNet: UNetConfig,
    models.DiT: DiTConfig,
    models.SongUNet: SongConfig,
    models.DhariwalUNet: DhariwalConfig,
}
_CHAIN = Config(
    parametrization=ParametrizationConfig(name="eps"),
    schedule=ScheduleConfig(name="linear_betas"),
    loss=LossConfig(times="uniform", cond_dropout=0.0),
    optimizer=OptimizerConfig(lr=1e-4, decay="constant", ema_decay=0.9999),
)
_PUBLISHED = PRESETS["edm-cifar10"]
_EDM = dataclasses.replace(
    _CHAIN,
    **{
        part: getattr(_PUBLISHED, part)
        for part in ("parametrization", "schedule", "loss", "sampling")
    },
)
_VP = dataclasses.replace(_CHAIN, schedule=ScheduleConfig(name="linear_vp"))
_BETAS = {
    "linear": "linear_betas",
    "scaled_linear": "scaled_linear_betas",
    "squaredcos_cap_v2": "cosine_betas",
}
_PREDICTS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}


def base(kind: str, begins: Path, *, stated: bool = False) -> Config:
    """What a library's weights were usually trained as; of a pipeline of diffusers, as it says.

    Args:
        kind: of `FORMATS`.
        begins: what is read.
        stated: whether the schedule is said elsewhere, so that the pipeline need not.

    Raises:
        ValueError: no such format, or a scheduler that ours cannot be: its field and value.
    """
    if kind not in FORMATS:
        raise ValueError(f"--format must be one of {', '.join(FORMATS)}, got {kind!r}")
    config = dataclasses.replace({"edm": _EDM, "score_sde": _VP}.get(kind, _CHAIN), preset=kind)
    beside = [begins, begins.parent]
    paths = [folder / "scheduler" / "scheduler_config.json" for folder in beside]
    path = next((p for p in (*paths, begins / "scheduler_config.json") if p.is_file()), None)
    if kind != "diffusers" or path is None or stated:
        return config
    files.check_readable(path)
    try:
        return _scheduled(config, json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ValueError(f"{path}: {error}; --schedule.name says the schedule instead") from error


def _scheduled(config: Config, fields: dict[str, Any]) -> Config:
    count = fields.get("num_train_timesteps", 1000)
    found = {"beta_schedule": _BETAS, "prediction_type": _PREDICTS}
    given = {"prediction_type": "epsilon", **fields}
    if "beta_schedule" not in given:
        raise ValueError(
            f"beta_schedule is missing: {given.get('_class_name')} is no chain of betas"
        )
    for name, known in found.items():
        if given[name] not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {given[name]!r}")
    for name in ("trained_betas", "rescale_betas_zero_snr"):
        if fields.get(name):
            raise ValueError(f"{name} is not supported, got {fields[name]!r}")
    name = _BETAS[given["beta_schedule"]]
    betas = getattr(schedules, name)(count)
    ends = fields.get("beta_start", 1e-4), fields.get("beta_end", 0.02)
    if name != "cosine_betas" and not np.allclose((betas[0], betas[-1]), ends, rtol=1e-3):
        raise ValueError(
            f"beta_start and beta_end must be {betas[0]:.4g} and {betas[-1]:.4g} for "
            f"{given['beta_schedule']}, got {ends[0]} and {ends[1]}"
        )
    return dataclasses.replace(
        config,
        schedule=ScheduleConfig(name=name, options={} if count == 1000 else {"num_steps": count}),
        parametrization=ParametrizationConfig(name=_PREDICTS[given["prediction_type"]]),
        sampling=SamplingConfig(clip=bool(fields.get("clip_sample", True))),
    )


def adopted(config: Config, found: Network, begins: Path) -> tuple[Config, dict[str, Any]]:
    """The configuration of a run with these weights, and its parameters.

    Classes count alike, as nothing says how often each was trained on. score_sde's NCSN++ gives
    -eps; its last layer is negated, which makes it a network of eps.

    Raises:
        ValueError: a network that a run cannot have: outputs that are neither as many as its inputs
            nor, over a chain, twice as many; or another vector than EDM's of augmentations.
    """
    net, shape = found.net, found.shape
    made = _KINDS[type(net)]
    model = made(**{f.name: getattr(net, f.name) for f in dataclasses.fields(made)})
    outputs = shape[-1] if net.out_channels is None else net.out_channels
    if outputs not in (shape[-1], 2 * shape[-1]):
        raise ValueError(
            f"a run's network must have {shape[-1]} outputs or twice so, got {outputs}"
        )
    if net.cond_dim not in (0, LABELS):
        raise ValueError(f"a run's network must have cond_dim 0 or {LABELS}, got {net.cond_dim}")
    if config.preset == "score_sde":
        config = _of_score_sde(config, net)
    data = dataclasses.replace(
        config.data,
        source=str(begins),
        shape=tuple(shape),
        label_counts=(1,) * net.num_classes,
        augment=0.12 if net.cond_dim else 0.0,
    )
    dropped = 0.1 if isinstance(net, models.DiT) else config.loss.cond_dropout
    config = dataclasses.replace(
        config,
        data=data,
        model=model,
        loss=dataclasses.replace(config.loss, cond_dropout=dropped),
        variance=VarianceConfig(heads=("learned",) if outputs != shape[-1] else ()),
    )
    check_variance(config)
    return config, negated(config, found.params)


def _of_score_sde(config: Config, net: models.SongUNet) -> Config:
    """Its two SDEs, told apart by the embedding, unless flags say otherwise."""
    explodes = net.embedding == "fourier"
    schedule, part = config.schedule, config.parametrization
    if explodes and schedule == _VP.schedule:
        schedule = ScheduleConfig(name="ve", options={"sigma_min": 0.02, "sigma_max": 100.0})
    if part.time_feature is None and not schedule.name.endswith("betas"):
        feature = "log_half_sigma" if explodes else "unit_steps"
        part = dataclasses.replace(part, time_feature=feature)
    return dataclasses.replace(config, schedule=schedule, parametrization=part)


def negated(config: Config, params: dict[str, Any]) -> dict[str, Any]:
    """Parameters with the last layer's sign turned where score_sde's network gives -eps."""
    model = config.model
    turns = config.preset == "score_sde" and model.embedding == "fourier"
    if not turns:
        return dict(params)
    name = next(name for name in params if name.endswith("_aux_conv"))
    return {**params, name: {leaf: -np.asarray(a) for leaf, a in params[name].items()}}


def state(config: Config, params: dict[str, Any]) -> training.TrainState:
    """The state before the first step of training that begins from these parameters.

    Raises:
        ValueError: they are not of the network of the configuration.
    """
    variables = {"params": params}
    wanted = jax.eval_shape(lambda: build_state(config)).params
    differences = leaf_differences(leaves(variables), leaves(wanted))
    if differences:
        raise ValueError(f"params are of another network: {'; '.join(differences[:3])}")

    @jax.jit
    def begun(variables: Any) -> training.TrainState:  # whose own initialisation is left out
        first = build_state(config)
        averages = training.ema.init(variables, first.hyper["ema_decay"])
        return dataclasses.replace(first, params=variables, ema=averages)

    return begun(variables)
