"""Which times a training batch is noised to.

A time sampler is `times(key, n, schedule) -> (t [n], importance [n])`: the times, and the factor
each example's loss is multiplied by so that its expectation is that of uniform times. Samplers
that mean to change the objective (`log_normal`) return ones.

    uniform          independent
    stratified       one uniform shift of an even comb, Kingma et al. 2021
    antithetic       pairs mirrored about the middle
    uniform_log_snr  independent and even in log SNR, Song et al. 2021
    log_normal       sigma / alpha log-normal, Karras et al. 2022
    importance       by the history of squared losses, Nichol and Dhariwal 2021

A continuous clock is used from `cleanest_time` to t_max, a chain on its whole steps 1..N.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import check_range, safe_divide
from jaxdiff.schedules import cleanest_time, noisiest_time, whole_steps
from jaxdiff.typing import Schedule

__all__ = [
    "TIMES",
    "LossHistory",
    "Times",
    "antithetic",
    "importance",
    "log_normal",
    "log_snr_rate",
    "loss_history",
    "stratified",
    "uniform",
    "uniform_log_snr",
    "working_span",
]

Times = Callable[[Array, int, Schedule], tuple[Array, Array]]


def working_span(schedule: Schedule) -> Any:
    """The length of the clock that training draws from: N of a chain, else beyond cleanest_time."""
    return whole_steps(schedule) or schedule.t_max - cleanest_time(schedule)


def _clock(schedule: Schedule, u: Array) -> Array:
    """Times of a schedule from u in [0, 1): whole steps 1..N on a chain, else along the clock."""
    total = whole_steps(schedule)
    if total:
        return 1 + jnp.minimum(jnp.floor(u * total), total - 1)
    first, span = (
        jnp.asarray(v, u.dtype) for v in (cleanest_time(schedule), working_span(schedule))
    )
    return first + span * u


def log_snr_rate(schedule: Schedule, t: Array) -> Array:
    """How fast log SNR falls at a time, times the length of the clock, for `Weight`s.

    On a continuous clock the slope itself; on a chain the fall over the step that leads to n,
    log_snr(n - 1) - log_snr(n), and at n = 1, where it would be infinite, that of n = 2; 1 on a
    chain of one step.

    Args:
        schedule: the schedule.
        t: [B], its times.

    Returns:
        [B]; 0 where log SNR is infinite.
    """
    if whole_steps(schedule) == 1:
        return jnp.ones_like(t)
    if whole_steps(schedule):
        t = jnp.maximum(t, 2)
        s, level = schedule(t - 1), schedule(t)
        fall = s.log_snr - level.log_snr
    else:
        level = schedule(t)
        fall = -jax.jvp(lambda t: schedule(t).log_snr, (t,), (jnp.ones_like(t),))[1]
    inside = (level.alpha > 0) & (level.sigma > 0)
    return jnp.where(inside, working_span(schedule) * fall, 0)


def uniform(key: Array, n: int, schedule: Schedule) -> tuple[Array, Array]:
    """Independent uniform times.

    Source: Ho et al. 2020, arXiv:2006.11239, algorithm 1.
    """
    u = jax.random.uniform(key, (n,), arrays.float_dtype())
    return _clock(schedule, u), jnp.ones_like(u)


def stratified(key: Array, n: int, schedule: Schedule) -> tuple[Array, Array]:
    """An even comb under one uniform shift: each time is uniform, together they cover the clock.

        u_i = (u_0 + i / n) mod 1

    Source: Kingma et al. 2021, arXiv:2107.00630, appendix I.1.
    """
    shift = jax.random.uniform(key, (), arrays.float_dtype())
    u = (shift + jnp.arange(n, dtype=shift.dtype) / n) % 1
    return _clock(schedule, u), jnp.ones_like(u)


def antithetic(key: Array, n: int, schedule: Schedule) -> tuple[Array, Array]:
    """Uniform times in pairs u, 1 - u.

    Source: Song et al. 2021, arXiv:2010.02502, the sampler of its code.
    """
    half = jax.random.uniform(key, ((n + 1) // 2,), arrays.float_dtype())
    u = jnp.concatenate([half, jnp.nextafter(jnp.ones_like(half), 0 * half) - half])[:n]
    return _clock(schedule, jnp.maximum(u, 0)), jnp.ones_like(u)


def uniform_log_snr(key: Array, n: int, schedule: Schedule) -> tuple[Array, Array]:
    """Independent times whose log SNR is uniform: under weight `vlb` all count alike.

        p(t) = -(d log_snr / dt) / (log_snr(first) - log_snr(last)),  importance = 1 / (p(t) span)

    Since g**2 / sigma**2 = -d log_snr / dt, this is the importance sampling of the likelihood
    weighting. On a chain step n is drawn in proportion to the fall of log SNR that leads to it,
    as `log_snr_rate` counts it. Where the clock ends without signal, log SNR is infinite: it is
    left at `noisiest_time`, and a loss is its integral up to there.

    Source: Song et al. 2021, arXiv:2101.09258, section 5.1; Kingma et al. 2021,
        arXiv:2107.00630, section 5.1, for the clock log SNR.
    """
    total = whole_steps(schedule)
    if total:
        rate = log_snr_rate(schedule, jnp.arange(1, total + 1, dtype=arrays.float_dtype()))
        index = jax.random.choice(key, total, (n,), p=rate / jnp.sum(rate))
        return 1 + index.astype(rate.dtype), jnp.mean(rate) / rate[index]
    u = jax.random.uniform(key, (n,), arrays.float_dtype())
    first, last = (
        jnp.asarray(t, u.dtype) for t in (cleanest_time(schedule), noisiest_time(schedule))
    )
    high, low = schedule(first).log_snr, schedule(last).log_snr
    t = jnp.clip(schedule.time(high + (low - high) * u), first, last)
    return t, (high - low) / log_snr_rate(schedule, t)


@arrays.pytree
class LogNormal:
    """See `log_normal`."""

    mean: Any
    std: Any

    def __call__(self, key: Array, n: int, schedule: Schedule) -> tuple[Array, Array]:
        """Times at which log(sigma / alpha) is N(mean, std**2), held to the clock's range."""
        z = jax.random.normal(key, (n,), arrays.float_dtype())
        t = schedule.time(-2 * (self.mean + self.std * z))
        t = jnp.clip(t, cleanest_time(schedule), schedule.t_max)
        return (jnp.round(t) if whole_steps(schedule) else t), jnp.ones_like(z)


