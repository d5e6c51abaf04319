"""Exponential moving averages of parameters.

    decay_t = min(decay, (1 + t) / (10 + t)),    ema <- decay_t ema + (1 - decay_t) params

A tree of decays, such as a dict, gives a tree of averages of the same structure.

Not here: profiles rebuilt after training.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

__all__ = ["decay_at", "init", "update"]


def init(params: Any, decay: Any = 0.0) -> Any:
    """The averages before the first update: copies of the parameters, float32 or wider.

    Half precision would stall: with decay 0.999 an increment is below the spacing of bfloat16.

    Args:
        params: a tree of arrays.
        decay: [], or a tree of decays; only its structure counts.

    Returns:
        A tree like `params` for each decay, in the structure of the decays.
    """

    def copied(p: Any) -> Array:
        p = jnp.asarray(p)
        # numpy's rule: JAX's own refuses to mix dtypes where promotion is strict.
        return jnp.array(p, np.promote_types(p.dtype, np.float32), copy=True)

    return jax.tree.map(lambda _: jax.tree.map(copied, params), decay)


def decay_at(step: Any, decay: Any) -> Array:
    """The decay of update number `step`, warmed up: min(decay, (1 + step) / (10 + step)).

    Args:
        step: [], the number of updates made before this one.
        decay: [], in [0, 1], what the decay approaches; 1 averages with growing memory for ever.

    Returns:
        [], 0.1 at step 0.

    Source: the warm-up of TensorFlow's `ExponentialMovingAverage(num_updates=...)`.
    """
    step = jnp.asarray(step, jnp.result_type(decay))
    return jnp.minimum(decay, (1 + step) / (10 + step))


def update(ema: Any, params: Any, *, step: Any, decay: Any) -> Any:
    """One update: ema + (1 - decay_t)(params - ema).

    Args:
        ema: the averages, as `init` made them.
        params: the parameters after optimiser step number `step`.
        step: [], counted from 0.
        decay: [], in [0, 1]; or the tree of decays.

    Returns:
        The new averages, in the dtypes of the old ones.
    """

    def moved(decay: Array, ema: Any) -> Any:
        rate = 1 - decay_at(step, decay)
        return jax.tree.map(
            lambda e, p: (e + rate * (p.astype(e.dtype) - e)).astype(e.dtype), ema, params
        )

    return jax.tree.map(moved, decay, ema)
