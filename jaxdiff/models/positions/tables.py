"""Position methods whose bias or factor is a table, or a rule, over displacements alone."""

import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.models.positions.base import Position, table_index, table_size

__all__ = ["T5", "ALiBi", "Bias", "Factor", "bucket", "bucket_index", "slopes"]

SMALL = nn.initializers.normal(0.02)


class Bias(Position):
    """A learned bias for every displacement and head.

        bias_hij = table[i - j, h]

    Source: Raffel et al. 2020, arXiv:1910.10683, section 2.1, without its buckets; the B of
    Luo et al. 2022, arXiv:2205.13401.
    """

    def setup(self):
        """Makes the table."""
        shape = (table_size(self.span), self.heads)
        self.table = self.param("table", SMALL, shape, arrays.float_dtype())

    def bias(self, query: Array, key: Array) -> Array:
        """[1, heads, N, N]."""
        rows = table_index(self.between(query.shape[1]), self.span)
        return jnp.moveaxis(self.table[rows], -1, 0)[None]


class T5(Position):
    """A learned bias for buckets of displacements, finer near than far.

        bias_hij = table[bucket(i - j), h]

    Along several axes each has its buckets, and the table a row for each combination. Where
    attention is causal all buckets are for what is before.

    Attributes:
        buckets: how many a single axis has.
        reach: the displacement from which on all are one bucket.

    Source: Raffel et al. 2020, arXiv:1910.10683, section 2.1, and their code.
    """

    buckets: int = 32
    reach: int = 128

    def setup(self):
        """Makes the table."""
        shape = (self.buckets ** len(self.span), self.heads)
        self.table = self.param("table", SMALL, shape, arrays.float_dtype())

    def bias(self, query: Array, key: Array) -> Array:
        """[1, heads, N, N]."""
        between = self.between(query.shape[1])
        rows = bucket_index(between, self.buckets, self.reach, causal=self.causal)
        return jnp.moveaxis(self.table[rows], -1, 0)[None]


class ALiBi(Position):
    """A penalty that grows with distance, by a fixed slope for each head; nothing is learned.

        bias_hij = -slope_h sum_axes |i - j|

    Without a causal mask it looks both ways, as it does in encoders.

    Source: Press et al. 2022, arXiv:2108.12409, section 3.
    """

    def bias(self, query: Array, key: Array) -> Array:
        """[1, heads, N, N]."""
        far = np.sum(np.abs(self.between(query.shape[1])), axis=-1)
        return jnp.asarray(-slopes(self.heads)[:, None, None] * far, arrays.float_dtype())[None]


class Factor(Position):
    """URPE's Toeplitz factor: learned multiples of the weights, all one at the start.

        factor_hij = table[i - j, h]

    Rows of weights need no longer sum to one, so that attention can count: with equal scores and
    c = n for i >= j, 0 else, token i gets i times the value that all tokens share.

    Attributes:
        per_head: whether each head has its own; else all share one.
        buckets: None for a row for every displacement up to `span`, else T5's buckets.
        reach: T5's, of the buckets.

    Source: Luo et al. 2022, arXiv:2205.13401 (URPE).
    """

    per_head: bool = True
    buckets: int | None = None
    reach: int = 128

    def setup(self):
        """Makes the table."""
        single = self.buckets is None
        rows = table_size(self.span) if single else self.buckets ** len(self.span)
        shape = (rows, self.heads if self.per_head else 1)
        self.table = self.param("table", nn.initializers.ones, shape, arrays.float_dtype())

    def factor(self, tokens: int) -> Array:
        """[heads or 1, N, N]."""
        between = self.between(tokens)
        if self.buckets is None:
            rows = table_index(between, self.span)
        else:
            rows = bucket_index(between, self.buckets, self.reach)
        return jnp.moveaxis(self.table[rows], -1, 0)


def bucket(between: np.ndarray, buckets: int, reach: int, *, causal: bool = False) -> np.ndarray:
    """T5's buckets of displacements i - j.

    The first half of those of a direction are single displacements, the others grow in proportion
    to the distance up to `reach`. Without `causal` half are for j > i.

    Args:
        between: displacements, int.
        buckets: how many; at least 4, and even unless causal.
        reach: the distance from which on all are the last bucket.
        causal: whether j > i does not occur (it counts as 0).

    Raises:
        ValueError: too few buckets, or a reach within the single ones.

    Source: Raffel et al. 2020, arXiv:1910.10683, and their code.
    """
    own = buckets if causal else buckets // 2
    exact = own // 2
    if exact < 1 or (buckets % 2 and not causal):
        raise ValueError(f"buckets must be at least 4, and even where both ways, got {buckets}")
    if reach <= exact:
        raise ValueError(f"reach must be more than {exact} of {buckets} buckets, got {reach}")
    far = np.maximum(between, 0) if causal else np.abs(between)
    growth = np.log(np.maximum(far, 1) / exact) / math.log(reach / exact)
    large = exact + (growth * (own - exact)).astype(int)
    found = np.where(far < exact, far, np.minimum(large, own - 1))
    return found if causal else found + own * (between < 0)


def bucket_index(
    between: np.ndarray, buckets: int, reach: int, *, causal: bool = False
) -> np.ndarray:
    """Rows of a table with one for each combination of buckets, for displacements [..., axes]."""
    rows = np.zeros(between.shape[:-1], int)
    for axis in np.moveaxis(between, -1, 0):
        rows = rows * buckets + bucket(axis, buckets, reach, causal=causal)
    return rows


def slopes(heads: int) -> np.ndarray:
    """ALiBi's slopes, [heads].

        slope_h = 2**(-8 h / H),  h = 1..H

    where H is a power of two; else those of the power of two below, then every other one of the
    power above.

    Source: Press et al. 2022, arXiv:2108.12409, section 3, and their code.
    """
    power = 2 ** int(math.log2(heads))
    first = 2.0 ** (-8 * np.arange(1, power + 1) / power)
    between = 2.0 ** (-4 * np.arange(1, 2 * power + 1, 2) / power)
    return np.concatenate([first, between])[:heads]
