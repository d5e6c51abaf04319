"""The loss that trains a classifier of noisy data: noise the data, ask for their class."""

import jax
import jax.numpy as jnp
from jax import Array

from jaxdiff.gaussian import q_sample
from jaxdiff.guidance.classifier import Classifier, log_prob_of
from jaxdiff.losses.times import Times, uniform
from jaxdiff.typing import Schedule

__all__ = ["classification"]


def classification(
    key: Array,
    classifier: Classifier,
    x0: Array,
    labels: Array,
    schedule: Schedule,
    *,
    times: Times = uniform,
    train: bool = True,
) -> tuple[Array, dict[str, Array]]:
    """The cross entropy of a batch's classes, read from noisy data.

        mean_i importance_i (-log p(y_i | x_t)),    x_t = alpha x_0 + sigma eps at t_i

    Its least value is the entropy that is left of the class, H(y | x_t), at the times drawn.

    Args:
        key: for times, noise and dropout.
        classifier: what `make_classifier` gives; gradients flow to its params.
        x0: [B, ...], float, the data.
        labels: [B] int.
        schedule: the schedule.
        times: the time sampler.
        train: whether dropout in the network is active.

    Returns:
        (loss [] in nats, {"per_example": [B] with importance, "accuracy": [B], 1 where the
        likeliest class is the right one, "t": [B]}).

    Raises:
        ValueError: data that are not float, or labels that are not whole numbers, one an example.

    Source: Dhariwal and Nichol 2021, arXiv:2105.05233, section 4.
    """
    if x0.dtype not in (jnp.float32, jnp.float64) or x0.ndim < 2 or x0.size == 0:
        raise ValueError(f"x0 must be float [B, ...] with B >= 1, got {x0.dtype} {list(x0.shape)}")
    if not jnp.issubdtype(jnp.result_type(labels), jnp.integer):
        raise ValueError(f"labels must be whole numbers, got {jnp.result_type(labels)}")
    key_t, key_noise, key_net = jax.random.split(key, 3)
    t, importance = times(key_t, x0.shape[0], schedule)
    level = schedule(t)
    noise = jax.random.normal(key_noise, x0.shape, x0.dtype)
    logits = classifier.logits(q_sample(x0, noise, level), level, key=key_net, train=train)
    per_example = -importance.astype(logits.dtype) * log_prob_of(labels, logits)
    right = (jnp.argmax(logits, axis=-1) == labels).astype(logits.dtype)
    return jnp.mean(per_example), {"per_example": per_example, "accuracy": right, "t": t}
