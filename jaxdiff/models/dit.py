"""The diffusion transformer: an image as a sequence of patches, conditioned through its norms.

    tokens = dense(patches(x)) + positions
    h <- h + gate * attention(norm(h) (1 + scale) + shift)        depth times, each branch with
    h <- h + gate * perceptron(norm(h) (1 + scale) + shift)       its own gate, scale, shift (emb)
    y = unpatch(dense_0(norm(h) (1 + scale) + shift))

All matrix products, no convolution. On a few hundred small images and few steps a UNet, which need
not learn that pixels have neighbours, is ahead of it.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jaxdiff.models import embeddings, layers, positions, precision
from jaxdiff.models.attention import Attention
from jaxdiff.models.transformer import Perceptron

__all__ = ["SIZES", "DiT", "dit_of_size"]


class DiT(nn.Module):
    """A transformer with adaLN-zero on images [B, H, W, C].

    Every gate and the last layer start as zero: the untrained network returns exactly 0. Modules
    with equal fields are equal and hash equal.

    Attributes:
        width: the length of a token; must divide by `heads`, and by 4 where positions are
            sinusoidal.
        depth: the number of blocks.
        heads: the number of attention heads.
        patch: the side of a patch in pixels; must divide H and W.
        expansion: the hidden layer of a block's perceptron as a multiple of `width`.
        out_channels: None for as many as the input has.
        embedding: the time embedding, "sinusoidal" (time features of some hundreds) or "fourier"
            (of order one).
        waves: how many sines and cosines describe the time.
        num_classes: the number of classes, 0 for none; label -1 is the null label.
        cond_dim: the length of a free conditioning vector, 0 for none; zeros are the null vector
            and stand for a vector left out.
        dropout: the probability of a zero on each residual branch, in [0, 1); active if `train`.
        dtype: the compute dtype, such as "bfloat16"; None for float32. Parameters, statistics of
            norms, the softmax and the output stay float32.
        epsilon: of the norms.
        perceptron_epsilon: of those before perceptrons, None for the same.
        remat: whether blocks are recomputed on the way back instead of their activations stored.
        positions: how patches know their places, a name of `positions.NAMES` or a sum such as
            "sinusoidal+factor"; relative ones are of (row, column), each block has its own.
        skips: whether blocks of the second half also see the outputs of the first, last first, by
            concatenation and a dense layer.
        implementation: "xla" or "cudnn", of attention that can be fused.

    Source: Peebles and Xie 2023, arXiv:2212.09748, section 3.2 (adaLN-Zero); skips: Bao et al.
    2023, arXiv:2209.12152, section 3.1; the dropout and other positions are ours.
    """

    width: int = 384
    depth: int = 12
    heads: int = 6
    patch: int = 2
    expansion: int = 4
    out_channels: int | None = None
    embedding: str = "sinusoidal"
    waves: int = 128
    num_classes: int = 0
    cond_dim: int = 0
    dropout: float = 0.0
    dtype: Any = None
    epsilon: float = 1e-5
    perceptron_epsilon: float | None = None
    remat: bool = False
    positions: str = "sinusoidal"
    skips: bool = False
    implementation: str | None = None

    @nn.compact
    def __call__(
        self, x: Array, t: Array, cond: embeddings.Cond = None, *, train: bool = False
    ) -> Array:
        """The network's output for `x` at time features `t`.

        Args:
            x: [B, H, W, C], float.
            t: [B], the time feature.
            cond: int labels [B], float vectors [B, cond_dim], {"label": ..., "vector": ...} where
                the network takes both, None where it takes neither.
            train: whether dropout is active (RNG collection "dropout").

        Returns:
            [B, H, W, out_channels], float32.

        Raises:
            ValueError: if a field or an input does not fit, before any compile.
        """
        cond = embeddings.completed(x, cond, self.num_classes, self.cond_dim)
        embeddings.check_inputs(
            x,
            t,
            cond,
            rank=4,
            embedding=self.embedding,
            num_classes=self.num_classes,
            cond_dim=self.cond_dim,
            dtype=self.dtype,
        )
        _check(self, x.shape[1], x.shape[2])
        emb = embeddings.Conditioning(
            self.width,
            waves=self.waves,
            embedding=self.embedding,
            num_classes=self.num_classes,
            cond_dim=self.cond_dim,
            name="conditioning",
        )(t, cond)
        self.sow("intermediates", "emb", emb)
        emb = nn.silu(emb)
        rows, columns = x.shape[1] // self.patch, x.shape[2] // self.patch
        h = layers.dense(self.width, dtype=self.dtype, name="in")(_patches(x, self.patch))
        place = positions.absolute(self.positions, (rows, columns), "positions")
        if place is not None:
            h = h + place((rows, columns), self.width).astype(h.dtype)
        h = self._blocks(h, emb, (rows, columns), train)
        self.sow("intermediates", "features", h.reshape(-1, rows, columns, self.width))
        scale, shift = _modulation(emb, h, 2)
        h = _norm(h, scale, shift, self.epsilon, self.dtype, "norm")
        features = x.shape[-1] if self.out_channels is None else self.out_channels
        out = layers.dense(
            self.patch**2 * features, kernel_init=layers.ZEROS, dtype=self.dtype, name="out"
        )
        return precision.output(_unpatch(out(h), rows, columns, self.patch))

    def _blocks(self, h: Array, emb: Array, shape: tuple[int, int], train: bool) -> Array:
        block = nn.remat(DiTBlock, static_argnums=(3,)) if self.remat else DiTBlock
        kept = []
        for i in range(self.depth):
            if self.skips and i >= (self.depth + 1) // 2:
                h = jnp.concatenate([h, kept.pop()], axis=-1)
                h = layers.dense(self.width, dtype=self.dtype, name=f"join_{i}")(h)
            relative = positions.relative(
                self.positions,
                heads=self.heads,
                dim=self.width // self.heads,
                span=tuple(n - 1 for n in shape),
                shape=shape,
                module=f"relative_{i}",
            )
            made = block(
                self.heads,
                self.expansion,
                relative,
                self.dropout,
                self.implementation,
                self.epsilon,
                self.epsilon if self.perceptron_epsilon is None else self.perceptron_epsilon,
                self.dtype,
                name=f"block_{i}",
            )
            h = made(h, emb, train)
            if i < self.depth // 2:
                kept.append(h)
        return h


class DiTBlock(nn.Module):
    """Attention and a perceptron, each a residual branch behind an adaptive norm and a gate."""

    heads: int
    expansion: int = 4
    position: positions.Position | None = None
    dropout: float = 0.0
    implementation: str | None = None
    epsilon: float = 1e-5
    perceptron_epsilon: float = 1e-5
    dtype: Any = None

    @nn.compact
    def __call__(self, h: Array, emb: Array, train: bool = False) -> Array:
        """Tokens [B, N, width] and silu(emb) [B, E] to tokens."""
        drop = nn.Dropout(self.dropout, deterministic=not train)
        scale_a, shift_a, gate_a, scale_p, shift_p, gate_p = _modulation(emb, h, 6)
        attend = Attention(
            self.heads,
            position=self.position,
            implementation=self.implementation,
            dtype=self.dtype,
            name="attention",
        )
        branch = attend(_norm(h, scale_a, shift_a, self.epsilon, self.dtype, "norm_attention"))
        h = h + gate_a * drop(branch)
        hidden = self.expansion * h.shape[-1]
        last = Perceptron(hidden, "gelu_tanh", dtype=self.dtype, name="perceptron")
        epsilon = self.perceptron_epsilon
        branch = last(_norm(h, scale_p, shift_p, epsilon, self.dtype, "norm_perceptron"))
        return h + gate_p * drop(branch)


SIZES = {
    "S": {"width": 384, "depth": 12, "heads": 6},
    "B": {"width": 768, "depth": 12, "heads": 12},
    "L": {"width": 1024, "depth": 24, "heads": 16},
    "XL": {"width": 1152, "depth": 28, "heads": 16},
}
"""The published sizes; with patches of 2 on latents of 32x32x4 and 1000 classes they have 33, 130,
458 and 675 million parameters.

