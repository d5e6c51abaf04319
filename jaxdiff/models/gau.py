"""The gated attention unit: one head of attention whose values are gated, in place of two layers.

u, v = silu(expand(h)) split;   z = silu(base(h));   q, k = gamma z + beta
out = contract(u * attend(q, k, v))
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jaxdiff import arrays
from jaxdiff.models import attention, layers, positions

__all__ = ["GAU", "GAUBlock"]


class GAU(nn.Module):
    """A gated attention unit.

    Attributes:
        expansion: the length of u and v as a multiple of a token's.
        inner: the length of queries and keys.
        position: how positions are told, None for not at all.
        normalise: a name of `attention.NORMALISE`; "relu2" as published.
        causal: whether tokens see only themselves and what is before them.
        bias: whether dense layers have one.
        dropout: the probability of a zero weight, in [0, 1); active if `train`.
        dtype: the compute dtype, None for float32.

    Source: Hua et al. 2022, arXiv:2202.10447, with relu^2; scores over sqrt(inner)
    and "softmax" as Su 2022, https://kexue.fm/archives/9019.
    """

    expansion: int = 2
    inner: int = 128
    position: positions.Position | None = None
    normalise: str = "relu2"
    causal: bool = False
    bias: bool = True
    dropout: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(self, h: Array, mask: Array | None = None, train: bool = False) -> Array:
        """[B, N, width] to the same."""
        width, how = h.shape[-1], {"bias": self.bias, "dtype": self.dtype}
        inside = nn.silu(layers.dense(2 * self.expansion * width, name="expand", **how)(h))
        gate, value = jnp.split(inside, 2, axis=-1)
        base = nn.silu(layers.dense(self.inner, name="base", **how)(h))
        query, key = (self._turned(base, name)[:, :, None] for name in ("query", "key"))
        attend = attention.Attend(
            self.position, self.normalise, self.causal, self.dropout, name="attend"
        )
        out = attend(query, key, value[:, :, None], mask, train)[:, :, 0]
        return layers.dense(width, name="contract", **how)(gate * out)

    def _turned(self, base: Array, name: str) -> Array:
        shape, dtype = (self.inner,), arrays.float_dtype()
        gamma = self.param(f"{name}_gamma", nn.initializers.ones, shape, dtype)
        beta = self.param(f"{name}_beta", layers.ZEROS, shape, dtype)
        gamma, beta = (a.astype(base.dtype)[None, None, :] for a in (gamma, beta))
        return base * gamma + beta


class GAUBlock(nn.Module):
    """A gated attention unit as a residual branch; two of them stand for a transformer's block.

    Attributes:
        expansion, inner, position, normalise, causal, bias, dropout, dtype: of the unit.
        norm: "pre" or "post", where the norm stands.
        epsilon: of the norm.
    """

    expansion: int = 2
    inner: int = 128
    position: positions.Position | None = None
    normalise: str = "relu2"
    causal: bool = False
    norm: str = "pre"
    epsilon: float = 1e-5
    bias: bool = True
    dropout: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        h: Array,
        mask: Array | None = None,
        memory: Array | None = None,
        memory_mask: Array | None = None,
        train: bool = False,
    ) -> Array:
        """Tokens [B, N, width] to tokens; there is no memory."""
        del memory, memory_mask
        unit = GAU(
            self.expansion, self.inner, self.position, self.normalise, self.causal, self.bias,
            self.dropout, self.dtype, name="gau",
        )  # fmt: skip
        norm = layers.layer_norm(epsilon=self.epsilon, dtype=self.dtype, name="norm_gau")
        drop = nn.Dropout(self.dropout, deterministic=not train)
        return layers.residual(h, lambda x: unit(x, mask, train), norm, drop, self.norm)
