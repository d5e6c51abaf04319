"""Training on the likelihood itself: the variational bound in continuous time."""

import math
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxdiff.arrays import event_mean, expand_to
from jaxdiff.denoiser import Denoiser
from jaxdiff.gaussian import normal_kl, q_marginal
from jaxdiff.losses.denoising import denoising
from jaxdiff.losses.times import Times, uniform_log_snr
from jaxdiff.losses.weights import vlb
from jaxdiff.schedules import cleanest_time, noisiest_time, whole_steps
from jaxdiff.typing import Normal, Schedule

__all__ = ["continuous_bound"]


def continuous_bound(
    key: Array,
    denoiser: Denoiser,
    x0: Array,
    schedule: Schedule,
    *,
    cond: Any = None,
    times: Times = uniform_log_snr,
    train: bool = True,
) -> tuple[Array, dict[str, Array]]:
    """The bound on -log p of data noised to the clean end of the working range, with each term.

        prior      KL(q(x_T | x_0) || N(0, prior_std**2))
        diffusion  1/2 int (-d log_snr / dt) E |eps - eps_hat|**2 dt  from t_clean to T
        entropy    D/2 log(2 pi e sigma(t_clean)**2)

    over D, so nats a dimension, of x_t_clean ~ q(. | x_0) under the model; t_clean is
    `cleanest_time`, T is `noisiest_time`: t_max, unless no signal is left there. In expectation
    it is the entropy of p_t_clean, KL(p_T || N(0, prior_std**2)), and 1/2 int g**2 times the
    model's squared error of the score, over D: only the last is the model's own.

    Gradients reach the schedule's numbers as well; they can move the bound by its ends alone, as
    in between it is an integral over log SNR.

    Args:
        key: for times, noise and dropout in the network.
        denoiser: a `Denoiser`; gradients flow to its params.
        x0: [B, ...], float, the data: dequantised, if they were integers.
        schedule: on a continuous clock.
        cond: the condition, as for `denoising`.
        times: the time sampler, one whose expectation is that of uniform times.
        train: whether dropout in the network is active.

    Returns:
        (bound [], {"per_example", "prior", "diffusion": [B] with importance, "weighted": [B] the
        diffusion term without, "entropy": [], "t": [B]}).

    Raises:
        ValueError: a chain, whose bound is a sum over its steps; and as `denoising`.
        TypeError: a denoiser that has no `raw`.

    Source: Song et al. 2021, arXiv:2101.09258, theorem 3 with section 5.1; Kingma et al. 2021,
        arXiv:2107.00630, eq. 11-17. Theirs go on to -log p of the data, by a decoder; at t_clean
        nothing is left to decode.
    """
    if steps := whole_steps(schedule):
        raise ValueError(
            f"schedule must have a continuous clock, got a chain of {steps} steps: its bound is a"
            " sum over the steps"
        )
    _, seen = denoising(
        key, denoiser, x0, schedule, cond=cond, times=times, weight=vlb, train=train
    )
    prior = event_mean(_prior_kl(x0, schedule))
    sigma = expand_to(schedule(cleanest_time(schedule)).sigma, x0)
    entropy = 0.5 * (math.log(2 * math.pi) + 1) + jnp.log(sigma)
    per_example = prior + seen["per_example"] + entropy
    return jnp.mean(per_example), {
        "per_example": per_example,
        "prior": prior,
        "diffusion": seen["per_example"],
        "weighted": seen["weighted"],
        "entropy": entropy,
        "t": seen["t"],
    }


def _prior_kl(x0: Array, schedule: Schedule) -> Array:
    """KL(q(x_T | x_0) || p(x_T)) of each number, [B, ...]."""
    last = schedule(noisiest_time(schedule))
    prior = Normal(jnp.zeros_like(x0), expand_to(jnp.asarray(schedule.prior_std), x0) ** 2)
    return normal_kl(q_marginal(x0, last), prior)