Source: Peebles and Xie 2023, arXiv:2212.09748, tables 1 and 4.
"""


def dit_of_size(size: str, **more: Any) -> DiT:
    """A DiT of a published size; `more` are its other fields, such as patch, num_classes, dtype.

    Args:
        size: a name of `SIZES`.

    Raises:
        ValueError: an unknown size.
    """
    if size not in SIZES:
        raise ValueError(f"size must be one of {', '.join(SIZES)}, got {size!r}")
    return DiT(**{**SIZES[size], **more})


def _modulation(emb: Array, h: Array, parts: int) -> list[Array]:
    """`parts` vectors [B, 1, width] for tokens `h`, linear in `emb` and zero at the start."""
    width = h.shape[-1]
    dense = layers.exact_dense(parts * width, kernel_init=layers.ZEROS, name="modulation")
    return jnp.split(dense(emb)[:, None, :].astype(h.dtype), parts, axis=-1)


def _norm(h: Array, scale: Array, shift: Array, epsilon: float, dtype: Any, name: str) -> Array:
    made = layers.layer_norm(affine=False, epsilon=epsilon, dtype=dtype, name=name)
    return made(h) * (1 + scale) + shift


def _patches(x: Array, patch: int) -> Array:
    """[B, H, W, C] to [B, H/p * W/p, p*p*C], row by row."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // patch, patch, width // patch, patch, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, patch * patch * channels)


def _unpatch(h: Array, rows: int, columns: int, patch: int) -> Array:
    """The inverse of `_patches`."""
    h = h.reshape(h.shape[0], rows, columns, -1)
    return layers.depth_to_space(h, rows * patch, columns * patch)


def _check(net: DiT, height: int, width: int) -> None:
    """Raises ValueError unless the fields fit together and fit images of this size."""
    positions.split(net.positions)
    if net.patch < 1 or height % net.patch or width % net.patch:
        raise ValueError(
            f"patch={net.patch} must divide image height and width, got {height} x {width}"
        )
    if net.heads < 1 or net.width % net.heads:
        raise ValueError(f"heads={net.heads} must divide width={net.width}")
    if not 0 <= net.dropout < 1:
        raise ValueError(f"dropout must lie in [0, 1), got {net.dropout}")
