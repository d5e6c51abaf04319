"""Attention, in one place: softmax and its alternatives, masks, and where positions come in.

    b_ij = query_i . key_j / sqrt(D) + bias_ij
    out_i = sum_j factor_ij a_ij value_j,       a = normalise(b), 0 where masked

`positions` says what `bias` and `factor` may be. Rows of a softmax sum to one, so that on identical
tokens no bias can be seen in the output: `factor`, and each of the other normalisations together
with a relative bias, undoes that.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jaxdiff.models import layers, precision
from jaxdiff.models.positions import Position

__all__ = [
    "NORMALISE",
    "Attend",
    "Attention",
    "attend",
    "combine",
    "weigh",
]


def _softmax(b: Array, mask: Array) -> Array:
    return jax.nn.softmax(b, axis=-1, where=mask)


def _exp(b: Array, mask: Array) -> Array:
    return jnp.where(mask, jnp.exp(jnp.where(mask, b, 0)), 0) / _count(mask)


def _l2(b: Array, mask: Array) -> Array:
    top = jax.lax.stop_gradient(jnp.max(b, axis=-1, keepdims=True, initial=-1e30, where=mask))
    a = jnp.exp(jnp.where(mask, b - top, -jnp.inf))
    return _unit(a)


def _swish_l2(b: Array, mask: Array) -> Array:
    return _unit(jnp.where(mask, nn.silu(b), 0))


def _relu2(b: Array, mask: Array) -> Array:
    return jnp.where(mask, nn.relu(b) ** 2, 0) / _count(mask)


def _unit(a: Array) -> Array:
    """Rows of length one; those shorter than 1e-6 stay short, or their slopes would be infinite."""
    return a * jax.lax.rsqrt(jnp.sum(a**2, axis=-1, keepdims=True) + 1e-12)


def _count(mask: Array) -> Array:
    return jnp.maximum(jnp.sum(mask, axis=-1, keepdims=True), 1)


NORMALISE = {
    "softmax": _softmax,
    "exp": _exp,
    "l2": _l2,
    "swish_l2": _swish_l2,
    "relu2": _relu2,
}
"""From scores to weights, by name; n is how many keys a query may see.

    softmax     exp(b) / sum exp(b)
    exp         exp(b) / n: no denominator; beyond b = 88 it is infinite in float32
    l2          exp(b) / sqrt(sum exp(2 b))
    swish_l2    silu(b) / sqrt(sum silu(b)^2 + 1e-12)
    relu2       relu(b)^2 / n

