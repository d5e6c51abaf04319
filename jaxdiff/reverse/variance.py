"""Where the deviation of the reverse step comes from.

    small     l = eta sigma_s sqrt(1 - r)      exact if the data are one point
    large     eta sigma_t sqrt(1 - r)          exact (eta = 1) if the data are N(0, I), VP
    learned   between the two, by a head of the network
    optimal   exact wherever Cov[x_0 | x_t] is; see `optimal`, and `analytic`, `npr`, `sn` there

The first three are linear in eta, so that gradients by eta are finite at 0.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import expand_to, safe_sqrt
from jaxdiff.gaussian import snr_drop
from jaxdiff.reverse.covariance import head
from jaxdiff.reverse.optimal import npr, sn
from jaxdiff.typing import Denoised, Grid, NoiseLevel, ReverseVariance

__all__ = [
    "TINY",
    "VARIANCES",
    "large",
    "learned_range",
    "resolve",
    "second_to_last",
    "small",
]

TINY = 1e-20
"""The floor of Ho et al.'s code under the variance of the last step, which is 0."""


@arrays.pytree
class Small:
    """beta-tilde; see `small`."""

    def std(self, denoised: Denoised, *, t: NoiseLevel, s: NoiseLevel, eta) -> Array:
        """Eta sigma_s sqrt(1 - r)."""
        return eta * s.sigma * safe_sqrt(snr_drop(t, s))


@arrays.pytree
class Large:
    """beta; see `large`."""

    def std(self, denoised: Denoised, *, t: NoiseLevel, s: NoiseLevel, eta) -> Array:
        """Eta sigma_t sqrt(1 - r)."""
        return eta * t.sigma * safe_sqrt(snr_drop(t, s))


@arrays.pytree
class LearnedRange:
    """See `learned_range`."""

    floor: Any

    def std(self, denoised: Denoised, *, t: NoiseLevel, s: NoiseLevel, eta) -> Array:
        """Eta exp(v log large + (1 - v) log small), [B, ...]."""
        v = (head(denoised, "log_var_fraction", "learned") + 1) / 2
        drop = snr_drop(t, s)
        beta = jnp.maximum(t.sigma**2 * drop, TINY)
        beta_tilde = jnp.maximum(s.sigma**2 * drop, jnp.minimum(self.floor, beta))
        high, low = (expand_to(jnp.log(a), v) for a in (beta, beta_tilde))
        return eta * jnp.exp((v * high + (1 - v) * low) / 2)


def small() -> Small:
    """The variance of q(x_s | x_t, x_0), beta-tilde; the lower bound of the optimal one.

    Source: Ho et al. 2020, arXiv:2006.11239, section 3.2.
    """
    return Small()


def large() -> Large:
    """The variance of q(x_t | x_s), beta; with eta < 1 the deviation is eta times its root.

    With ddim(eta=1) this is the sigma-hat of the DDIM paper.

    Source: Ho et al. 2020, arXiv:2006.11239, section 3.2; Song et al. 2021, arXiv:2010.02502,
        section 5.
    """
    return Large()


def learned_range(floor: Any = TINY) -> LearnedRange:
    """A variance between small and large, by the network's head "log_var_fraction".

        std = eta exp(1/2 (v log beta + (1 - v) log beta_tilde)),    v = (head + 1) / 2

    The head is not held to [-1, 1], as published. The range need not hold the optimal variance,
    whose upper bound is beta (alpha_s / alpha_t)**2.

    Args:
        floor: [], > 0, below which beta_tilde is not taken, nor above beta; it counts in the step
            onto the data, where beta_tilde is 0. `TINY` is Ho et al.'s code;
            `second_to_last(grid)` Improved DDPM's.

    Returns:
        A ReverseVariance.

    Raises:
        ValueError: floor not positive.

    Source: Nichol and Dhariwal 2021, arXiv:2102.09672, eq. 15, and their code for the head's
        range.
    """
    arrays.check_range("floor", floor, 0, np.inf, "()")
    return LearnedRange(floor)


def second_to_last(grid: Grid) -> Array:
    """beta_tilde of the last step but one, [], which Improved DDPM takes for that of the last.

    Args:
        grid: with a clean end, and two noisy levels or more.

    Source: Nichol and Dhariwal 2021, arXiv:2102.09672, code.
    """
    t, s = grid.pairs
    drop = snr_drop(t._replace(sigma=jnp.where(t.sigma > 0, t.sigma, 1)), s)
    var = jnp.where(s.sigma > 0, s.sigma**2 * drop, jnp.inf)
    return jnp.min(var)


VARIANCES: dict[str, Callable[[], ReverseVariance]] = {
    "small": small,
    "large": large,
    "learned": learned_range,
    "npr": npr,
    "sn": sn,
}
"""Variances that a name alone fixes; "analytic" needs a table."""


def resolve(variance: ReverseVariance | Callable | str) -> ReverseVariance:
    """A variance from itself, its factory or its name.

    Raises:
        ValueError: an unknown name, or "analytic", which needs its table.
        TypeError: something else altogether.
    """
    if isinstance(variance, str) and variance == "analytic":
        raise ValueError(
            "variance 'analytic' needs second moments: give analytic(second_moments(...)) instead"
            " of the name"
        )
    return arrays.by_name("variance", variance, VARIANCES, kind="ReverseVariance", has="std")
