"""Loss weights, each declared on the error its paper states it for.

A weight is `weight(level, rate) -> ErrorWeight`: what a squared error counts. `rate` is how fast
log SNR falls at that time, times the length of the clock (`times.log_snr_rate`).

An error can be stated on eps, on x_0 or on the network's own output y = a x_0 + b eps. At fixed
x_t they are one error in three units (`parametrization`):

    |dy|**2 = (det / alpha)**2 |deps|**2 = (det / sigma)**2 |dx_0|**2,    det = alpha b - sigma a

so that every weight serves every network, and equal weights give equal gradients.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import check_range, safe_divide
from jaxdiff.parametrization import Parametrization, determinant
from jaxdiff.typing import EVEN, NoiseLevel

__all__ = [
    "WEIGHTS",
    "ErrorWeight",
    "Weight",
    "edm",
    "min_snr",
    "on_output",
    "one_of",
    "p2",
    "plain",
    "sigmoid",
    "simple",
    "snr",
    "truncated_snr",
    "vlb",
]


class ErrorWeight(NamedTuple):
    """How much squared errors count, by what they are errors of; the parts add up.

    Attributes:
        eps: on |deps|**2.
        x0: on |dx_0|**2.
        output: on the network's own |dy|**2.
    """

    eps: Any = 0.0
    x0: Any = 0.0
    output: Any = 0.0


Weight = Callable[[NoiseLevel, Array], ErrorWeight]


def on_output(weight: ErrorWeight, parametrization: Parametrization, level: NoiseLevel) -> Array:
    """The same weight on the squared error of the network's output.

        w = w_output + w_eps (alpha / det)**2 + w_x0 (sigma / det)**2

    Args:
        weight: the weight.
        parametrization: what the network predicts.
        level: fields [] or [B].

    Returns:
        [] or [B].
    """
    det = determinant(parametrization, level)
    per_eps, per_x0 = (safe_divide(scale, det) ** 2 for scale in (level.alpha, level.sigma))
    return weight.output + weight.eps * per_eps + weight.x0 * per_x0


def simple(level: NoiseLevel, rate: Array) -> ErrorWeight:
    """1 on the eps error, L_simple.

    Source: Ho et al. 2020, arXiv:2006.11239, eq. 14.
    """
    return ErrorWeight(eps=jnp.ones_like(level.alpha))


def plain(level: NoiseLevel, rate: Array) -> ErrorWeight:
    """1 on the network's own error, whatever it predicts: v loss, flow matching, EDM's F loss.

    Source: Salimans and Ho 2022, arXiv:2202.00512, section 4 ("SNR + 1", for v); Lipman et al.
        2023, arXiv:2210.02747, eq. 5 (for flow).
    """
    return ErrorWeight(output=jnp.ones_like(level.alpha))


def snr(level: NoiseLevel, rate: Array) -> ErrorWeight:
    """SNR on the x_0 error, which is `simple` said of x_0.

    Source: Salimans and Ho 2022, arXiv:2202.00512, eq. 10.
    """
    return ErrorWeight(x0=level.snr)


def truncated_snr(level: NoiseLevel, rate: Array) -> ErrorWeight:
    """max(SNR, 1) on the x_0 error.

    Source: Salimans and Ho 2022, arXiv:2202.00512, section 4.
    """
    return ErrorWeight(x0=jnp.maximum(level.snr, 1))


def vlb(level: NoiseLevel, rate: Array) -> ErrorWeight:
    """The variational bound in continuous time, in nats of one example's event when summed.

        -(1/2) d log_snr / dt on the eps error, over a clock of length 1

    Under uniform times on a continuous clock the expectation is the diffusion loss of the bound;
    on a chain it is its limit of many steps. Twice this is the likelihood weighting
    g**2 |score + noise / sigma|**2 of score-based models, as g**2 = -sigma**2 d log_snr / dt for
    every schedule. `uniform_log_snr` draws the times that keep its variance low.

    Source: Kingma et al. 2021, arXiv:2107.00630, eq. 17; Song et al. 2021, arXiv:2101.09258,
        eq. 7-8.
    """
    return ErrorWeight(eps=0.5 * rate)


@arrays.pytree
class MinSNR:
    """See `min_snr`."""

    gamma: Any

    def __call__(self, level: NoiseLevel, rate: Array) -> ErrorWeight:
        """min(SNR, gamma) on the x_0 error."""
        return ErrorWeight(x0=jnp.minimum(level.snr, self.gamma))


def min_snr(gamma=5.0) -> MinSNR:
    """min(SNR, gamma) on the x_0 error.

    Args:
        gamma: > 0.

    Raises:
        ValueError: gamma not positive.

    Source: Hang et al. 2023, arXiv:2303.09556, eq. 8.
    """
    check_range("gamma", gamma, 0, np.inf, "()")
    return MinSNR(gamma)


@arrays.pytree
class P2:
    """See `p2`."""

    gamma: Any
    k: Any

    def __call__(self, level: NoiseLevel, rate: Array) -> ErrorWeight:
        """1 / (k + SNR)**gamma on the eps error."""
        return ErrorWeight(eps=(self.k + level.snr) ** -self.gamma)


def p2(gamma=1.0, k=1.0) -> P2:
    """1 / (k + SNR)**gamma on the eps error: less weight where noise is imperceptible.

    Args:
        gamma: >= 0; 0 is `simple`.
        k: > 0.

    Raises:
        ValueError: gamma negative or k not positive.

    Source: Choi et al. 2022, arXiv:2204.00227, eq. 8.
    """
    check_range("gamma", gamma, 0, np.inf, "[)")
    check_range("k", k, 0, np.inf, "()")
    return P2(gamma, k)


@arrays.pytree
class Sigmoid:
    """See `sigmoid`."""

    bias: Any

    def __call__(self, level: NoiseLevel, rate: Array) -> ErrorWeight:
        """sigmoid(bias - log_snr) times the weight of the bound."""
        return ErrorWeight(eps=0.5 * rate * jax.nn.sigmoid(self.bias - level.log_snr))


def sigmoid(bias=2.0) -> Sigmoid:
    """sigmoid(bias - log_snr) times the weight of the variational bound, on the eps error.

    Args:
        bias: the log-SNR at which half of the bound's weight is left.

    Source: Kingma and Gao 2023, arXiv:2303.00848, section 4.1; Hoogeboom et al. 2024,
        arXiv:2410.19324, eq. 8.
    """
    return Sigmoid(bias)


@arrays.pytree
class EdmWeight:
    """See `edm`."""

    sigma_data: Any

    def __call__(self, level: NoiseLevel, rate: Array) -> ErrorWeight:
        """1 / c_out**2 on the x_0 error."""
        total = (level.alpha * self.sigma_data) ** 2 + level.sigma**2
        return ErrorWeight(x0=total / (level.sigma * self.sigma_data) ** 2)


def edm(sigma_data=0.5) -> EdmWeight:
    """EDM's weight on the x_0 error, 1 / c_out**2; `plain` for a network that predicts its F.

        (alpha**2 sigma_data**2 + sigma**2) / (sigma sigma_data)**2

    Args:
        sigma_data: the deviation of the data, > 0.

    Raises:
        ValueError: sigma_data not positive.

    Source: Karras et al. 2022, arXiv:2206.00364, table 1, for any alpha.
    """
    check_range("sigma_data", sigma_data, 0, np.inf, "()")
    return EdmWeight(sigma_data)


@arrays.pytree
class OneOf:
    """See `one_of`."""

    weights: tuple[Weight, ...]
    index: Any

    def __call__(self, level: NoiseLevel, rate: Array) -> ErrorWeight:
        """The chosen one's, on the errors that it is stated for."""
        instead = [(EVEN, 1.0)] * len(self.weights)
        return arrays.choose(self.index, self.weights, (level, rate), instead)


def one_of(weights: Sequence[Weight], index) -> OneOf:
    """One of several weights, by a number that may be traced: `vmap` goes through their kinds.

    Args:
        weights: those to choose from, at least one.
        index: [] int, which one, in 0..len(weights) - 1; see `schedules.one_of`.

    Raises:
        ValueError: none to choose from, or no such index.
        TypeError: an index that is no whole number.
    """
    if not weights:
        raise ValueError("weights must be at least one, got none")
    arrays.check_index("index", index, len(weights))
    return OneOf(tuple(map(arrays.as_pytree, weights)), index)


WEIGHTS: dict[str, Callable[[], Weight]] = {
    "simple": lambda: simple,
    "plain": lambda: plain,
    "snr": lambda: snr,
    "truncated_snr": lambda: truncated_snr,
    "min_snr": min_snr,
    "p2": p2,
    "sigmoid": sigmoid,
    "edm": edm,
    "vlb": lambda: vlb,
}
