"""What a relative position method may do to attention, and what displacements tokens have."""

import functools
import math
import operator

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

__all__ = ["Position", "Several", "displacements", "table_index", "table_size"]


class Position(nn.Module):
    """A relative position method; by itself it tells nothing. Each hook has a neutral default.

    Attributes:
        heads: of the attention that it is part of.
        dim: the length of a head's queries and keys.
        value_dim: that of its values, `dim` unless given.
        span: the largest displacement that is told from the next, along each axis of the grid;
            larger ones count as it.
        shape: the grid whose tokens, row by row, the sequence is; None for a sequence of one axis
            and any length.
        causal: whether tokens see only themselves and what is before them.
    """

    heads: int = 1
    dim: int = 0
    value_dim: int | None = None
    span: tuple[int, ...] = (1,)
    shape: tuple[int, ...] | None = None
    causal: bool = False

    on_values = False
    """Whether `values` adds to what is attended."""

    def rotate(self, h: Array) -> Array:
        """Queries or keys [B, N, heads, D], before their products."""
        return h

    def bias(self, query: Array, key: Array) -> Array | None:
        """What is added to the scaled scores, [B or 1, heads, N, N]."""
        del query, key
        return None

    def scale(self, dim: int) -> float | None:
        """The factor of the products of queries and keys of length `dim`; None for dim**-.5."""
        del dim
        return None

    def factor(self, tokens: int) -> Array | None:
        """What multiplies the weights, [heads or 1, N, N]."""
        del tokens
        return None

    def values(self, weights: Array) -> Array:
        """What is added to the attended values, of weights [B, heads, N, N]: [B, N, heads, D]."""
        del weights
        return jnp.zeros(())

    def between(self, tokens: int) -> np.ndarray:
        """`displacements` of so many tokens on the grid."""
        return displacements(tokens, self.shape, len(self.span))


class Several(Position):
    """Several methods at once: biases add, factors multiply.

    Attributes:
        parts: the methods; at most one may change the scale.
    """

    parts: tuple[Position, ...] = ()

    @property
    def on_values(self) -> bool:
        """Whether `values` adds to what is attended."""
        return any(part.on_values for part in self.parts)

    def rotate(self, h: Array) -> Array:
        """Rotated by each."""
        for part in self.parts:
            h = part.rotate(h)
        return h

    def bias(self, query: Array, key: Array) -> Array | None:
        """The sum of biases."""
        found = [b for b in (part.bias(query, key) for part in self.parts) if b is not None]
        return functools.reduce(operator.add, found) if found else None

    def scale(self, dim: int) -> float | None:
        """That of the part that changes it."""
        found = [s for s in (part.scale(dim) for part in self.parts) if s is not None]
        if len(found) > 1:
            raise ValueError("positions: two parts want scales of their own")
        return found[0] if found else None

    def factor(self, tokens: int) -> Array | None:
        """The product of factors."""
        found = [c for c in (part.factor(tokens) for part in self.parts) if c is not None]
        return functools.reduce(operator.mul, found) if found else None

    def values(self, weights: Array) -> Array:
        """The sum of what is added to values."""
        found = [part.values(weights) for part in self.parts if part.on_values]
        return functools.reduce(operator.add, found, jnp.zeros(()))


def displacements(tokens: int, shape: tuple[int, ...] | None, axes: int = 1) -> np.ndarray:
    """How far each token is from each other one, along each axis.

        d_ij = place_i - place_j

    Args:
        tokens: how many, N.
        shape: the grid that they fill row by row; None for a sequence.
        axes: how many axes the method was made for.

    Returns:
        [N, N, axes], int, no traced array: it depends on shapes alone.

    Raises:
        ValueError: a grid of another number of tokens or axes.
    """
    shape = (tokens,) if shape is None else shape
    if len(shape) != axes or np.prod(shape) != tokens:
        raise ValueError(
            f"shape must hold the {tokens} tokens along {axes} axes, got {tuple(shape)}"
        )
    places = np.stack(np.unravel_index(np.arange(tokens), shape), axis=-1)
    return places[:, None] - places[None, :]


def table_size(span: tuple[int, ...]) -> int:
    """How many rows a table of displacements up to `span` has."""
    return math.prod(2 * most + 1 for most in span)


def table_index(between: np.ndarray, span: tuple[int, ...]) -> np.ndarray:
    """Rows of that table for displacements [..., axes], clipped to `span`.

    With one axis row d + span is of displacement d; further axes run faster.
    """
    limits = np.asarray(span)
    clipped = np.clip(between, -limits, limits) + limits
    return np.ravel_multi_index(tuple(np.moveaxis(clipped, -1, 0)), tuple(2 * limits + 1))
