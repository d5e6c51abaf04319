"""From configurations to what a training carries: optimiser, averages, state."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import arrays, losses, training
from jaxdiff.config.fields import Config
from jaxdiff.config.model import build_model
from jaxdiff.config.networks import AutoencoderConfig, ClassifierConfig
from jaxdiff.training.comparison import leaf_differences, leaves

__all__ = ["averaged", "begin", "build_optimizer", "build_state", "ema_decays"]


def build_optimizer(config: Config) -> Any:
    """The optimiser, of unit learning rate; where a network is tuned, for what is trained of it."""
    part = config.optimizer
    arrays.check_range("optimizer.lr", part.lr, 0, np.inf)
    optimizer = getattr(training, part.name)(
        b1=part.b1, b2=part.b2, eps=part.eps, clip=part.clip, weight_decay=part.weight_decay
    )
    if config.tuning.method is None:
        return optimizer
    return training.optim.only_trained(optimizer, build_model(config).labels)


def ema_decays(config: Config) -> Any:
    """The decay of the average; where there are more, all by name: {"0.999": 0.999, ...}.

    Those by powers are named by their widths, "width 0.05".

    Raises:
        ValueError: a decay or a width is out of range, or given twice.
    """
    part = config.optimizer
    decays = (part.ema_decay, *part.more_ema_decays)
    for decay in decays:
        arrays.check_range("optimizer: decays of averages", decay, 0, 1)
    if not part.more_ema_decays and not part.power_widths:
        return part.ema_decay
    for what, given in (("decays", decays), ("widths", part.power_widths)):
        if len(set(given)) < len(given):
            raise ValueError(f"optimizer: {what} of averages must differ, got {given}")
    powers = {f"width {width!r}": training.ema.power(width) for width in part.power_widths}
    return {repr(decay): decay for decay in decays} | powers


def averaged(config: Config, state: training.TrainState, decay: float | None = None) -> Any:
    """The averaged parameters, of the main decay unless another of the run's is named.

    Raises:
        ValueError: the run keeps no average of that decay.
    """
    part = config.optimizer
    decay = part.ema_decay if decay is None else decay
    known = (part.ema_decay, *part.more_ema_decays)
    if decay not in known:
        kept = ", ".join(map(repr, known))
        raise ValueError(f"the run keeps averages of decay {kept}, got {decay}")
    return state.ema[repr(decay)] if isinstance(ema_decays(config), dict) else state.ema


def build_state(config: Config) -> training.TrainState:
    """The state before the first step; under `jax.eval_shape`, what a checkpoint is read into."""
    key = jax.random.key(config.training.seed)
    key_params, key_run = jax.random.split(key)
    variables = build_model(config).init(key_params, *_inputs(config))
    part = config.optimizer
    return training.init_state(
        key_run,
        variables,
        build_optimizer(config),
        hyper={"lr": part.lr, "ema_decay": ema_decays(config), "warmup": part.warmup},
        aux=losses.loss_history() if config.loss.times == "importance" else (),
    )


def _inputs(config: Config) -> list[Any]:
    """What the network is asked with: an example, its time, its label."""
    inputs = [jnp.zeros((1, *config.data.shape)), jnp.zeros((1,))]
    if isinstance(config.model, AutoencoderConfig):
        return inputs[:1]
    if config.data.label_counts and not isinstance(config.model, ClassifierConfig):
        inputs.append(jnp.zeros((1,), jnp.int32))
    return inputs


def begin(state: training.TrainState, variables: Any) -> training.TrainState:
    """The state of a network with heads, or under tuning, that begins from trained variables.

    Args:
        state: as `build_state` made it.
        variables: {"params": ...}, of its backbone, or of one with heads, which are left behind.

    Returns:
        The state whose backbone, averages included, is as trained.

    Raises:
        ValueError: parameters of other names or shapes.
    """
    params = variables["params"]
    params = params.get("backbone", params)
    old = state.params["params"]
    differences = leaf_differences(leaves(params), leaves(old["backbone"]))
    if differences:
        raise ValueError(f"the run is of another network: {'; '.join(differences[:3])}")
    params = {"params": {**old, "backbone": params}}
    averages = training.ema.init(params, state.hyper["ema_decay"])
    return dataclasses.replace(state, params=params, ema=averages)
