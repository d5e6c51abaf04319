"""A residual multilayer perceptron for vectors: two-dimensional toys, tables, latents."""

from typing import Any

import flax.linen as nn
from jax import Array

from jaxdiff.models import embeddings, layers, precision

__all__ = ["MLP"]


class MLP(nn.Module):
    """A residual MLP on [B, D], conditioned on time, labels and free vectors.

        h = dense(x)
        h <- h + dense_0(dropout(silu(dense(norm(h)) + dense(silu(emb)))))    depth times
        y = dense_0(silu(norm(h)))

    Layers marked 0 start as zero, so the untrained network returns exactly 0.

    Attributes:
        width: the width of every layer.
        depth: the number of residual blocks.
        out_channels: the length of the output, None for that of the input.
        embedding: the time embedding, "sinusoidal" (time features of some hundreds) or "fourier"
            (of order one).
        num_classes: the number of classes, 0 for none; label -1 is the null label.
        cond_dim: the length of a free conditioning vector, 0 for none; zeros are the null vector
            and stand for a vector left out.
        dropout: the probability of a zero in a block, in [0, 1); active if `train`.
        dtype: the compute dtype, such as "bfloat16"; None for float32.
    """

    width: int = 128
    depth: int = 3
    out_channels: int | None = None
    embedding: str = "sinusoidal"
    num_classes: int = 0
    cond_dim: int = 0
    dropout: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Array, t: Array, cond: embeddings.Cond = None, *, train: bool = False
    ) -> Array:
        """The network's output for `x` at time features `t`.

        Args:
            x: [B, D], float.
            t: [B], the time feature.
            cond: int labels [B], float vectors [B, cond_dim], {"label": ..., "vector": ...} where
                the network takes both, None where it takes neither.
            train: whether dropout is active (RNG collection "dropout").

        Returns:
            [B, out_channels], float32.

        Raises:
            ValueError: if a field or an input does not fit, before any compile.
        """
        cond = embeddings.completed(x, cond, self.num_classes, self.cond_dim)
        embeddings.check_inputs(
            x,
            t,
            cond,
            rank=2,
            embedding=self.embedding,
            num_classes=self.num_classes,
            cond_dim=self.cond_dim,
            dtype=self.dtype,
        )
        if self.width < 1 or self.depth < 0:
            raise ValueError(
                f"width must be positive and depth not negative, got {self.width}, {self.depth}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")
        emb = embeddings.Conditioning(
            self.width,
            embedding=self.embedding,
            num_classes=self.num_classes,
            cond_dim=self.cond_dim,
            name="conditioning",
        )(t, cond)
        h = layers.dense(self.width, dtype=self.dtype, name="in")(x)
        for i in range(self.depth):
            h = MLPBlock(self.dropout, self.dtype, name=f"block_{i}")(h, emb, train)
        self.sow("intermediates", "emb", emb)
        self.sow("intermediates", "features", h)
        h = nn.silu(layers.layer_norm(dtype=self.dtype, name="norm")(h))
        features = x.shape[-1] if self.out_channels is None else self.out_channels
        h = layers.dense(features, kernel_init=layers.ZEROS, dtype=self.dtype, name="out")(h)
        return precision.output(h)


class MLPBlock(nn.Module):
    """One residual block: h + dense_0(dropout(silu(dense(norm(h)) + dense(silu(emb)))))."""

    dropout: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(self, h: Array, emb: Array, train: bool = False) -> Array:
        """[B, width] and [B, E] to [B, width]."""
        width = h.shape[-1]
        branch = layers.layer_norm(dtype=self.dtype, name="norm")(h)
        branch = layers.dense(width, dtype=self.dtype, name="in")(branch)
        e = layers.exact_dense(width, name="emb")(nn.silu(emb))
        branch = branch + e.astype(branch.dtype)
        branch = nn.Dropout(self.dropout, deterministic=not train)(nn.silu(branch))
        out = layers.dense(width, kernel_init=layers.ZEROS, dtype=self.dtype, name="out")
        return h + out(branch)
