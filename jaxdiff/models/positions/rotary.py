"""Rotary positions: products of queries and keys that depend on displacements, by rotation."""

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.models.positions.base import Position

__all__ = ["Rotary", "rotated"]


class Rotary(Position):
    """Queries and keys turned by angles in proportion to their places.

        q_i -> R(i) q_i,  k_j -> R(j) k_j,    so that  q_i . k_j -> q_i . R(j - i) k_j

    On a grid of several axes each axis turns its own part of a head.

    Attributes:
        period: 2 pi times this is about the longest wavelength.

    Source: Su et al. 2021, arXiv:2104.09864, eq. 15 and 34.
    """

    period: float = 10_000.0

    def rotate(self, h: Array) -> Array:
        """[B, N, heads, D] turned; D must divide by twice the number of axes."""
        tokens, dim, axes = h.shape[1], h.shape[-1], len(self.span)
        if dim % (2 * axes):
            raise ValueError(f"rotary positions on {axes} axes need heads of a length divisible by"
                             f" {2 * axes}, got {dim}")  # fmt: skip
        own = dim // axes
        places = self.between(tokens)[:, 0]
        parts = [
            rotated(h[..., axis * own : (axis + 1) * own], places[:, axis], self.period)
            for axis in range(axes)
        ]
        return jnp.concatenate(parts, axis=-1)


def rotated(h: Array, places: np.ndarray, period: float = 10_000.0) -> Array:
    """Neighbouring features as points of a plane, turned.

        (h_2m, h_2m+1) -> turned by place * period**(-2m / D)

    Args:
        h: [B, N, heads, D], D even.
        places: [N].
        period: as `Rotary` has it.
    """
    dim, wide = h.shape[-1], jnp.promote_types(h.dtype, jnp.float32)
    angles = places[:, None] * period ** (-np.arange(0, dim, 2) / dim)
    cos, sin = (
        jnp.asarray(f(angles), arrays.float_dtype())[None, :, None, :] for f in (np.cos, np.sin)
    )
    even, odd = (h[..., start::2].astype(wide) for start in (0, 1))
    turned = jnp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1)
    return turned.reshape(h.shape).astype(h.dtype)
