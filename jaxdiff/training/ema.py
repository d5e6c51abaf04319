"""Exponential moving averages of parameters.

    decay_t = min(decay, (1 + t) / (10 + t)),    ema <- decay_t ema + (1 - decay_t) params

Not here: several averages at once, and profiles rebuilt after training.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

__all__ = ["decay_at", "init", "update"]


def init(params: Any) -> Any:
    """The average before the first update: a copy of the parameters, float32 or wider.

    Half precision would stall: with decay 0.999 an increment is below the spacing of bfloat16.
    """

    def copied(p: Any) -> Array:
        p = jnp.asarray(p)
        # numpy's rule: JAX's own refuses to mix dtypes where promotion is strict.
        return jnp.array(p, np.promote_types(p.dtype, np.float32), copy=True)

    return jax.tree.map(copied, params)


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
        ema: the average, a tree of arrays.
        params: the parameters after optimiser step number `step`, the same tree.
        step: [], counted from 0.
        decay: [], in [0, 1].

    Returns:
        The new average, in the dtypes of the old one.
    """
    rate = 1 - decay_at(step, decay)
    return jax.tree.map(
        lambda e, p: (e + rate * (p.astype(e.dtype) - e)).astype(e.dtype), ema, params
    )
