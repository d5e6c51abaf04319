"""How unequal the counts of neighbours are: one number a measure, from N_k alone."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy import stats

from jaxdiff import arrays

__all__ = [
    "Hubness",
    "antihub_share",
    "atkinson",
    "gini",
    "hub_occurrence",
    "hub_share",
    "largest_share",
    "measure",
    "robin_hood",
    "skewness",
    "truncated_skewness",
]


class Hubness(NamedTuple):
    """All measures of one set of counts, [] each.

    Attributes:
        skewness: third standardised moment of the counts; NaN where all are equal.
        truncated_skewness: third moment of a normal fitted to them and cut at 0; likewise.
        robin_hood: the share of neighbourhoods that would have to change hands for equality.
        gini, atkinson: indices of inequality in [0, 1).
        hub_share: the share of points that are hubs.
        hub_occurrence: the share of neighbourhood places that hubs have.
        antihub_share: the share of points that are nobody's neighbour.
        largest_share: the share of neighbourhoods that the greatest hub is in.
        largest: its count.
    """

    skewness: Array
    truncated_skewness: Array
    robin_hood: Array
    gini: Array
    atkinson: Array
    hub_share: Array
    hub_occurrence: Array
    antihub_share: Array
    largest_share: Array
    largest: Array


def measure(counts: Any, *, k: int, hub_size: float = 2.0) -> Hubness:
    """All measures of counts.

    Args:
        counts: N_k, [M], such as `k_occurrence` gives.
        k: of the neighbourhoods; counts sum to k times their number.
        hub_size: hubs have counts of `hub_size` k or more.

    Raises:
        ValueError: no counts, negative ones, all zero, or k or hub_size that is not positive.

    Source: each measure's own; Feldbauer et al. 2018, doi:10.1109/ICBK.2018.00055, and
    scikit-hubness, whose numbers these are.
    """
    n = _checked(counts)
    arrays.check_count("k", k)
    arrays.check_range("hub_size", hub_size, 0, float("inf"), "()")
    return _measured(n, k, hub_size)


@jax.jit
def _measured(n: Array, k: Any, hub_size: Any) -> Hubness:
    return Hubness(
        skewness=skewness(n),
        truncated_skewness=truncated_skewness(n),
        robin_hood=robin_hood(n),
        gini=gini(n),
        atkinson=atkinson(n),
        hub_share=hub_share(n, k, hub_size),
        hub_occurrence=hub_occurrence(n, k, hub_size),
        antihub_share=antihub_share(n),
        largest_share=largest_share(n),
        largest=jnp.max(n),
    )


def skewness(counts: Array) -> Array:
    """mean((N - mean)**3) / mean((N - mean)**2)**1.5; NaN where all counts are equal.

    Source: Radovanovic et al. 2010, JMLR 11, section 2.
    """
    n = _float(counts)
    apart = n - jnp.mean(n)
    return jnp.mean(apart**3) / jnp.mean(apart**2) ** 1.5


def truncated_skewness(counts: Array) -> Array:
    """The third moment of a standard normal cut at the place of N = 0; NaN where all are equal.

        a = -mean / std (of N, with N - 1),   2 phi(a) / Z + a**2 phi(a) / Z,   Z = 1 - Phi(a)

    Source: scikit-hubness, `k_skewness_truncnorm`.
    """
    n = _float(counts)
    a = -jnp.mean(n) / jnp.std(n, ddof=1)
    return (2 + a**2) * jnp.exp(stats.norm.logpdf(a) - stats.norm.logsf(a))


def robin_hood(counts: Array) -> Array:
    """sum |N - mean| / (2 sum N).

    Source: Hoover 1936, doi:10.2307/1927875.
    """
    n = _float(counts)
    return jnp.sum(jnp.abs(n - jnp.mean(n))) / (2 * jnp.sum(n))


def gini(counts: Array) -> Array:
    """sum_ij |N_i - N_j| / (2 M sum N), from the sorted counts in M log M.

    Source: Gini 1912; the sorted form is the same sum in another order.
    """
    n = jnp.sort(_float(counts))
    size = n.shape[0]
    weight = 2 * jnp.arange(1, size + 1, dtype=n.dtype) - size - 1
    return jnp.sum(weight * n) / (size * jnp.sum(n))


def atkinson(counts: Array, eps: float = 0.5) -> Array:
    """1 - mean(N**(1 - eps))**(1 / (1 - eps)) / mean(N).

    Args:
        counts: N_k, [M].
        eps: aversion to inequality, in [0, 1).

    Source: Atkinson 1970, doi:10.1016/0022-0531(70)90039-6.
    """
    n = _float(counts)
    return 1 - jnp.mean(n ** (1 - eps)) ** (1 / (1 - eps)) / jnp.mean(n)


def hub_share(counts: Array, k: Any, hub_size: Any = 2.0) -> Array:
    """The share of points with N >= hub_size k."""
    return jnp.mean(_float(counts) >= hub_size * k)


def hub_occurrence(counts: Array, k: Any, hub_size: Any = 2.0) -> Array:
    """The share of all places in neighbourhoods that points with N >= hub_size k have."""
    n = _float(counts)
    return jnp.sum(jnp.where(n >= hub_size * k, n, 0)) / jnp.sum(n)


def antihub_share(counts: Array) -> Array:
    """The share of points with N = 0."""
    return jnp.mean(_float(counts) == 0)


def largest_share(counts: Array) -> Array:
    """max N / sum N: how much of all places the greatest hub has."""
    n = _float(counts)
    return jnp.max(n) / jnp.sum(n)


def _float(counts: Array) -> Array:
    return jnp.asarray(counts, arrays.float_dtype())


def _checked(counts: Any) -> Array:
    n = jnp.asarray(counts)
    if n.ndim != 1 or not n.shape[0]:
        raise ValueError(f"counts must be [M], got shape {list(n.shape)}")
    known = arrays.concrete(n)
    if known is not None and (not (known >= 0).all() or not known.any()):
        raise ValueError("counts must be 0 or more and not all 0, got others")
    return n
