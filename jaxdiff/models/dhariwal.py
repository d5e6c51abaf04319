"""ADM as the EDM paper has it; names of parameters as `edm` says."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jaxdiff import arrays
from jaxdiff.models import edm, embeddings, layers, precision

__all__ = ["DhariwalUNet", "adm_imagenet64"]


class DhariwalUNet(nn.Module):
    """A UNet on images [B, H, W, C] with adaptive norms and attention at several sizes.

    Down: at each level some blocks, with attention at the named heights, and a block that halves
    the size. Up: two blocks, the first with attention, then the levels in reverse with one block
    more, each joined to the activation of the way down that it mirrors. Its last layer starts as
    zero: the untrained network returns exactly 0.

    Attributes:
        channels: the channels of the first level, before its multiplier.
        multipliers: the channels of each level as multiples of `channels`.
        blocks: blocks a level on the way down; one more on the way up.
        attention: the image heights at which blocks have attention.
        head_channels: the channels of an attention head; must divide those of levels with
            attention.
        out_channels: None for as many as the input has.
        num_classes: the number of classes, 0 for none; label -1 is the null label.
        cond_dim: the length of a vector that says how images were augmented, 0 for none; zeros are
            the null vector, and stand for a vector left out.
        dropout: the probability of a zero in a block, in [0, 1); active if `train`.
        dtype: the compute dtype, such as "bfloat16"; None for float32 (see `precision`).
        remat: whether blocks are recomputed on the way back instead of their activations stored.

    Source: Dhariwal and Nichol 2021, arXiv:2105.05233; Karras et al. 2022, arXiv:2206.00364,
    table 7.
    """

    channels: int = 192
    multipliers: tuple[int, ...] = (1, 2, 3, 4)
    blocks: int = 3
    attention: tuple[int, ...] = (32, 16, 8)
    head_channels: int = 64
    out_channels: int | None = None
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
            t: [B], the time feature; EDM's is log(sigma) / 4.
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
            embedding="sinusoidal",
            num_classes=self.num_classes,
            cond_dim=self.cond_dim,
            dtype=self.dtype,
        )
        edm.check(self, x.shape[1], x.shape[2])
        _check_heads(self, x.shape[1])
        style = edm.DHARIWAL
        emb = self._embedded(t, cond)
        h, stack = self._down(x, emb, train)
        h = self._up(h, stack, emb, train)
        self.sow("intermediates", "emb", emb)
        self.sow("intermediates", "features", h)
        h = nn.silu(edm.norm(h, style.epsilon, self.dtype, "out_norm"))
        features = x.shape[-1] if self.out_channels is None else self.out_channels
        conv = layers.conv(features, kernel_init=style.last, dtype=self.dtype, name="out_conv")
        return precision.output(conv(h))

    def _embedded(self, t: Array, cond: embeddings.Cond) -> Array:
        """[B, 4 channels]: silu already taken, as every block wants it."""
        features = self.channels
        label, vector = embeddings.split(cond, self.num_classes, self.cond_dim)
        waves = embeddings.sinusoidal(t, features, endpoint=False)
        emb = jnp.roll(waves, features // 2, axis=-1)  # cosines first, as published weights want
        if vector is not None:
            augment = layers.exact_dense(
                features, kernel_init=edm.DHARIWAL.last, bias=False, name="map_augment"
            )
            emb = emb + augment(jnp.asarray(vector, arrays.float_dtype()))
        emb = self._mapped(nn.silu(self._mapped(emb, "map_layer0")), "map_layer1")
        if label is not None:
            table = layers.exact_dense(
                4 * features, kernel_init=nn.initializers.normal(1.0), bias=False, name="map_label"
            )
            emb = emb + table(edm.one_hot(label, self.num_classes))
        return nn.silu(emb)

    def _mapped(self, emb: Array, name: str) -> Array:
        dense = layers.exact_dense(
            4 * self.channels,
            kernel_init=edm.DHARIWAL.kernel,
            bias_init=edm.DHARIWAL.bias(emb.shape[-1]),
            name=name,
        )
        return dense(emb)

    def _block(self, multiplier: int, name: str, attends: bool = False, size: str = "same") -> Any:
        kind = nn.remat(edm.Block, static_argnums=(3,)) if self.remat else edm.Block
        features = multiplier * self.channels
        return kind(
            features=features,
            style=edm.DHARIWAL,
            heads=features // self.head_channels if attends else 0,
            size=size,
            dropout=self.dropout,
            dtype=self.dtype,
            name=name,
        )

    def _down(self, x: Array, emb: Array, train: bool) -> tuple[Array, list[Array]]:
        """The activation at the lowest level, and those on the way that are joined later."""
        conv = layers.conv(
            self.multipliers[0] * self.channels,
            kernel_init=edm.DHARIWAL.kernel,
            bias_init=edm.DHARIWAL.bias(9 * x.shape[-1]),
            dtype=self.dtype,
            name=f"enc_{edm.size_of(x)}_conv",
        )
        h = conv(x)
        stack = [h]
        for level, multiplier in enumerate(self.multipliers):
            if level:
                name = f"enc_{edm.size_of(x, level)}_down"
                h = self._block(self.multipliers[level - 1], name, size="down")(h, emb, train)
                stack.append(h)
            for i in range(self.blocks):
                name = f"enc_{edm.size_of(h)}_block{i}"
                h = self._block(multiplier, name, h.shape[1] in self.attention)(h, emb, train)
                stack.append(h)
        return h, stack

    def _up(self, h: Array, stack: list[Array], emb: Array, train: bool) -> Array:
        """The activation at the first level again."""
        last = self.multipliers[-1]
        h = self._block(last, f"dec_{edm.size_of(h)}_in0", attends=True)(h, emb, train)
        h = self._block(last, f"dec_{edm.size_of(h)}_in1")(h, emb, train)
        for level, multiplier in reversed(list(enumerate(self.multipliers))):
            if level < len(self.multipliers) - 1:
                name = f"dec_{edm.size_of(h, -1)}_up"
                h = self._block(self.multipliers[level + 1], name, size="up")(h, emb, train)
            for i in range(self.blocks + 1):
                name = f"dec_{edm.size_of(h)}_block{i}"
                h = jnp.concatenate([h, stack.pop()], axis=-1)
                h = self._block(multiplier, name, h.shape[1] in self.attention)(h, emb, train)
        return h


def _check_heads(net: DhariwalUNet, height: int) -> None:
    attentive = [m for i, m in enumerate(net.multipliers) if height >> i in net.attention]
    widths = [m * net.channels for m in [*attentive, net.multipliers[-1]]]
    if net.head_channels < 1 or any(w % net.head_channels for w in widths):
        raise ValueError(
            f"head_channels={net.head_channels} must divide the channels where there is "
            f"attention, {widths}"
        )


def adm_imagenet64(**changes: Any) -> DhariwalUNet:
    """ADM for ImageNet at 64x64 with its 1000 classes: 295.9 million parameters.

    Args:
        **changes: fields of `DhariwalUNet` to set otherwise.

    Source: Karras et al. 2022, arXiv:2206.00364, table 7 (ADM column).
    """
    return DhariwalUNet(**{"num_classes": 1000, "dropout": 0.1, **changes})
