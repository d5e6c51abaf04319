"""A log-likelihood with its standard error, split by what it comes from.

With y_idp the value of example i, dequantisation d and probe p, each draw of its own key,

    mean = mean_idp y,    Var(mean) = Var_i(mean_dp y) / B

whatever the causes, since examples share nothing. Within that the nested analysis of variance
tells them apart:

    probes          W / (B D P),              W = mean_id var_p(y)
    dequantisation  (V - W / P)+ / (B D),     V = mean_i var_d(mean_p y)
    data            what is left
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxdiff import arrays

__all__ = ["Errors", "Estimate", "concatenate"]


class Errors(NamedTuple):
    """Standard errors, one unit for all. NaN where too few draws cannot tell a cause.

    Attributes:
        total: of the mean as a statement about the data's distribution.
        data: because there are B examples and no more.
        dequantisation: because whole numbers were spread by a few random draws.
        probes: because a trace was estimated, or the bound's noise drawn.
    """

    total: Array
    data: Array
    dequantisation: Array
    probes: Array

    @property
    def of_this_set(self) -> Array:
        """The error as a statement about these very examples: that of the draws alone."""
        return jnp.hypot(self.dequantisation, self.probes)


@arrays.pytree
class Estimate:
    """Log-likelihoods of examples; see `elbo` and `log_prob`.

    Attributes:
        terms: by name, what the log-likelihood is the sum of, nats of an example: [B, D, P] with
            D draws of dequantisation and P of probes or noise, or [B, D, P, K] one a step.
        dims: static, numbers an example has.
        dequantised: static, whether dequantisation is random.
        probed: static, whether probes or noise are random.
    """

    terms: dict[str, Array]
    dims: int = arrays.static()
    dequantised: bool = arrays.static()
    probed: bool = arrays.static()

    @property
    def values(self) -> Array:
        """The log-likelihood of each example and draw, nats, [B, D, P]."""
        rank = min(term.ndim for term in self.terms.values())
        parts = [t if t.ndim == rank else jnp.sum(t, axis=-1) for t in self.terms.values()]
        return sum(parts[1:], parts[0])

    @property
    def per_example(self) -> Array:
        """The mean over draws, nats, [B]."""
        return jnp.mean(self.values, axis=(1, 2))

    @property
    def mean(self) -> Array:
        """The mean log-likelihood of an example, nats, []."""
        return jnp.mean(self.values)

    @property
    def errors(self) -> Errors:
        """Standard errors of `mean`, nats."""
        return _errors(self.values, self.dequantised, self.probed)

    @property
    def bits_per_dim(self) -> Array:
        """-mean / (dims log 2), []; of whole numbers where they were quantised."""
        return -self.mean / self._unit

    @property
    def bits_errors(self) -> Errors:
        """Standard errors of `bits_per_dim`."""
        return Errors(*(error / self._unit for error in self.errors))

    @property
    def bits_terms(self) -> dict[str, Array]:
        """Means of the terms as bits per dimension, [] or [K]; they add up to `bits_per_dim`."""
        mean = lambda term: -jnp.mean(term, axis=(0, 1, 2)) / self._unit  # noqa: E731
        return {name: mean(term) for name, term in self.terms.items()}

    @property
    def _unit(self) -> float:
        return self.dims * math.log(2)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The confidence interval of `mean` as a statement about the data's distribution, nats.

        Student's t on B - 1 degrees of freedom, on the total error.

        Args:
            level: in (0, 1).

        Raises:
            ValueError: level outside (0, 1), or one example alone.
        """
        from scipy import stats  # heavy to import

        arrays.check_range("level", level, 0, 1, "()")
        count = self.values.shape[0]
        if count < 2:
            raise ValueError(f"an interval needs two examples at least, got {count}")
        low, high = stats.t.interval(
            level, count - 1, loc=float(self.mean), scale=float(self.errors.total)
        )
        return float(low), float(high)


def concatenate(parts: Iterable[Estimate]) -> Estimate:
    """Estimates of further examples as one, in their order.

    Args:
        parts: estimates by one method with equal numbers of draws.

    Raises:
        ValueError: none at all, or such as differ in kind.
    """
    parts = list(parts)
    shapes = lambda part: tuple(term.shape[1:] for term in jax.tree.leaves(part))  # noqa: E731
    kinds = {(jax.tree.structure(part), shapes(part)) for part in parts}
    if len(kinds) != 1:
        raise ValueError(
            f"parts must be estimates of one kind with equal draws, got {len(kinds)} kinds"
        )
    return jax.tree.map(lambda *terms: jnp.concatenate(terms), *parts)


def _errors(y: Array, dequantised: bool, probed: bool) -> Errors:
    examples, draws, probes = y.shape
    total = _variance(jnp.mean(y, axis=(1, 2))) / examples
    within = jnp.mean(_variance(y))
    between = jnp.mean(_variance(jnp.mean(y, axis=2)))
    of_probes = within / y.size if probed else jnp.zeros_like(total)
    spread = jnp.maximum(between - (within / probes if probed else 0), 0)
    of_draws = spread / (examples * draws) if dequantised else jnp.zeros_like(total)
    of_data = jnp.maximum(total - of_draws - of_probes, 0)
    return Errors(*(jnp.sqrt(v) for v in (total, of_data, of_draws, of_probes)))


def _variance(y: Array) -> Any:
    """Over the last axis, unbiased; NaN of one value."""
    count = y.shape[-1]
    apart = y - jnp.mean(y, axis=-1, keepdims=True)
    return (
        jnp.sum(apart**2, axis=-1) / (count - 1) if count > 1 else jnp.full(y.shape[:-1], jnp.nan)
    )
