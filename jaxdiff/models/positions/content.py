"""Position methods that ask what a token is as well: vectors for displacements."""

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.models import embeddings, layers, precision
from jaxdiff.models.positions.base import Position, table_index, table_size
from jaxdiff.models.positions.tables import SMALL

__all__ = ["XL", "DeBERTa", "Shaw"]


def _ask(query: Array, vectors: Array, rows: np.ndarray) -> Array:
    """query_i . vectors[rows_ij]: [B, N, h, D] and [R, h, D] to [B, h, N, N], a product a row."""
    wide = jnp.promote_types(query.dtype, jnp.float32)
    products = jnp.einsum(
        "bnhd,rhd->bhnr", query, vectors, precision=precision.EXACT, preferred_element_type=wide
    )
    index = jnp.broadcast_to(jnp.asarray(rows), (*products.shape[:3], rows.shape[-1]))
    return jnp.take_along_axis(products, index, axis=-1)


class Shaw(Position):
    """Learned vectors for displacements, added to keys and to values; all heads share them.

        b_ij = q_i . (k_j + K[i - j]) / sqrt(D)
        out_i = sum_j a_ij (v_j + V[i - j])

    What is added to values tells positions even of identical tokens.

    Source: Shaw et al. 2018, arXiv:1803.02155, eq. 3 and 4.
    """

    on_values = True

    def setup(self):
        """Makes the tables."""
        rows, dtype = table_size(self.span), arrays.float_dtype()
        value_dim = self.dim if self.value_dim is None else self.value_dim
        self.keys = self.param("keys", SMALL, (rows, self.dim), dtype)
        self.vectors = self.param("values", SMALL, (rows, value_dim), dtype)

    def bias(self, query: Array, key: Array) -> Array:
        """[B, heads, N, N]."""
        rows = table_index(self.between(query.shape[1]), self.span)
        vectors = jnp.repeat(self.keys[:, None], self.heads, axis=1).astype(query.dtype)
        return _ask(query, vectors, rows) * query.shape[-1] ** -0.5

    def values(self, weights: Array) -> Array:
        """sum_j a_ij V[i - j]: [B, N, heads, D]."""
        rows = table_index(self.between(weights.shape[-1]), self.span)
        return jnp.einsum("bhnm,nmd->bnhd", weights, self.vectors[rows].astype(weights.dtype))


class XL(Position):
    """Transformer-XL: sines of the displacement, projected, and a bias for each kind of question.

        b_ij = ((q_i + u) . k_j + (q_i + v) . W_r waves(i - j)) / sqrt(D)

    Source: Dai et al. 2019, arXiv:1901.02860, section 3.3.
    """

    def setup(self):
        """Makes u, v and W_r."""
        shape, dtype = (self.heads, self.dim), arrays.float_dtype()
        self.u = self.param("u", SMALL, shape, dtype)
        self.v = self.param("v", SMALL, shape, dtype)
        self.project = layers.exact_dense(self.heads * self.dim, bias=False)

    def bias(self, query: Array, key: Array) -> Array:
        """[B, heads, N, N]."""
        tokens, own = query.shape[1], max(4, self.heads * self.dim // len(self.span))
        between = self.between(tokens)
        known = np.unique(between.reshape(-1, between.shape[-1]), axis=0)
        limits = tuple(np.abs(known).max(axis=0))
        rows = np.zeros(table_size(limits), int)
        rows[table_index(known, limits)] = np.arange(len(known))
        waves = [embeddings.sinusoidal(jnp.asarray(axis), own, endpoint=False) for axis in known.T]
        vectors = self.project(jnp.concatenate(waves, axis=-1))
        vectors = vectors.reshape(-1, self.heads, self.dim).astype(query.dtype)
        where = rows[table_index(between, limits)]
        asked = _ask(query + self.v[None, None].astype(query.dtype), vectors, where)
        wide = jnp.promote_types(key.dtype, jnp.float32)
        liked = jnp.einsum("hd,bmhd->bhm", self.u.astype(wide), key.astype(wide))
        return (asked + liked[:, :, None, :]) * query.shape[-1] ** -0.5


class DeBERTa(Position):
    """Disentangled attention: content to position and position to content.

        b_ij = (q_i . k_j + q_i . W_k P[i - j] + k_j . W_q P[j - i]) / sqrt(3 D)

    P is one table of vectors as long as a token, and W_q, W_k are projections of their own.

    Source: He et al. 2021, arXiv:2006.03654, eq. 4; displacements clipped to +-span, where theirs
    lie in [-span, span). Their code has P[i - j] in the last term as well.
    """

    def setup(self):
        """Makes P, W_q and W_k."""
        width = self.heads * self.dim
        self.table = self.param(
            "table", SMALL, (table_size(self.span), width), arrays.float_dtype()
        )
        self.to_key = layers.exact_dense(width, bias=False)
        self.to_query = layers.exact_dense(width, bias=False)

    def scale(self, dim: int) -> float:
        """1 / sqrt(3 D): three products make up a score."""
        return (3 * dim) ** -0.5

    def bias(self, query: Array, key: Array) -> Array:
        """[B, heads, N, N]."""
        between = self.between(query.shape[1])
        keys, queries = (
            project(self.table).reshape(-1, self.heads, self.dim).astype(query.dtype)
            for project in (self.to_key, self.to_query)
        )
        rows = table_index(between, self.span)
        asked = _ask(query, keys, rows)
        told = _ask(key, queries, rows)  # [B, h, j, i] of j - i
        return (asked + jnp.swapaxes(told, -1, -2)) * self.scale(query.shape[-1])
