"""DDPM++ and NCSN++ as the EDM paper has them; names of parameters as `edm` says."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jaxdiff import arrays
from jaxdiff.models import edm, embeddings, layers, precision, resample

__all__ = ["SongUNet", "ddpmpp_cifar10", "ncsnpp_cifar10"]

ENCODERS = ("standard", "residual")


class SongUNet(nn.Module):
    """A UNet on images [B, H, W, C] whose residual sums keep their variance.

    Down: at each level some blocks, with attention at the named heights, and a block that halves
    the size; with the residual encoder the image itself is carried down by convolutions and added.
    Up: two blocks, the first with attention, then the levels in reverse with one block more, the
    last with attention, each block joined to the activation of the way down that it mirrors.

    Attributes:
        channels: the channels of the first convolution.
        multipliers: the channels of each level as multiples of `channels`.
        blocks: blocks a level on the way down; one more on the way up.
        attention: the image heights at which blocks have attention.
        out_channels: None for as many as the input has.
        embedding: the time embedding: "sinusoidal", or "fourier" of random frequencies, which are
            parameters that do not learn.
        waves: how many sines and cosines describe the time, as a multiple of `channels`.
        encoder: "standard" or "residual".
        taps: the filter of resampling.
        num_classes: the number of classes, 0 for none; label -1 is the null label.
        cond_dim: the length of a vector that says how images were augmented, 0 for none; zeros are
            the null vector, and stand for a vector left out.
        dropout: the probability of a zero in a block, in [0, 1); active if `train`.
        dtype: the compute dtype, such as "bfloat16"; None for float32 (see `precision`).
        remat: whether blocks are recomputed on the way back instead of their activations stored.

    Source: Karras et al. 2022, arXiv:2206.00364, table 7; Song et al. 2021, arXiv:2011.13456,
    appendix H. Only the encoders and the decoder of published configurations are here.
    """

    channels: int = 128
    multipliers: tuple[int, ...] = (2, 2, 2)
    blocks: int = 4
    attention: tuple[int, ...] = (16,)
    out_channels: int | None = None
    embedding: str = "sinusoidal"
    waves: int = 1
    encoder: str = "standard"
    taps: tuple[float, ...] = (1, 1)
    num_classes: int = 0
    cond_dim: int = 0
    dropout: float = 0.0
    dtype: Any = None
    remat: bool = False

    @nn.compact
    def __call__(
        self, x: Array, t: Array, cond: embeddings.Cond = None, *, train: bool = False
    ) -> Array:
        """The network's output for `x` at time features `t`.

        Args:
            x: [B, H, W, C], float.
            t: [B], the time feature; EDM's is log(sigma) / 4 for either embedding.
            cond: int labels [B], vectors [B, cond_dim] or None, {"label": ..., "vector": ...} where
                the network takes both.
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
        if self.encoder not in ENCODERS:
            raise ValueError(f"encoder must be one of {ENCODERS}, got {self.encoder!r}")
        if self.waves < 1:
            raise ValueError(f"waves must be positive, got {self.waves}")
        resample.check_taps(self.taps)
        edm.check(self, x.shape[1], x.shape[2])
        emb = self._embedded(t, cond)
        h, stack = self._down(x, emb, train)
        h = self._up(h, stack, emb, train)
        self.sow("intermediates", "emb", emb)
        self.sow("intermediates", "features", h)
        name = f"dec_{edm.size_of(h)}_aux"
        h = nn.silu(edm.norm(h, edm.SONG.epsilon, self.dtype, f"{name}_norm"))
        features = x.shape[-1] if self.out_channels is None else self.out_channels
        last = edm.SONG.last
        h = layers.conv(features, kernel_init=last, dtype=self.dtype, name=f"{name}_conv")(h)
        return precision.output(h)

    def _embedded(self, t: Array, cond: embeddings.Cond) -> Array:
        """[B, 4 channels]: silu already taken, as every block wants it."""
        features, init = self.waves * self.channels, edm.SONG.kernel
        if self.embedding == "fourier":
            emb = _Fourier(features, name="map_noise")(t)
        else:
            emb = embeddings.sinusoidal(t, features)
        label, vector = embeddings.split(cond, self.num_classes, self.cond_dim)
        if label is not None:
            rows = edm.one_hot(label, self.num_classes) * math.sqrt(self.num_classes)
            emb = emb + layers.exact_dense(features, kernel_init=init, name="map_label")(rows)
        if vector is not None:
            augment = layers.exact_dense(features, kernel_init=init, bias=False, name="map_augment")
            emb = emb + augment(jnp.asarray(vector, arrays.float_dtype()))
        for name in ("map_layer0", "map_layer1"):
            dense = layers.exact_dense(4 * self.channels, kernel_init=init, name=name)
            emb = nn.silu(dense(emb))
        return emb

    def _block(self, multiplier: int, name: str, heads: int = 0, size: str = "same") -> nn.Module:
        kind = nn.remat(edm.Block, static_argnums=(3,)) if self.remat else edm.Block
        return kind(
            features=multiplier * self.channels,
            style=edm.SONG,
            heads=heads,
            size=size,
            taps=self.taps,
            dropout=self.dropout,
            dtype=self.dtype,
            name=name,
        )

    def _down(self, x: Array, emb: Array, train: bool) -> tuple[Array, list[Array]]:
        """The activation at the lowest level, and those on the way that are joined later."""
        image, init = x, edm.SONG.kernel
        conv = layers.conv(
            self.channels, kernel_init=init, dtype=self.dtype, name=f"enc_{edm.size_of(x)}_conv"
        )
        h = conv(x)
        stack = [h]
        for level, multiplier in enumerate(self.multipliers):
            if level:
                size = edm.size_of(x, level)
                down = self._block(self.multipliers[level - 1], f"enc_{size}_down", size="down")
                h = down(h, emb, train)
                if self.encoder == "residual":
                    h = image = self._carried(h, image, f"enc_{size}_aux_residual")
                stack.append(h)
            for i in range(self.blocks):
                heads = int(h.shape[1] in self.attention)
                block = self._block(multiplier, f"enc_{edm.size_of(h)}_block{i}", heads)
                h = block(h, emb, train)
                stack.append(h)
        return h, stack

    def _carried(self, h: Array, image: Array, name: str) -> Array:
        """`h` and the image of its size, carried down by a convolution and the filter.

        The convolution also sees the margin that the filter needs, where zeros would be otherwise.
        """
        margin = (len(self.taps) - 1) // 2
        wide = jnp.pad(image, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
        init = edm.SONG.kernel
        conv = layers.conv(h.shape[-1], kernel_init=init, dtype=self.dtype, name=name)
        return (h + resample.down(conv(wide), self.taps, padded=False)) * math.sqrt(0.5)

    def _up(self, h: Array, stack: list[Array], emb: Array, train: bool) -> Array:
        """The activation at the first level again."""
        last = self.multipliers[-1]
        h = self._block(last, f"dec_{edm.size_of(h)}_in0", heads=1)(h, emb, train)
        h = self._block(last, f"dec_{edm.size_of(h)}_in1")(h, emb, train)
        for level, multiplier in reversed(list(enumerate(self.multipliers))):
            if level < len(self.multipliers) - 1:
                name = f"dec_{edm.size_of(h, -1)}_up"
                h = self._block(self.multipliers[level + 1], name, size="up")(h, emb, train)
            for i in range(self.blocks + 1):
                name = f"dec_{edm.size_of(h)}_block{i}"
                heads = int(i == self.blocks and h.shape[1] in self.attention)
                h = jnp.concatenate([h, stack.pop()], axis=-1)
                h = self._block(multiplier, name, heads)(h, emb, train)
        return h


class _Fourier(nn.Module):
    """[sin(2 pi f t), cos(2 pi f t)] of frequencies f from N(0, 16**2) that do not learn."""

    features: int

    @nn.compact
    def __call__(self, t: Array) -> Array:
        """[B] to [B, features]."""
        dtype = arrays.float_dtype()
        init = nn.initializers.normal(16.0)
        frequencies = self.param("freqs", init, (self.features // 2,), dtype)
        frequencies = 2 * jnp.pi * jax.lax.stop_gradient(frequencies)
        angles = jnp.asarray(t, dtype)[:, None] * frequencies[None, :]
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def ddpmpp_cifar10(**changes: Any) -> SongUNet:
    """EDM's DDPM++ for CIFAR-10: 55,733,891 parameters on 32x32x3 images without labels.

    Args:
        **changes: fields of `SongUNet` to set otherwise.

    Source: Karras et al. 2022, arXiv:2206.00364, table 7 (VP column, configuration F).
    """
    return SongUNet(**{"cond_dim": 9, "dropout": 0.13, **changes})


def ncsnpp_cifar10(**changes: Any) -> SongUNet:
    """EDM's NCSN++ for CIFAR-10: 56,397,827 learning parameters on 32x32x3 images without labels.

    Its 128 frequencies are parameters here besides.

    Args:
        **changes: fields of `SongUNet` to set otherwise.

    Source: Karras et al. 2022, arXiv:2206.00364, table 7 (VE column, configuration F).
    """
    fields = {"embedding": "fourier", "waves": 2, "encoder": "residual", "taps": (1, 3, 3, 1)}
    return ddpmpp_cifar10(**{**fields, **changes})
