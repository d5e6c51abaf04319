"""Moving averages of parameters: exponential, and by a power of time.

    ema <- decay_t ema + (1 - decay_t) params

    decay_t = min(decay, (1 + t) / (10 + t))       a decay: exponential
    decay_t = (t / (t + 1))**(gamma + 1)           a `Power`: weights as t**gamma

A tree of decays, such as a dict, gives a tree of averages of the same structure.

Not here: what is rebuilt after training from averages by powers, see `profiles`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays

__all__ = ["Power", "decay_at", "init", "is_power", "power", "update"]


@arrays.pytree
class Power:
    """An average of all parameters so far, the n-th of N with a weight as n**gamma.

        w_n = (n**(gamma + 1) - (n - 1)**(gamma + 1)) / N**(gamma + 1)

    Its width grows with the training, so that the start is forgotten without a warm-up.

    Attributes:
        gamma: [], > 0.

    Source: Karras et al. 2024, arXiv:2312.02696, section 3.1.
    """

    gamma: Array


def power(width: Any) -> Power:
    """A `Power` by its relative width, the deviation of the profile in lengths of the training.

        width**2 = (gamma + 1) / ((gamma + 2)**2 (gamma + 3))

    Args:
        width: [] or [...], in (0, 12**-0.5), such as the published 0.05 and 0.1; at its upper end
            is the plain mean, gamma = 0.

    Raises:
        ValueError: it is out of range.

    Source: Karras et al. 2024, arXiv:2312.02696, section 3.1 and algorithm 2.
    """
    width = np.asarray(width, np.float64)
    if not np.all((width > 0) & (width < 12**-0.5)):
        raise ValueError(f"width must be in (0, {12**-0.5:.4f}), got {width}")

    def root(one: float) -> float:
        # the largest root of (gamma + 2)**2 (gamma + 3) = (gamma + 1) / width**2
        t = one**-2
        return float(np.roots([1, 7, 16 - t, 12 - t]).real.max())

    gamma = np.vectorize(root, otypes=[np.float64])(width)
    return Power(jnp.asarray(gamma, arrays.float_dtype()))


def is_power(node: Any) -> bool:
    """Whether a node of a tree of decays is a `Power`, whose parts are no decays."""
    return isinstance(node, Power)


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

    return jax.tree.map(lambda _: jax.tree.map(copied, params), decay, is_leaf=is_power)


def decay_at(step: Any, decay: Any) -> Array:
    """The decay of update number `step`: min(decay, (1 + step) / (10 + step)), or a power's.

    Args:
        step: [], the number of updates made before this one.
        decay: [], in [0, 1], what the decay approaches, 1 averages with growing memory for ever;
            or a `Power`.

    Returns:
        [], 0.1 at step 0; of a power 0 there.

    Source: the warm-up of TensorFlow's `ExponentialMovingAverage(num_updates=...)`; Karras et al.
    2024, arXiv:2312.02696, section 3.1.
    """
    if isinstance(decay, Power):
        step = jnp.asarray(step, jnp.result_type(decay.gamma))
        return (step / (step + 1)) ** (decay.gamma + 1)
    step = jnp.asarray(step, jnp.result_type(decay))
    return jnp.minimum(decay, (1 + step) / (10 + step))


def update(ema: Any, params: Any, *, step: Any, decay: Any) -> Any:
    """One update: ema + (1 - decay_t)(params - ema).

    Args:
        ema: the averages, as `init` made them.
        params: the parameters after optimiser step number `step`.
        step: [], counted from 0.
        decay: [], in [0, 1], or a `Power`; or the tree of decays.

    Returns:
        The new averages, in the dtypes of the old ones.
    """

    def moved(decay: Array, ema: Any) -> Any:
        rate = 1 - decay_at(step, decay)
        return jax.tree.map(
            lambda e, p: (e + rate * (p.astype(e.dtype) - e)).astype(e.dtype), ema, params
        )

    return jax.tree.map(moved, decay, ema, is_leaf=is_power)
