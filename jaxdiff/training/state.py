"""What a training carries from step to step.

Everything that a run needs to go on is in one pytree, so that a checkpoint is its leaves, a
population is a leading axis on every leaf, and a device mesh is a sharding of them.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.training import ema

__all__ = ["TrainState", "init_state"]

_DEFAULTS = {"warmup": 0.0, "steps": np.inf}


@arrays.pytree
class TrainState:
    """The state of one training.

    Attributes:
        step: [], int32, the number of optimiser steps made.
        params: what the loss is differentiated by.
        ema: their exponential moving average; a tree of averages where "ema_decay" is one.
        opt_state: the optimiser's.
        key: [], the run's key; never changes, steps fold their number into it.
        hyper: traced hyperparameters of this member. "lr" multiplies the updates, "ema_decay" is
            that of the average, "warmup" and "steps" place the learning-rate schedule; further
            names are the loss's own.
        aux: statistics that the loss carries, () if none.
    """

    step: Array
    params: Any
    ema: Any
    opt_state: Any
    key: Array
    hyper: dict[str, Any]
    aux: Any = ()


def init_state(
    key: Array, params: Any, optimizer: Any, *, hyper: Mapping[str, Any], aux: Any = ()
) -> TrainState:
    """The state before the first step.

    Under `vmap` over `key` or over values of `hyper` it is the state of a population. Arrays are
    copied: a step may take the state's buffers, never the caller's.

    Args:
        key: [], a typed key.
        params: a tree of arrays or numbers, which become arrays of one dtype for good.
        optimizer: an optax GradientTransformation of unit learning rate (see `optim`).
        hyper: "lr" >= 0 and "ema_decay" in [0, 1], or a tree of decays such as
            {"short": 0.99, "long": 0.9999} for several averages, an `ema.Power` among them where
            wanted; optionally "warmup" (steps, 0
            unless given), "steps" (the length of the learning-rate schedule; infinite, which is
            no decay, unless given), and whatever the loss reads.
        aux: the statistics' first value, where the loss carries any.

    Returns:
        A TrainState.

    Raises:
        ValueError: a hyperparameter is missing or out of range, or the key is not typed.
    """
    _check(key, hyper)
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.asarray(p).dtype), params)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=_copy(params),
        ema=ema.init(params, hyper["ema_decay"]),
        opt_state=_copy(optimizer.init(params)),
        key=jnp.copy(key),
        hyper={name: _leaf(value) for name, value in {**_DEFAULTS, **hyper}.items()},
        aux=_copy(aux),
    )


def _leaf(value: Any) -> Any:
    """Numbers become floats, so that lr=1 and lr=1.0 are one program; trees stay trees."""

    def leaf(v: Any) -> Array:
        number = isinstance(v, int | float)
        return jnp.array(v, arrays.float_dtype()) if number else jnp.array(v, copy=True)

    return jax.tree.map(leaf, value)


def _copy(tree: Any) -> Any:
    return jax.tree.map(lambda a: jnp.array(a, copy=True), tree)


def _check(key: Array, hyper: Mapping[str, Any]) -> None:
    if not jnp.issubdtype(getattr(key, "dtype", None), jax.dtypes.prng_key):
        raise ValueError(f"key must be a typed key such as jax.random.key(0), got {key!r}")
    missing = [name for name in ("lr", "ema_decay") if name not in hyper]
    if missing:
        raise ValueError(f"hyper must hold {' and '.join(missing)}, got only {sorted(hyper)}")
    for name, low, high in (("lr", 0, np.inf), ("ema_decay", 0, 1), ("warmup", 0, np.inf)):
        for leaf in jax.tree.leaves(hyper.get(name, 0), is_leaf=ema.is_power):
            if isinstance(leaf, ema.Power):
                continue  # checked by the width it was made from
            value = arrays.concrete(leaf)
            if value is not None and not np.all((value >= low) & (value <= high)):
                raise ValueError(f"hyper[{name!r}] must be in [{low}, {high}], got {value}")
    steps = arrays.concrete(hyper.get("steps", np.inf))
    if steps is not None and not np.all(steps > 0):
        raise ValueError(f"hyper['steps'] must be positive, got {steps}")
