"""A convolutional autoencoder of images: fewer pixels, each a normal, and back.

Down: at each level some residual blocks, then half the size. Middle: block, attention where wanted,
block. Up: the same in reverse, with one block more a level.

Not here: the loss (`training.vae_loss`), and what latents are scaled by (`latent`).
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jaxdiff.models import layers, precision
from jaxdiff.models.attention_block import AttentionBlock

__all__ = ["Autoencoder"]

# Of the posterior's log variance, so that neither it nor its inverse leaves float32.
LOW, HIGH = -30.0, 20.0


class Autoencoder(nn.Module):
    """Images [B, H, W, C] to a normal over [B, h, w, latents], h = H / 2**(levels - 1), and back.

        N(mean, diag exp(log_var)) = encode(x),        N(decode(z), std^2 I)

    The defaults are the network behind the latent models of 256 pixels, "KL, f = 8", which has
    83,653,863 parameters on colour images.

    Attributes:
        latents: the channels of a latent pixel.
        channels: those of the first level.
        multipliers: the channels of each level as multiples of `channels`; each level but the last
            is followed by a halving, so H and W must divide by 2**(levels - 1).
        blocks: residual blocks a level on the way down; one more on the way up.
        attention: whether there is attention in the middle, by one head.
        groups: the groups of the norms; must divide the channels of every level.
        epsilon: of the norms.
        std: the deviation of a number of the data around what is decoded, > 0: what the loss weighs
            errors by. Half its square is the weight of the divergence beside squared errors, twice.
        out_channels: C.
        dtype: the compute dtype, such as "bfloat16"; None for float32. Parameters, statistics of
            norms and the outputs stay float32.

    Source: Rombach et al. 2022, arXiv:2112.10752, appendix G and table 8 (initial kernels are
    LeCun-normal here, and those of residual branches end as 0).
    """

    latents: int = 4
    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    blocks: int = 2
    attention: bool = True
    groups: int = 32
    epsilon: float = 1e-6
    std: float = 0.1
    out_channels: int = 3
    dtype: Any = None

    def setup(self):
        """Both halves, so that either is applied alone."""
        fields = {
            "channels": self.channels,
            "multipliers": self.multipliers,
            "blocks": self.blocks,
            "attention": self.attention,
            "groups": self.groups,
            "epsilon": self.epsilon,
            "dtype": self.dtype,
        }
        self.encoder = _Encoder(2 * self.latents, **fields)
        self.decoder = _Decoder(self.out_channels, **fields)

    def __call__(self, x: Array) -> Array:
        """What is decoded of the mean, [B, H, W, C] to the same shape, float32."""
        return self.decode(self.encode(x)[0])

    def encode(self, x: Array) -> tuple[Array, Array]:
        """Images to means and logarithms of variances.

        Args:
            x: [B, H, W, C], float.

        Returns:
            [B, h, w, latents] each, float32.

        Raises:
            ValueError: if a field or the images do not fit, before any compile.
        """
        _check(self, x.shape)
        mean, log_var = jnp.split(precision.output(self.encoder(x)), 2, axis=-1)
        return mean, jnp.clip(log_var, LOW, HIGH)

    def decode(self, z: Array) -> Array:
        """[B, h, w, latents] to [B, H, W, C], float32.

        Raises:
            ValueError: latents of another shape.
        """
        if z.ndim != 4 or z.shape[-1] != self.latents:
            raise ValueError(f"z must be [B, h, w, {self.latents}], got {list(z.shape)}")
        return precision.output(self.decoder(z))


class _Half(nn.Module):
    """What both halves are made of."""

    outputs: int
    channels: int
    multipliers: tuple[int, ...]
    blocks: int
    attention: bool
    groups: int
    epsilon: float
    dtype: Any

    def _block(self, h: Array, multiplier: int, name: str) -> Array:
        made = layers.ResidualBlock(
            multiplier * self.channels,
            groups=self.groups,
            epsilon=self.epsilon,
            dtype=self.dtype,
            name=name,
        )
        return made(h)

    def _middle(self, h: Array) -> Array:
        h = self._block(h, self.multipliers[-1], "middle_0")
        if self.attention:
            part = {"groups": self.groups, "epsilon": self.epsilon, "dtype": self.dtype}
            h = AttentionBlock(**part, name="middle_attention")(h)
        return self._block(h, self.multipliers[-1], "middle_1")

    def _last(self, h: Array) -> Array:
        norm = layers.group_norm(self.groups, epsilon=self.epsilon, dtype=self.dtype, name="norm")
        return self._conv(self.outputs, "out")(nn.silu(norm(h)))

    def _conv(self, features: int, name: str) -> Callable:
        return layers.conv(features, dtype=self.dtype, name=name)


class _Encoder(_Half):
    @nn.compact
    def __call__(self, x: Array) -> Array:
        h = self._conv(self.channels, "in")(x)
        for i, multiplier in enumerate(self.multipliers):
            if i:
                h = layers.Downsample(dtype=self.dtype, name=f"down_{i}")(h)
            for j in range(self.blocks):
                h = self._block(h, multiplier, f"down_{i}_{j}")
        h = self._last(self._middle(h))
        return layers.dense(self.outputs, dtype=self.dtype, name="latents")(h)


class _Decoder(_Half):
    @nn.compact
    def __call__(self, z: Array) -> Array:
        h = layers.dense(z.shape[-1], dtype=self.dtype, name="latents")(z)
        h = self._conv(self.multipliers[-1] * self.channels, "in")(h)
        h = self._middle(h)
        for i, multiplier in reversed(list(enumerate(self.multipliers))):
            for j in range(self.blocks + 1):
                h = self._block(h, multiplier, f"up_{i}_{j}")
            if i:
                h = layers.Upsample(dtype=self.dtype, name=f"up_{i}")(h)
        return self._last(h)


def _check(net: Autoencoder, shape: tuple[int, ...]) -> None:
    """Raises ValueError unless the fields fit together and fit images of this shape."""
    precision.check(net.dtype)
    if len(shape) != 4 or shape[-1] != net.out_channels:
        raise ValueError(f"x must be [B, H, W, {net.out_channels}], got {list(shape)}")
    if not net.multipliers or min(net.multipliers) < 1 or min(net.blocks, net.latents) < 1:
        raise ValueError(
            "multipliers, blocks and latents must be positive, got"
            f" multipliers={net.multipliers}, blocks={net.blocks}, latents={net.latents}"
        )
    factor = 2 ** (len(net.multipliers) - 1)
    if shape[1] % factor or shape[2] % factor:
        raise ValueError(
            f"image height and width must divide by 2**(levels - 1) = {factor} for "
            f"multipliers={net.multipliers}, got {shape[1]} x {shape[2]}"
        )
    widths = [net.channels * m for m in net.multipliers]
    if net.groups < 1 or any(w % net.groups for w in [net.channels, *widths]):
        raise ValueError(
            f"groups={net.groups} must divide the channels of every level, got {widths}"
        )