def log_normal(mean=-1.2, std=1.2) -> LogNormal:
    """Times at which the noise-to-signal ratio is log-normal; on rectified flow, logit-normal.

        log(sigma / alpha) ~ N(mean, std**2)

    Args:
        mean, std: of log(sigma / alpha); std > 0.

    Returns:
        A time sampler.

    Raises:
        ValueError: std not positive.

    Source: Karras et al. 2022, arXiv:2206.00364, table 1; Esser et al. 2024, arXiv:2403.03206,
        eq. 19 (mean 0, std 1 there).
    """
    check_range("std", std, 0, np.inf, "()")
    return LogNormal(mean, std)


@arrays.pytree
class LossHistory:
    """The latest losses of each stretch of the clock; carried in the training state's `aux`.

    Attributes:
        losses: [bins, H], newest last.
        counts: [bins], how many have been seen.
    """

    losses: Array
    counts: Array

    def update(self, t: Array, per_example: Array, schedule: Schedule) -> "LossHistory":
        """Adds a batch of losses, weighted but not yet multiplied by importance.

        Args:
            t: [B], the times they were taken at.
            per_example: [B], the losses.
            schedule: the schedule they were taken on.

        Returns:
            The new history.
        """
        bins = self.counts.shape[0]
        inside = 0.5 if whole_steps(schedule) else 0.0  # the middle of a step's own cell
        u = (t - cleanest_time(schedule) + inside) / working_span(schedule)
        index = jnp.clip(jnp.floor(u * bins), 0, bins - 1).astype(jnp.int32)

        def push(history, entry):
            losses, counts = history
            i, loss = entry
            row = jnp.append(losses[i, 1:], loss)
            return (losses.at[i].set(row), counts.at[i].add(1)), None

        per_example = per_example.astype(self.losses.dtype)
        pair, _ = jax.lax.scan(push, (self.losses, self.counts), (index, per_example))
        return LossHistory(*pair)


def loss_history(bins: int = 100, length: int = 10) -> LossHistory:
    """An empty history.

    Args:
        bins: stretches of the clock; N gives a chain's every step its own, as in the paper.
        length: losses kept of each.

    Raises:
        ValueError: bins or length below 1.
    """
    if bins < 1 or length < 1:
        raise ValueError(f"bins and length must be at least 1, got {bins} and {length}")
    return LossHistory(jnp.zeros((bins, length)), jnp.zeros(bins, jnp.int32))


@arrays.pytree
class Importance:
    """See `importance`."""

    history: LossHistory
    floor: Any

    def probabilities(self) -> Array:
        """[bins], of each stretch; even until every stretch has a full history."""
        bins, length = self.history.losses.shape
        root = jnp.sqrt(jnp.mean(self.history.losses**2, axis=1))
        total = jnp.sum(root)
        ready = jnp.all(self.history.counts >= length) & (total > 0)
        share = (1 - self.floor) * safe_divide(root, total) + self.floor / bins
        return jnp.where(ready, share, 1 / bins)

    def __call__(self, key: Array, n: int, schedule: Schedule) -> tuple[Array, Array]:
        """Times by loss, with importance 1 / (bins p)."""
        key_bin, key_inside = jax.random.split(key)
        p = self.probabilities()
        index = jax.random.choice(key_bin, p.shape[0], (n,), p=p)
        u = jax.random.uniform(key_inside, (n,), p.dtype)
        return _clock(schedule, (index.astype(u.dtype) + u) / p.shape[0]), 1 / (
            p[index] * p.shape[0]
        )


def importance(history: LossHistory, floor=1e-3) -> Importance:
    """Times in proportion to the root mean square of their recent losses, without bias.

        p_bin = (1 - floor) sqrt(E[L_bin**2]) / sum + floor / bins

    Args:
        history: the carried history; uniform until it is full.
        floor: in (0, 1], the share spread evenly.

    Returns:
        A time sampler.

    Raises:
        ValueError: floor outside (0, 1].

    Source: Nichol and Dhariwal 2021, arXiv:2102.09672, eq. 18, and its code (history of 10,
        floor 0.001).
    """
    check_range("floor", floor, 0, 1, "(]")
    return Importance(history, floor)


TIMES: dict[str, Times | Callable[..., Times]] = {
    "uniform": uniform,
    "stratified": stratified,
    "antithetic": antithetic,
    "uniform_log_snr": uniform_log_snr,
}
