"""Losses of the heads that optimal variances are taken from.

npr   (g - sg[(eps - eps_hat)**2])**2     least at E[(eps - eps_hat)**2 | x_t]
sn    (h - eps**2)**2                     least at E[eps**2 | x_t]
"""

from typing import Any

import jax
from jax import Array

from jaxdiff.arrays import event_mean
from jaxdiff.denoiser import Denoiser
from jaxdiff.losses.asking import Asked, ask
from jaxdiff.losses.denoising import mean_error
from jaxdiff.losses.times import Times, uniform
from jaxdiff.losses.weights import Weight, simple
from jaxdiff.typing import Schedule

__all__ = ["HEADS", "joint", "second_moment"]

HEADS = ("residual2", "eps2")
"""Heads that second moments are fitted by: NPR's and SN's."""


def second_moment(
    key: Array,
    denoiser: Denoiser,
    x0: Array,
    schedule: Schedule,
    *,
    cond: Any = None,
    cond_dropout: Any = 0.0,
    times: Times = uniform,
    train: bool = True,
) -> tuple[Array, dict[str, Array]]:
    """The loss of the heads "residual2" (NPR) and "eps2" (SN), or of the one that there is.

        mean_i importance_i mean over pixels of sum over heads (head - target)**2

    The target of "residual2" has no gradient; what heads and mean share is for the network to say:
    `models.WithHeads` keeps the backbone as it is unless told otherwise.

    Args:
        key, denoiser, x0, schedule, cond, cond_dropout, times, train: as for `denoising`; the
            denoiser has one of those heads.

    Returns:
        (loss [], {"per_example", "weighted", "t": [B], and each head's own error by name [B]}).

    Raises:
        ValueError: neither head; and as `denoising`.
        TypeError: a denoiser that has no `raw`.

    Source: Bao et al. 2022, arXiv:2206.07309, eq. 10 and 13.
    """
    _check(denoiser)
    how = {"cond": cond, "cond_dropout": cond_dropout, "times": times, "train": train}
    asked = ask(key, denoiser, x0, schedule, **how)
    errors = moment_errors(asked)
    return asked.total(sum(errors.values()), **errors)


def joint(
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
    """`denoising` plus `second_moment`, of one call of the network: mean and heads in one stage.

    Args:
        key, denoiser, x0, schedule, cond, cond_dropout, times, weight, train: as for `denoising`.

    Returns:
        (loss [], {"per_example", "weighted", "mean", "t": [B], and each head's by name [B]}).

    Raises:
        ValueError: neither head; and as `denoising`.
        TypeError: a denoiser that has no `raw`.
    """
    _check(denoiser)
    how = {"cond": cond, "cond_dropout": cond_dropout, "times": times, "train": train}
    asked = ask(key, denoiser, x0, schedule, **how)
    mean, errors = mean_error(asked, weight), moment_errors(asked)
    return asked.total(mean + sum(errors.values()), mean=mean, **errors)


def moment_errors(asked: Asked) -> dict[str, Array]:
    """The squared error of each head, by name, [B]."""
    d = asked.denoised
    targets = {
        "residual2": jax.lax.stop_gradient((asked.noise - d.eps) ** 2),
        "eps2": asked.noise**2,
    }
    return {
        name: event_mean((d.heads[name].astype(asked.x0.dtype) - targets[name]) ** 2)
        for name in HEADS
        if name in d.heads
    }


def _check(denoiser: Any) -> None:
    heads = getattr(denoiser, "heads", ())
    if not set(heads) & set(HEADS):
        known = ", ".join(heads) or "none"
        raise ValueError(f"denoiser must have a head of {', '.join(HEADS)}, got {known}")
