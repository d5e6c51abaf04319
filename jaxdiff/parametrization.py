"""Parametrizations: what a network predicts, as y = a x_0 + b eps.

    eps      (0, 1)                              Ho et al. 2020
    x0       (1, 0)
    v        (-sigma, alpha)                     Salimans and Ho 2022, arXiv:2202.00512, eq. 13
    score    (0, -1 / sigma)                     Song et al. 2021, arXiv:2011.13456
    flow     (-1, 1)                             Liu et al. 2023, arXiv:2209.03003: dx/dt
    edm      (sigma / sigma_data, -alpha sigma_data) / sqrt(alpha**2 sigma_data**2 + sigma**2)
                                                 Karras et al. 2022, arXiv:2206.00364, eq. 7

Together with x_t = alpha x_0 + sigma eps this is one 2x2 system, so no pair of them needs a
converter of its own. Its determinant alpha b - sigma a says where a prediction is of no use: eps
and score networks at alpha = 0, x0 networks at sigma = 0 (for eps).

Errors follow at once: at fixed x_t, alpha dx_0 = -sigma deps, and an error dy is
dy = (det / alpha) deps = -(det / sigma) dx_0. That is all the losses need to convert a weight.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import check_range, expand_to, safe_divide
from jaxdiff.typing import EVEN, Denoised, NoiseLevel

__all__ = [
    "PARAMETRIZATIONS",
    "Parametrization",
    "determinant",
    "edm",
    "eps",
    "flow",
    "one_of",
    "resolve",
    "score",
    "target",
    "to_denoised",
    "v",
    "x0",
]


class Parametrization(Protocol):
    """A frozen pytree that says what a network predicts."""

    def coefficients(self, level: NoiseLevel) -> tuple[Array, Array]:
        """(a, b) of y = a x_0 + b eps, each of the level's shape."""
        ...

    def scale_in(self, level: NoiseLevel) -> Array:
        """What x_t is multiplied by before the network sees it."""
        ...


@arrays.pytree
class Eps:
    """The noise."""

    def coefficients(self, level):
        """(0, 1)."""
        return jnp.zeros_like(level.alpha), jnp.ones_like(level.alpha)

    def scale_in(self, level):
        """1."""
        return jnp.ones_like(level.alpha)


@arrays.pytree
class X0:
    """The data."""

    def coefficients(self, level):
        """(1, 0)."""
        return jnp.ones_like(level.alpha), jnp.zeros_like(level.alpha)

    def scale_in(self, level):
        """1."""
        return jnp.ones_like(level.alpha)


@arrays.pytree
class V:
    """The velocity alpha eps - sigma x_0."""

    def coefficients(self, level):
        """(-sigma, alpha)."""
        return -level.sigma, level.alpha

    def scale_in(self, level):
        """1."""
        return jnp.ones_like(level.alpha)


@arrays.pytree
class Score:
    """The score -eps / sigma."""

    def coefficients(self, level):
        """(0, -1 / sigma)."""
        return jnp.zeros_like(level.alpha), -safe_divide(jnp.ones_like(level.sigma), level.sigma)

    def scale_in(self, level):
        """1."""
        return jnp.ones_like(level.alpha)


@arrays.pytree
class Flow:
    """The velocity eps - x_0 of the straight path."""

    def coefficients(self, level):
        """(-1, 1)."""
        return -jnp.ones_like(level.alpha), jnp.ones_like(level.alpha)

    def scale_in(self, level):
        """1."""
        return jnp.ones_like(level.alpha)


@arrays.pytree
class Edm:
    """EDM's preconditioned F."""

    sigma_data: Any

    def _total(self, level):
        return jnp.sqrt((level.alpha * self.sigma_data) ** 2 + level.sigma**2)

    def coefficients(self, level):
        """(sigma / sigma_data, -alpha sigma_data) / sqrt(alpha**2 sigma_data**2 + sigma**2)."""
        total = self._total(level)
        return level.sigma / (self.sigma_data * total), -level.alpha * self.sigma_data / total

    def scale_in(self, level):
        """c_in = 1 / sqrt(alpha**2 sigma_data**2 + sigma**2)."""
        return 1 / self._total(level)


def eps() -> Eps:
    """The network predicts the noise: y = eps."""
    return Eps()


def x0() -> X0:
    """The network predicts the data: y = x_0."""
    return X0()


def v() -> V:
    """The network predicts y = alpha eps - sigma x_0."""
    return V()


def score() -> Score:
    """The network predicts the score of q(x_t): y = -eps / sigma."""
    return Score()


