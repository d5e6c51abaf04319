"""Optimisers of unit learning rate, and the learning rate as a function of progress.

    lr_t = lr min(1, (t + 1) / warmup) decay(t / steps)

The optimiser gives a direction; the learning rate is a traced hyperparameter of the state. So is
the number of steps it decays over: a run that is given seconds instead of steps learns it under
way without another compile, a checkpoint carries it, and a population may differ in it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jaxdiff import arrays

__all__ = [
    "DECAYS",
    "Decay",
    "adam",
    "constant",
    "cosine",
    "inverse_sqrt",
    "lamb",
    "learning_rate",
    "linear",
    "only_trained",
    "su",
    "trapezoid",
]

Decay = Callable[[Array], Array]
"""From progress [] in [0, 1] to the factor [] in [0, 1] of the peak learning rate."""


def constant(progress: Array) -> Array:
    """No decay."""
    return jnp.ones_like(progress)


def linear(progress: Array) -> Array:
    """1 - progress."""
    return 1 - progress


def cosine(progress: Array) -> Array:
    """(1 + cos(pi progress)) / 2, without restarts.

    Source: Loshchilov and Hutter 2017, arXiv:1608.03983, eq. 5 with eta_min = 0.
    """
    return (1 + jnp.cos(jnp.pi * progress)) / 2


def inverse_sqrt(progress: Array) -> Array:
    """1 / sqrt(max(10 progress, 1)): constant for a tenth of the run, then a slow fall to .32.

    Source: Karras et al. 2024, arXiv:2312.02696, eq. 67, whose t_ref is a number of steps.
    """
    return 1 / jnp.sqrt(jnp.maximum(10 * progress, 1))


def trapezoid(progress: Array) -> Array:
    """min(1, 5 (1 - progress)): constant, and linear to 0 over the last fifth.

    Source: Zhai et al. 2022, arXiv:2106.04560, section 3.5; Haegele et al. 2024,
    arXiv:2405.18392, who find a fifth enough.
    """
    return jnp.minimum(1, 5 * (1 - progress))


def su(progress: Array) -> Array:
    """1 up to .1 of the run, .5 at half of it, .1 at its end, linear in between.

    With 40,000 steps these are the 4,000, 20,000 and 40,000 of the recipe.

    Source: Su 2022, the configuration of Keras-DDPM.
    """
    at, factor = jnp.array([0.1, 0.5, 1.0]), jnp.array([1.0, 0.5, 0.1])
    return jnp.interp(progress, at, factor)


DECAYS: dict[str, Decay] = {
    d.__name__: d for d in (constant, linear, cosine, inverse_sqrt, trapezoid, su)
}
"""Decays by name."""


def learning_rate(step: Any, hyper: dict[str, Any], decay: Decay = constant) -> Array:
    """lr min(1, (step + 1) / warmup) decay(step / steps).

    Args:
        step: [], counted from 0.
        hyper: "lr", "warmup" (in steps; 0 is none) and "steps" (may be infinite), each [].
        decay: one of `DECAYS`, or any such function.

    Returns:
        [], the learning rate of this step.
    """
    step = jnp.asarray(step, hyper["lr"].dtype)
    progress = jnp.clip(step / hyper["steps"], 0, 1)
    warm = jnp.minimum(1, (step + 1) / jnp.maximum(hyper["warmup"], 1))
    return hyper["lr"] * warm * decay(progress)


def adam(
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    clip: float | None = 1.0,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay and a clipped gradient, at learning rate 1.

        g <- g min(1, clip / |g|),    update = -(m / (sqrt(v) + eps) + weight_decay params)

    Args:
        b1: the decay of the first moment, in [0, 1).
        b2: the decay of the second, in [0, 1).
        eps: what keeps the quotient finite, > 0.
        clip: the largest global norm of the gradient, > 0; None clips nothing.
        weight_decay: >= 0; scaled by the learning rate, as in AdamW.

    Returns:
        An optax GradientTransformation.

    Raises:
        ValueError: a number is out of range.

    Source: Kingma and Ba 2015, arXiv:1412.6980, algorithm 1; Loshchilov and Hutter 2019,
    arXiv:1711.05101, algorithm 2.
    """
    parts = _begun(b1, b2, eps, clip, weight_decay)
    if arrays.concrete(weight_decay) != 0:  # a checkpoint's structure tells whether there is one
        parts.append(optax.add_decayed_weights(weight_decay))
    return optax.chain(*parts, optax.scale(-1.0))


def lamb(
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-6,
    clip: float | None = None,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """LAMB: Adam's direction u, its length in each layer that of the layer's parameters.

        update = -|params| u / |u|,    u = m / (sqrt(v) + eps) + weight_decay params

    Vectors (biases, scales and shifts of norms) take u itself, and no weight decay; so does a
    layer that is zero, which would never leave it.

    Args:
        b1, b2, eps, clip, weight_decay: as for `adam`.

    Returns:
        An optax GradientTransformation.

    Raises:
        ValueError: a number is out of range.

    Source: You et al. 2020, arXiv:1904.00962, algorithm 2 with phi the identity.
    """
    parts = _begun(b1, b2, eps, clip, weight_decay)
    if arrays.concrete(weight_decay) != 0:
        parts.append(optax.add_decayed_weights(weight_decay, mask=_layers))
    parts.append(optax.masked(optax.scale_by_trust_ratio(), _layers))
    return optax.chain(*parts, optax.scale(-1.0))


def only_trained(optimizer: optax.GradientTransformation, labels: Any) -> Any:
    """The optimiser for some of the parameters alone; the others have no update, and no moments.

    Its clipping is by the norm of the gradient of those that are trained.

    Args:
        optimizer: any.
        labels: a tree like the parameters, "trained" or "frozen", or what makes it of them, such
            as the `labels` of a method of `models.tuning`.

    Returns:
        An optax GradientTransformation.

    Raises:
        ValueError: when it is begun: another label, or nothing to train.
    """

    def marks(params: Any) -> Any:
        tree = labels(params) if callable(labels) else labels
        found = set(jax.tree.leaves(tree))
        if not found <= {"trained", "frozen"} or "trained" not in found:
            raise ValueError(
                f"labels must be trained, some of them, or frozen, got {sorted(found)}"
            )
        return tree

    return optax.partition({"trained": optimizer, "frozen": optax.set_to_zero()}, marks)


def _layers(params: Any) -> Any:
    """Which leaves are matrices or kernels."""
    return jax.tree.map(lambda p: jnp.ndim(p) > 1, params)


def _begun(
    b1: float, b2: float, eps: float, clip: float | None, weight_decay: float
) -> list[optax.GradientTransformation]:
    """The clipping and the two moments, having checked the numbers that are not traced."""
    arrays.check_range("b1", b1, 0, 1, "[)")
    arrays.check_range("b2", b2, 0, 1, "[)")
    arrays.check_range("eps", eps, 0, np.inf, "()")
    if clip is not None:
        arrays.check_range("clip", clip, 0, np.inf, "(]")
    arrays.check_range("weight_decay", weight_decay, 0, np.inf, "[)")
    parts = [optax.clip_by_global_norm(clip)] if clip is not None else []
    return [*parts, optax.scale_by_adam(b1=b1, b2=b2, eps=eps)]
