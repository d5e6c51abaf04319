"""The loss that trains a denoiser: noise the data, ask the network, weight its squared error."""

from typing import Any

from jax import Array

from jaxdiff.arrays import event_mean
from jaxdiff.denoiser import Denoiser
from jaxdiff.losses.asking import Asked, ask
from jaxdiff.losses.times import Times, uniform
from jaxdiff.losses.weights import Weight, on_output, simple
from jaxdiff.parametrization import target
from jaxdiff.typing import Schedule

__all__ = ["denoising", "mean_error"]


def denoising(
    key: Array,
    denoiser: Denoiser,
    x0: Array,
    schedule: Schedule,
    *,
    cond: Any = None,
    cond_dropout: Any = 0.0,
    times: Times = uniform,
    weight: Weight = simple,
    train: bool = True,
) -> tuple[Array, dict[str, Array]]:
    """The weighted denoising loss of a batch.

        mean_i importance_i w(t_i) mean over pixels of (y(x_t, t_i) - (a x_0 + b eps))**2

    This is denoising score matching: with score = -eps / sigma, the error of eps is sigma times
    that of the score against the score -eps / sigma of q(x_t | x_0), so weight `simple` is Song
    et al.'s default sigma**2, and `vlb` half their likelihood weight g**2, since
    g**2 / sigma**2 = -d log_snr / dt. What it differs by from the Fisher divergence does not
    depend on the model.

    Args:
        key: for times, noise, conditioning dropout and dropout in the network.
        denoiser: a `Denoiser`; gradients flow to its params.
        x0: [B, ...], float, the data.
        schedule: the schedule.
        cond: labels [B] (int) or vectors [B, D] (float), or a pytree of such; None keeps the
            denoiser's own.
        cond_dropout: [], in [0, 1], the probability with which an example trains without its
            condition: labels become -1 and vectors 0, which networks take as none. Or a pytree
            like `cond` of a probability for each part; parts of equal ones are hidden together.
        times: the time sampler.
        weight: the weight, on whichever error it states.
        train: whether dropout in the network is active.

    Returns:
        (loss [], {"per_example": [B] weighted losses with importance, "weighted": [B] without,
        "t": [B]}).

    Raises:
        ValueError: integer or half-precision data, an empty batch or one without an event axis,
            cond_dropout outside [0, 1], a condition of another length or that the network does
            not take.
        TypeError: a denoiser that has no `raw`.

    Source: Ho et al. 2020, arXiv:2006.11239, algorithm 1; weights by Kingma and Gao 2023,
        arXiv:2303.00848; Vincent 2011, doi:10.1162/NECO_a_00142, and Song et al. 2021,
        arXiv:2011.13456, eq. 7, for the score.
    """
    asked = ask(
        key,
        denoiser,
        x0,
        schedule,
        cond=cond,
        cond_dropout=cond_dropout,
        times=times,
        train=train,
    )
    return asked.total(mean_error(asked, weight))


def mean_error(asked: Asked, weight: Weight) -> Array:
    """The weighted squared error of what the network predicts, [B]."""
    x0, level, kind = asked.x0, asked.level, asked.denoiser.parametrization
    y = asked.raw[..., : x0.shape[-1]].astype(x0.dtype)
    scale = on_output(weight(level, asked.rate), kind, level).astype(x0.dtype)
    return scale * event_mean((y - target(kind, x0, asked.noise, level)) ** 2)
