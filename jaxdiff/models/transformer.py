"""Transformers on tokens: an encoder, a causal decoder, one with a memory, and both in a pair.

    h = embedding(tokens) + absolute positions
    h <- h + attention(norm(h));  h <- h + perceptron(norm(h))         depth times ("pre")
    h <- norm(h + attention(h));  h <- norm(h + perceptron(h))         depth times ("post")

How tokens know their places is a name: see `positions`.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jaxdiff import arrays
from jaxdiff.models import attention, layers, positions, precision
from jaxdiff.models.gau import GAUBlock

__all__ = ["ACTIVATIONS", "BLOCKS", "Block", "EncoderDecoder", "Perceptron", "Transformer"]

ACTIVATIONS = {
    "gelu": lambda h: jax.nn.gelu(h, approximate=False),
    "gelu_tanh": jax.nn.gelu,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}
"""By name; "gelu" is exact, as BERT has it."""


class Perceptron(nn.Module):
    """The layer of each token by itself: contract(activation(expand(h))).

    Attributes:
        hidden: the length in between.
        activation: a name of `ACTIVATIONS`.
        bias: whether the dense layers have one.
        dtype: the compute dtype, None for float32.
    """

    hidden: int
    activation: str = "gelu"
    bias: bool = True
    dtype: Any = None

    @nn.compact
    def __call__(self, h: Array) -> Array:
        """[B, N, width] to the same."""
        how = {"bias": self.bias, "dtype": self.dtype}
        inside = ACTIVATIONS[self.activation](layers.dense(self.hidden, name="expand", **how)(h))
        return layers.dense(h.shape[-1], name="contract", **how)(inside)


class Block(nn.Module):
    """Attention, attention to a memory where there is one, and a perceptron.

    Attributes:
        heads, inner, position, normalise, causal, bias, dropout, dtype: of the attention.
        hidden, activation: of the perceptron.
        norm: "pre" or "post", where norms stand.
        epsilon: of the norms.
        cross: whether there is attention to a memory.
    """

    heads: int
    hidden: int
    inner: int | None = None
    position: positions.Position | None = None
    normalise: str = "softmax"
    causal: bool = False
    activation: str = "gelu"
    norm: str = "pre"
    epsilon: float = 1e-5
    bias: bool = True
    cross: bool = False
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
        """Tokens [B, N, width] to tokens."""
        common = {"heads": self.heads, "inner": self.inner, "bias": self.bias}
        common |= {"dropout": self.dropout, "dtype": self.dtype}
        own = attention.Attention(
            position=self.position, normalise=self.normalise, causal=self.causal,
            name="attention", **common,
        )  # fmt: skip
        h = self._branch(h, lambda x: own(x, mask=mask, train=train), "attention", train)
        if self.cross:
            other = attention.Attention(name="cross", **common)
            h = self._branch(h, lambda x: other(x, memory, memory_mask, train), "cross", train)
        last = Perceptron(self.hidden, self.activation, self.bias, self.dtype, name="perceptron")
        return self._branch(h, last, "perceptron", train)

    def _branch(self, h: Array, branch: Any, name: str, train: bool) -> Array:
        norm = layers.layer_norm(epsilon=self.epsilon, dtype=self.dtype, name=f"norm_{name}")
        drop = nn.Dropout(self.dropout, deterministic=not train)
        return layers.residual(h, branch, norm, drop, self.norm)


BLOCKS = {"attention": Block, "gau": GAUBlock}


class Transformer(nn.Module):
    """A stack of blocks on tokens, with a last layer where `out` asks for one.

    Modules "tokens", "types", "positions", "norm_in", "block_0", ..., "norm_out", "out". Equal
    fields make equal modules.

    Attributes:
        vocab: how many tokens there are; None where vectors [B, N, any] are given instead, which a
            dense layer "tokens" takes in.
        width: the length of a token inside.
        depth: the number of blocks.
        heads: the number of attention heads.
        hidden: of the perceptrons, 4 width unless given.
        inner: of all heads together, `width` unless given.
        length: the longest sequence that positions tell apart, with prefix and boundary: beyond it
            learned absolute ones are an error and relative ones count as the farthest.
        positions: a name of `positions.NAMES`, or a sum such as "learned+factor".
        shared: whether all blocks have one relative position module, else each its own.
        block: "attention", or "gau", gated attention units in place of both layers.
        normalise: of scores, a name of `attention.NORMALISE`.
        causal: whether tokens see only themselves and what is before them.
        boundary: whether a learned token is put before and one after; they are taken off again.
        types: how many kinds of token there are besides, 0 for none.
        norm: "pre" or "post": where norms stand; "post" has one on the embeddings too, "pre" one
            at the end.
        activation: of the perceptrons.
        epsilon: of the norms.
        bias: whether dense layers have one.
        cross: whether blocks attend to a memory.
        out: the length of the output, None for the tokens as they are.
        dropout: the probability of a zero, in [0, 1); active if `train`.
        dtype: the compute dtype, None for float32; the output is float32.
        remat: whether blocks are recomputed on the way back instead of stored.

    Source: Vaswani et al. 2017, arXiv:1706.03762; "post" as Devlin et al. 2019, arXiv:1810.04805.
    """

    vocab: int | None
    width: int = 256
    depth: int = 6
    heads: int = 4
    hidden: int | None = None
    inner: int | None = None
    length: int = 512
    positions: str = "learned"
    shared: bool = True
    block: str = "attention"
    normalise: str = "softmax"
    causal: bool = False
    boundary: bool = False
    types: int = 0
    norm: str = "pre"
    activation: str = "gelu"
    epsilon: float = 1e-5
    bias: bool = True
    cross: bool = False
    out: int | None = None
    dropout: float = 0.0
    dtype: Any = None
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        tokens: Array,
        mask: Array | None = None,
        *,
        types: Array | None = None,
        prefix: Array | None = None,
        memory: Array | None = None,
        memory_mask: Array | None = None,
        train: bool = False,
    ) -> Array:
        """Tokens to vectors.

        Args:
            tokens: int [B, N] in 0..vocab-1, others give NaN; float [B, N, any] if vocab is None.
            mask: bool [B, N], True where there is a token and not padding, or [B, N, N].
            types: int [B, N] in 0..types-1, others give NaN; 0 unless given.
            prefix: [P, width], vectors put before the tokens and taken off at the end.
            memory: [B, M, any], where `cross`.
            memory_mask: bool [B, M], likewise.
            train: whether dropout is active (RNG collection "dropout").

        Returns:
            [B, N, out or width], float32.

        Raises:
            ValueError: fields or inputs that do not fit together, before anything is computed.
        """
        _check(self, tokens, mask, memory)
        _check_added(self, tokens, types, prefix)
        h = self._embedded(tokens, types)
        before = 0 if prefix is None else prefix.shape[0]
        if prefix is not None:
            h = jnp.concatenate([_rows(prefix, h), h], axis=1)
        if self.boundary:
            ends = self.param("boundary", positions.SMALL, (2, self.width), arrays.float_dtype())
            h = jnp.concatenate([_rows(ends[:1], h), h, _rows(ends[1:], h)], axis=1)
        after = int(self.boundary)
        mask = _widened(mask, before + after, after)
        place = positions.absolute(self.positions, (self.length,), "positions")
        if place is not None:
            h = h + place((h.shape[1],), self.width).astype(h.dtype)
        if self.norm == "post":
            h = layers.layer_norm(epsilon=self.epsilon, dtype=self.dtype, name="norm_in")(h)
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        h = self._blocks(h, mask, memory, memory_mask, train)
        if self.norm == "pre":
            h = layers.layer_norm(epsilon=self.epsilon, dtype=self.dtype, name="norm_out")(h)
        h = h[:, before + after : h.shape[1] - after]
        if self.out is not None:
            h = layers.dense(self.out, dtype=self.dtype, name="out")(h)
        return precision.output(h)

    def _embedded(self, tokens: Array, types: Array | None) -> Array:
        dtype = arrays.float_dtype()
        if self.vocab is None:
            h = layers.dense(self.width, dtype=self.dtype, name="tokens")(tokens)
        else:
            table = nn.Embed(
                self.vocab, self.width, embedding_init=positions.SMALL, param_dtype=dtype,
                name="tokens",
            )  # fmt: skip
            h = table(_held(tokens, self.vocab))
        if self.types:
            kinds = jnp.zeros(h.shape[:2], int) if types is None else types
            how = {"embedding_init": positions.SMALL, "param_dtype": dtype, "name": "types"}
            h = h + nn.Embed(self.types, self.width, **how)(_held(kinds, self.types))
        return h if self.dtype is None else h.astype(self.dtype)

    def _blocks(
        self,
        h: Array,
        mask: Array | None,
        memory: Array | None,
        memory_mask: Array | None,
        train: bool,
    ) -> Array:
        sizes = {"heads": self.heads, "dim": (self.inner or self.width) // self.heads}
        if self.block == "gau":
            sizes = {"heads": 1, "dim": GAUBlock.inner}
            sizes["value_dim"] = GAUBlock.expansion * self.width

        def make(name: str) -> positions.Position | None:
            span = (max(1, self.length - 1),)
            how = {"span": span, "causal": self.causal, "module": name}
            return positions.relative(self.positions, **sizes, **how)

        kind = BLOCKS[self.block]
        kind = nn.remat(kind, static_argnums=(5,)) if self.remat else kind
        common = make("relative") if self.shared else None
        how = {"normalise": self.normalise, "causal": self.causal, "epsilon": self.epsilon}
        how |= {"norm": self.norm, "bias": self.bias, "dropout": self.dropout, "dtype": self.dtype}
        hidden = 4 * self.width if self.hidden is None else self.hidden
        if self.block == "attention":
            how |= {"heads": self.heads, "inner": self.inner, "hidden": hidden}
            how |= {"activation": self.activation, "cross": self.cross}
        for i in range(self.depth):
            own = common if self.shared else make(f"relative_{i}")
            h = kind(position=own, name=f"block_{i}", **how)(h, mask, memory, memory_mask, train)
        return h


class EncoderDecoder(nn.Module):
    """A sequence to a sequence: the decoder sees what it has written, and the encoder's output.

    Attributes:
        encoder: a transformer that is not causal.
        decoder: one that is, with `cross`.
    """

    encoder: Transformer
    decoder: Transformer

    def __call__(
        self, source: Array, target: Array, mask: Array | None = None, *, train: bool = False
    ) -> Array:
        """[B, M] and the tokens so far [B, N], with the source's mask [B, M], to [B, N, out]."""
        memory = self.encoder(source, mask, train=train)
        return self.decoder(target, memory=memory, memory_mask=mask, train=train)