def flow() -> Flow:
    """The network predicts the velocity of the straight path: y = eps - x_0."""
    return Flow()


def edm(sigma_data=0.5) -> Edm:
    """The network is EDM's F, with its input scaled to unit variance.

        x_0 = c_skip x_t + c_out F(c_in x_t),    for any alpha, not alpha = 1 alone

    Args:
        sigma_data: the deviation of the data, > 0.

    Raises:
        ValueError: sigma_data not positive.

    Source: Karras et al. 2022, arXiv:2206.00364, eq. 7 and table 1.
    """
    check_range("sigma_data", sigma_data, 0, np.inf, "()")
    return Edm(sigma_data)


@arrays.pytree
class OneOf:
    """The parametrization at `index`; see `one_of`."""

    parametrizations: tuple[Parametrization, ...]
    index: Any

    def coefficients(self, level):
        """Those of the chosen one."""
        return self._asked([p.coefficients for p in self.parametrizations], level)

    def scale_in(self, level):
        """That of the chosen one."""
        return self._asked([p.scale_in for p in self.parametrizations], level)

    def _asked(self, functions, level):
        return arrays.choose(self.index, functions, (level,), [(EVEN,)] * len(functions))


def one_of(parametrizations: Sequence[Parametrization | Callable | str], index) -> OneOf:
    """One of several parametrizations, by a number that may be traced: `vmap` goes through them.

    Args:
        parametrizations: those to choose from, at least one, as `resolve` takes them.
        index: [] int, which one, in 0..len(parametrizations) - 1; see `schedules.one_of`.

    Raises:
        ValueError: none to choose from, or no such index.
        TypeError: what is no parametrization, or an index that is no whole number.
    """
    if not parametrizations:
        raise ValueError("parametrizations must be at least one, got none")
    arrays.check_index("index", index, len(parametrizations))
    return OneOf(tuple(resolve(p) for p in parametrizations), index)


PARAMETRIZATIONS: dict[str, Callable[..., Parametrization]] = {
    "eps": eps,
    "x0": x0,
    "v": v,
    "score": score,
    "flow": flow,
    "edm": edm,
}


def resolve(parametrization: Parametrization | Callable | str) -> Parametrization:
    """A parametrization from itself, its factory or its name.

    Raises:
        ValueError: an unknown name.
        TypeError: something else altogether.
    """
    return arrays.by_name(
        "parametrization",
        parametrization,
        PARAMETRIZATIONS,
        kind="Parametrization",
        has="coefficients",
    )


def determinant(parametrization: Parametrization, level: NoiseLevel) -> Array:
    """alpha b - sigma a: zero where the prediction says nothing of x_0 or of eps."""
    a, b = parametrization.coefficients(level)
    return level.alpha * b - level.sigma * a


def target(parametrization: Parametrization, x_0: Array, noise: Array, level: NoiseLevel) -> Array:
    """What the network should say: y = a x_0 + b eps.

    Args:
        parametrization: the parametrization.
        x_0, noise: [B, ...].
        level: fields [] or [B].

    Returns:
        [B, ...].
    """
    a, b = parametrization.coefficients(level)
    return expand_to(a, x_0) * x_0 + expand_to(b, noise) * noise


def to_denoised(
    parametrization: Parametrization, y: Array, x_t: Array, level: NoiseLevel, heads=None
) -> Denoised:
    """Solves x_t = alpha x_0 + sigma eps and y = a x_0 + b eps for both.

        x_0 = (b x_t - sigma y) / det,    eps = (alpha y - a x_t) / det

    Args:
        parametrization: what y is.
        y: [B, ...], the network's output.
        x_t: [B, ...], its (unscaled) input.
        level: fields [] or [B].
        heads: further outputs, passed on.

    Returns:
        Denoised, consistent. Where the determinant is 0, y says nothing and the least-norm
        solution of x_t = alpha x_0 + sigma eps stands in: it is exact for whichever of the two
        x_t alone determines.
    """
    a, b = parametrization.coefficients(level)
    det = level.alpha * b - level.sigma * a
    silent, norm = det == 0, level.alpha**2 + level.sigma**2

    def solve(of_x_t: Array, of_y: Array, alone: Array) -> Array:
        of_x_t = jnp.where(silent, safe_divide(alone, norm), safe_divide(of_x_t, det))
        return expand_to(of_x_t, x_t) * x_t + expand_to(safe_divide(of_y, det), x_t) * y

    return Denoised(
        x0=solve(b, -level.sigma, level.alpha),
        eps=solve(-a, level.alpha, level.sigma),
        heads={} if heads is None else heads,
    )
