"""What every loss of a denoiser begins with: noise the data, ask the network."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxdiff.arrays import check_range
from jaxdiff.denoiser import Denoiser, null_cond
from jaxdiff.gaussian import q_sample
from jaxdiff.losses.times import Times, log_snr_rate
from jaxdiff.typing import Denoised, NoiseLevel, Schedule

__all__ = ["Asked", "ask", "drop_cond"]


class Asked(NamedTuple):
    """Noised data, and what the network said of them.

    Attributes:
        denoiser: the network that was asked, under the condition that it was given.
        x0, noise, x_t: [B, ...].
        t, level, rate: the times [B], their levels, and d log_snr / dt there.
        importance: [B], by which each example counts, for the times it was drawn at.
        raw: the network's own output, [B, ..., C (1 + number of heads)].
    """

    denoiser: Denoiser
    x0: Array
    noise: Array
    x_t: Array
    t: Array
    level: NoiseLevel
    rate: Array
    importance: Array
    raw: Array

    @property
    def denoised(self) -> Denoised:
        """The network's answer as a model of x_0 and eps, with its heads."""
        return self.denoiser.interpret(self.raw, self.x_t, self.level)

    def total(self, weighted: Array, **more: Array) -> tuple[Array, dict[str, Array]]:
        """The loss [] of errors [B], with what `denoising` tells of it, and more."""
        per_example = self.importance.astype(self.x0.dtype) * weighted
        told = {"per_example": per_example, "weighted": weighted, "t": self.t, **more}
        return jnp.mean(per_example), told


def ask(
    key: Array,
    denoiser: Denoiser,
    x0: Array,
    schedule: Schedule,
    *,
    cond: Any = None,
    cond_dropout: Any = 0.0,
    times: Times,
    train: bool = True,
) -> Asked:
    """Noises data at random times and asks the network of them; see `denoising` for arguments."""
    _check(denoiser, x0, cond, cond_dropout)
    key_t, key_noise, key_net, key_cond = jax.random.split(key, 4)
    if cond is not None:
        denoiser = denoiser.with_cond(drop_cond(key_cond, cond, cond_dropout))
    t, importance = times(key_t, x0.shape[0], schedule)
    level, rate = schedule(t), log_snr_rate(schedule, t)
    noise = jax.random.normal(key_noise, x0.shape, x0.dtype)
    x_t = q_sample(x0, noise, level)
    raw = denoiser.raw(x_t, level, key=key_net, train=train)
    return Asked(denoiser, x0, noise, x_t, t, level, rate, importance, raw)


def drop_cond(key: Array, cond: Any, rate: Any) -> Any:
    """Hides the condition of each example with probability `rate`.

    Args:
        key: a PRNG key.
        cond: a pytree of [B, ...] arrays; hidden ones become their `denoiser.null_cond`.
        rate: [], in [0, 1]; or a pytree like `cond` of such.

    Returns:
        cond with some examples hidden, parts of equal rates together.

    Source: Ho and Salimans 2022, arXiv:2207.12598, algorithm 1.
    """
    leaves = jax.tree.leaves(cond)
    chance = jax.random.uniform(key, leaves[0].shape[:1])
    if jax.tree.structure(rate).num_leaves == 1:
        rate = jax.tree.map(lambda _: jax.tree.leaves(rate)[0], cond)

    def hide(leaf: Array, null: Array, rate: Any) -> Array:
        hidden = (chance < rate).reshape(-1, *[1] * (null.ndim - 1))
        return jnp.where(hidden, null, leaf.astype(null.dtype))

    return jax.tree.map(hide, cond, null_cond(cond), rate)


def _check(denoiser: Any, x0: Array, cond: Any, cond_dropout: Any) -> None:
    if not hasattr(denoiser, "raw"):
        raise TypeError(f"denoiser must come from make_denoiser, got {type(denoiser).__name__}")
    if x0.dtype not in (jnp.float32, jnp.float64):
        raise ValueError(
            "x0 must be float32 or float64, scaled to the range the model shall draw (networks"
            f" have a compute dtype of their own), got {x0.dtype}"
        )
    if x0.ndim < 2 or x0.size == 0:
        raise ValueError(f"x0 must have shape [B, ...] with B >= 1, got {list(x0.shape)}")
    for rate in jax.tree.leaves(cond_dropout):
        check_range("cond_dropout", rate, 0, 1)
    for leaf in jax.tree.leaves(cond):
        if jnp.shape(leaf)[:1] != x0.shape[:1]:
            raise ValueError(
                f"cond must have one entry an example, {x0.shape[0]}, got shape {jnp.shape(leaf)}"
            )