def _held(index: Array, count: int) -> Array:
    """Rows of a table; a wrong one is past it, which is NaN by take's fill mode: none must pass."""
    return jnp.where((index >= 0) & (index < count), index, count)


def _rows(vectors: Array, h: Array) -> Array:
    """[P, width] for each example of `h`."""
    return jnp.broadcast_to(vectors.astype(h.dtype), (h.shape[0], *vectors.shape))


def _widened(mask: Array | None, before: int, after: int) -> Array | None:
    """The mask, where tokens that are always there come before and after."""
    if mask is None or not before + after:
        return mask
    sides = [(0, 0)] + [(before, after)] * (mask.ndim - 1)
    return jnp.pad(mask, sides, constant_values=True)


def _check(net: Transformer, tokens: Array, mask: Array | None, memory: Array | None) -> None:
    """Raises ValueError unless fields and inputs fit together."""
    precision.check(net.dtype)
    known = {"block": BLOCKS, "norm": ("pre", "post"), "activation": ACTIVATIONS}
    for name, names in {**known, "normalise": attention.NORMALISE}.items():
        if getattr(net, name) not in names:
            raise ValueError(f"{name} must be one of {', '.join(names)}, got {getattr(net, name)}")
    positions.split(net.positions)
    for name in ("vocab", "width", "hidden", "inner", "length", "out"):
        if getattr(net, name) is not None:
            arrays.check_count(name, getattr(net, name))
    if net.heads < 1 or (net.inner or net.width) % net.heads:
        raise ValueError(
            f"heads={net.heads} must divide {'width' if net.inner is None else 'inner'}"
            f"={net.inner or net.width}"
        )
    if not 0 <= net.dropout < 1:
        raise ValueError(f"dropout must lie in [0, 1), got {net.dropout}")
    if net.cross and net.block == "gau":
        raise ValueError("cross=True needs block='attention': gated units have no memory")
    if net.cross != (memory is not None):
        raise ValueError(f"memory must be given where cross is True only, cross={net.cross}")
    whole = net.vocab is not None
    wanted = "int [B, N]" if whole else "float [B, N, any]"
    fits = tokens.ndim == (2 if whole else 3)
    if not fits or jnp.issubdtype(tokens.dtype, jnp.integer) != whole:
        raise ValueError(f"tokens must be {wanted}, got {tokens.dtype} {list(tokens.shape)}")
    if mask is not None and mask.shape[:2] != tokens.shape[:2]:
        raise ValueError(f"mask must begin as tokens {list(tokens.shape[:2])}, got {mask.shape}")


def _check_added(net: Any, tokens: Array, types: Array | None, prefix: Array | None) -> None:
    batch, wanted = list(tokens.shape[:2]), "where types > 0"
    if types is not None and not (net.types and list(types.shape) == batch):
        raise ValueError(f"types must be {batch} {wanted}, got {list(types.shape)} of {net.types}")
    if prefix is not None and (prefix.ndim != 2 or prefix.shape[1] != net.width):
        raise ValueError(f"prefix must be [P, {net.width}], got {list(prefix.shape)}")