Source: all but the first: Su 2022, https://kexue.fm/archives/9105; relu2: Hua et al. 2022,
arXiv:2202.10447.
"""


_einsum = functools.partial(jnp.einsum, precision=precision.EXACT)  # of float32 alone


@jax.custom_jvp
def _products(query: Array, key: Array) -> Array:
    """query_i . key_j, never in half precision; its slopes are products of the queries' own type.

    The transpose of a product of bfloat16 that is given in float32 would multiply the two types.
    """
    wide = jnp.promote_types(query.dtype, jnp.float32)
    return _einsum("bnhd,bmhd->bhnm", query, key, preferred_element_type=wide)


@_products.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (query, key), (by_query, by_key) = primals, tangents
    out = _products(query, key)
    slope = _einsum("bnhd,bmhd->bhnm", by_query, key) + _einsum("bnhd,bmhd->bhnm", query, by_key)
    return out, slope.astype(out.dtype)


def weigh(
    query: Array,
    key: Array,
    *,
    bias: Array | None = None,
    mask: Array | None = None,
    scale: float | None = None,
    normalise: str = "softmax",
) -> Array:
    """The weights of keys for each query.

        a_ij = normalise_j(scale query_i . key_j + bias_ij)

    Args:
        query: [B, N, heads, D].
        key: [B, M, heads, D].
        bias: added to the scores; broadcasts to [B, heads, N, M].
        mask: bool, True where a query may see a key; broadcasts likewise.
        scale: of the scores, 1 / sqrt(D) unless given.
        normalise: a name of `NORMALISE`.

    Returns:
        [B, heads, N, M], never in half precision; rows that may see nothing are 0.

    Raises:
        ValueError: an unknown name, or a mask that is not bool.
    """
    if normalise not in NORMALISE:
        raise ValueError(f"normalise must be one of {', '.join(NORMALISE)}, got {normalise!r}")
    scores = _products(query, key) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if bias is not None:
        scores = scores + bias.astype(scores.dtype)
    seen = jnp.ones((1, 1, 1, 1), bool) if mask is None else mask
    if seen.dtype != bool:  # -inf of a mask to be added would count as True
        raise ValueError(f"mask must be bool, got {seen.dtype}")
    return NORMALISE[normalise](scores, jnp.broadcast_to(seen, scores.shape))


def combine(weights: Array, value: Array) -> Array:
    """sum_j weights_ij value_j: [B, heads, N, M] and [B, M, heads, D] to [B, N, heads, D]."""
    return _einsum("bhnm,bmhd->bnhd", weights.astype(value.dtype), value)


def attend(
    query: Array,
    key: Array,
    value: Array,
    *,
    bias: Array | None = None,
    mask: Array | None = None,
    factor: Array | None = None,
    scale: float | None = None,
    normalise: str = "softmax",
    implementation: str | None = None,
) -> Array:
    """Attention.

        out_i = sum_j factor_ij normalise_j(scale query_i . key_j + bias_ij) value_j

    A softmax without a factor, of values as long as keys, is `jax.nn.dot_product_attention`, in
    float32 or by "cudnn". Elsewhere [B, heads, N, M] weights are held in memory.

    Args:
        query, key, bias, mask, scale, normalise: as `weigh` has them.
        value: [B, M, heads, any].
        factor: multiplies the weights; broadcasts to [B, heads, N, M].
        implementation: "xla" or "cudnn", of `jax.nn.dot_product_attention`.

    Returns:
        [B, N, heads, any], in the dtype of `value`; the softmax is never in half precision, and
        queries that may see no key get 0.

    Source: Vaswani et al. 2017, arXiv:1706.03762, eq. 1; the factor: Luo et al. 2022,
    arXiv:2205.13401.
    """
    # XLA's form is none of float64, cannot be compiled for a CPU in float16, and on the way back
    # multiplies float32 by bfloat16.
    fused = implementation == "cudnn" or value.dtype == jnp.float32
    alike = query.dtype == key.dtype == value.dtype and value.shape[-1] == key.shape[-1]
    if normalise == "softmax" and factor is None and fused and alike:
        with jax.default_matmul_precision("highest"):  # of float32 alone: see `precision`
            out = jax.nn.dot_product_attention(
                query,
                key,
                value,
                bias=None if bias is None else _four(bias),
                mask=None if mask is None else _four(mask),
                scale=scale,
                implementation=implementation,
            )
        if mask is None:
            return out
        anything = jnp.any(_four(mask), axis=-1)  # [., ., N]: dot_product_attention would average
        return jnp.where(jnp.moveaxis(anything, 1, 2)[..., None], out, 0)
    weights = weigh(query, key, bias=bias, mask=mask, scale=scale, normalise=normalise)
    return combine(weights if factor is None else weights * _four(factor), value)


def _four(a: Array) -> Array:
    """With four axes, the first of length 1 where they are new."""
    return a.reshape((1,) * (4 - a.ndim) + a.shape)


class Attend(nn.Module):
    """Attention of given queries, keys and values, with positions, masks and dropout.

    Nothing is learned but by `position`. A mutable collection "attention", if there is one,
    receives the weights [B, heads, N, M] after every factor, as "weights".

    Attributes:
        position: how positions are told, None for not at all.
        normalise: a name of `NORMALISE`.
        causal: whether tokens see only themselves and what is before them.
        dropout: the probability that a weight is zero, in [0, 1); active if `train`.
        implementation: of the fused form, as `attend` has it.
    """

    position: Position | None = None
    normalise: str = "softmax"
    causal: bool = False
    dropout: float = 0.0
    implementation: str | None = None

    @nn.compact
    def __call__(
        self, query: Array, key: Array, value: Array, mask: Array | None, train: bool = False
    ) -> Array:
        """[B, N, heads, D], twice [B, M, heads, .] and a mask to [B, N, heads, .]."""
        seen = _visible(mask, (query.shape[0], query.shape[1], key.shape[1]), self.causal)
        position = Position() if self.position is None else self.position
        query, key = position.rotate(query), position.rotate(key)
        factor = position.factor(query.shape[1])
        how = {"bias": position.bias(query, key), "mask": seen, "normalise": self.normalise}
        how["scale"] = position.scale(query.shape[-1])
        told = self.is_mutable_collection("attention") and not self.is_initializing()
        dropped = train and self.dropout > 0
        if not (position.on_values or dropped or told):
            more = {"factor": factor, "implementation": self.implementation}
            return attend(query, key, value, **how, **more)
        weights = weigh(query, key, **how)
        weights = weights if factor is None else weights * _four(factor)
        if told:
            self.sow("attention", "weights", weights)
        weights = nn.Dropout(self.dropout, deterministic=not train)(weights)
        return combine(weights, value) + position.values(weights).astype(value.dtype)


class Attention(nn.Module):
    """Multi-head attention of tokens to one another, or to a memory.

    Modules "query", "key", "value", "out" are dense layers, "attend" is what `Attend` is.

    Attributes:
        heads: the number of heads.
        inner: the length of all heads' queries together, that of a token unless given; must divide
            by `heads`.
        position, normalise, causal, dropout, implementation: as `Attend` has them; tokens that
            attend to a memory have no positions.
        bias: whether the dense layers have one.
        dtype: the compute dtype, None for float32.
    """

    heads: int
    inner: int | None = None
    position: Position | None = None
    normalise: str = "softmax"
    causal: bool = False
    bias: bool = True
    dropout: float = 0.0
    implementation: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        h: Array,
        memory: Array | None = None,
        mask: Array | None = None,
        train: bool = False,
    ) -> Array:
        """Tokens to tokens.

        Args:
            h: [B, N, width].
            memory: [B, M, any], what is attended to; `h` itself unless given.
            mask: bool, [B, M] where the keys are tokens, or [B, N, M] where they may be seen.
            train: whether dropout is active (RNG collection "dropout").

        Returns:
            [B, N, width].

        Raises:
            ValueError: widths that do not divide, a mask of another shape.
        """
        width, memory = h.shape[-1], h if memory is None else memory
        inner = width if self.inner is None else self.inner
        if self.heads < 1 or inner % self.heads:
            raise ValueError(f"heads must divide the inner width {inner}, got {self.heads}")

        def split(x: Array, name: str) -> Array:
            dense = layers.dense(inner, bias=self.bias, dtype=self.dtype, name=name)
            return dense(x).reshape(*x.shape[:-1], self.heads, inner // self.heads)

        query, key, value = split(h, "query"), split(memory, "key"), split(memory, "value")
        how = (self.position, self.normalise, self.causal, self.dropout, self.implementation)
        out = Attend(*how, name="attend")(query, key, value, mask, train)
        out = out.reshape(*h.shape[:-1], inner)
        return layers.dense(width, bias=self.bias, dtype=self.dtype, name="out")(out)


def _visible(mask: Array | None, shape: tuple[int, int, int], causal: bool) -> Array | None:
    """[B or 1, 1, N or 1, M], of a mask [B, M] or [B, N, M]; None where all is seen."""
    batch, queries, keys = shape
    seen = None
    if mask is not None:
        mask = jnp.asarray(mask)
        if mask.dtype != bool or mask.shape not in ((batch, keys), shape):
            raise ValueError(
                f"mask must be bool [{batch}, {keys}] or {list(shape)}, got {mask.dtype}"
                f" {list(mask.shape)}"
            )
        seen = mask[:, None, None, :] if mask.ndim == 2 else mask[:, None]
    if causal:
        below = jnp.tril(jnp.ones((queries, keys), bool), keys - queries)[None, None]
        seen = below if seen is None else seen & below
    return seen
