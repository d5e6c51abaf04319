"""The UNet of the DDPM family, one configurable module.

Down: at each level some residual blocks, with attention at the named image sizes, then half the
size. Middle: block, attention, block. Up: the same in reverse with one block more a level, each
joined to the activation of the way down that it mirrors.

Not here: what the output means and how its input is scaled (see `parametrization`, `denoiser`).
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jaxdiff.models import embeddings, layers, levels, precision

__all__ = ["UNet", "ddpm_cifar10"]

SKIPS = ("concat", "add")


class UNet(nn.Module):
    """A UNet on images [B, H, W, C], conditioned on time, labels and free vectors.

    Its last layer and the last layer of each residual branch start as zero: the untrained network
    returns exactly 0. Modules with equal fields are equal and hash equal.

    Attributes:
        channels: the channels of the first level; the conditioning vector has 4 times as many.
        multipliers: the channels of each level as multiples of `channels`; each level but the
            last is followed by a halving, so H and W must divide by 2**(levels - 1).
        blocks: residual blocks a level on the way down; one more on the way up.
        attention: the image heights at which blocks are followed by attention; the middle has
            attention too, unless this is empty or `middle_attention` says otherwise.
        heads: the number of attention heads.
        head_channels: the channels of a head instead, None for as many heads as `heads` says.
        out_channels: None for as many as the input has.
        skip: how the way up takes in the way down: "concat", or "add" (through a 1x1 convolution
            where the channels differ), which has fewer parameters and takes less time.
        scale_shift: whether conditioning scales and shifts after the norm instead of being added.
        resample: "conv" (strided convolution; repeated pixels and a convolution), "conv_around"
            (its strided convolution has zeros on each side, not behind alone) or "pool" (means of
            2x2 pixels; repeated pixels).
        embedding: the time embedding, "sinusoidal" (time features of some hundreds) or "fourier"
            (of order one).
        endpoint: whether the longest period is among the sinusoidal ones: see
            `embeddings.sinusoidal`.
        middle_attention: whether the middle has attention, None for where any level has.
        num_classes: the number of classes, 0 for none; label -1 is the null label.
        cond_dim: the length of a free conditioning vector, 0 for none; zeros are the null vector
            and stand for a vector left out.
        dropout: the probability of a zero in a residual block, in [0, 1); active if `train`.
        groups: the groups of the norms; must divide the channels of every level.
        epsilon: of the norms; Ho et al. have 1e-6.
        dtype: the compute dtype, such as "bfloat16"; None for float32. Parameters, statistics of
            norms, the softmax and the output stay float32.
        remat: whether blocks are recomputed on the way back instead of their activations stored.

    Source: Ho et al. 2020, arXiv:2006.11239, appendix B (initial kernels are LeCun-normal here);
    scale_shift: Nichol and Dhariwal 2021, arXiv:2102.09672.
    """

    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (16,)
    heads: int = 1
    head_channels: int | None = None
    out_channels: int | None = None
    skip: str = "concat"
    scale_shift: bool = False
    resample: str = "conv"
    embedding: str = "sinusoidal"
    endpoint: bool = True
    middle_attention: bool | None = None
    num_classes: int = 0
    cond_dim: int = 0
    dropout: float = 0.0
    groups: int = 32
    epsilon: float = 1e-5
    dtype: Any = None
    remat: bool = False

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
        if self.skip not in SKIPS:
            raise ValueError(f"skip must be one of {SKIPS}, got {self.skip!r}")
        embeddings.check_fields(self)
        levels.check(self, x.shape[1], x.shape[2])
        emb = embeddings.Conditioning(
            4 * self.channels,
            waves=self.channels,
            embedding=self.embedding,
            endpoint=self.endpoint,
            num_classes=self.num_classes,
            cond_dim=self.cond_dim,
            name="conditioning",
        )(t, cond)
        h = layers.conv(self.channels, dtype=self.dtype, name="in")(x)
        h, stack = levels.down(self, h, emb, train)
        h = levels.block(self, h, emb, train, self.multipliers[-1], "middle_0")
        if bool(self.attention) if self.middle_attention is None else self.middle_attention:
            levels.check_heads(self, [h.shape[-1]])
            h = levels.attention(self, "middle_attention")(h)
        h = levels.block(self, h, emb, train, self.multipliers[-1], "middle_1")
        h = self._up(h, stack, emb, train)
        self.sow("intermediates", "emb", emb)
        self.sow("intermediates", "features", h)
        norm = layers.group_norm(self.groups, epsilon=self.epsilon, dtype=self.dtype, name="norm")
        h = nn.silu(norm(h))
        features = x.shape[-1] if self.out_channels is None else self.out_channels
        h = layers.conv(features, kernel_init=layers.ZEROS, dtype=self.dtype, name="out")(h)
        return precision.output(h)

    def _up(self, h: Array, stack: list[Array], emb: Array, train: bool) -> Array:
        """The activation at the first level again."""
        for level, multiplier in reversed(list(enumerate(self.multipliers))):
            for i in range(self.blocks + 1):
                h = self._join(h, stack.pop(), f"join_{level}_{i}")
                h = levels.level(self, h, emb, train, multiplier, f"up_{level}_{i}")
            if level:
                h = layers.Upsample(self.resample, self.dtype, name=f"up_{level}")(h)
        return h

    def _join(self, h: Array, skip: Array, name: str) -> Array:
        if self.skip == "concat":
            return jnp.concatenate([h, skip], axis=-1)
        if skip.shape[-1] != h.shape[-1]:
            skip = layers.dense(h.shape[-1], dtype=self.dtype, name=name)(skip)
        return h + skip


def ddpm_cifar10(**changes: Any) -> UNet:
    """The network of Ho et al. for CIFAR-10: 35,746,307 parameters on 32x32x3 images.

    Args:
        **changes: fields of `UNet` to set otherwise.

    Source: Ho et al. 2020, arXiv:2006.11239, appendix B, and the configuration of their release.
    """
    return UNet(**{"dropout": 0.1, "epsilon": 1e-6, **changes})
