"""Networks from latents to images and back: a small GAN's, a VAE's, and the DCGAN.

They know arrays: latents [B, L] of any prior, images [B, H, W, C] in [-1, 1].
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jaxdiff import arrays
from jaxdiff.models import layers, precision

__all__ = ["DCGAN", "Critic", "Encoder", "Generator"]


class Generator(nn.Module):
    """Latents to images: a dense layer, then convolutions on images that double in size.

        h = relu(norm(dense(z)))                        [H / 2**levels, W / 2**levels]
        h <- relu(norm(conv(twice(h))))                 `levels` times, half the channels
        x = tanh(conv(h))

    Attributes:
        shape: (H, W, C) of an image; H and W must divide by 2**levels.
        width: channels at full size.
        levels: how often the size doubles.
        dtype: the compute dtype, None for float32.

    Source: after Radford et al. 2016, arXiv:1511.06434, with group norms, whose statistics are no
    state, and repeated pixels in place of transposed convolutions.
    """

    shape: tuple[int, int, int]
    width: int = 32
    levels: int = 2
    dtype: Any = None

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """[B, L] to [B, H, W, C] in (-1, 1), float32."""
        _check(self.shape, self.width, self.levels)
        if z.ndim != 2:
            raise ValueError(f"z must be latents [B, L], got {list(z.shape)}")
        height, width, channels = self.shape
        small, wide = 2**self.levels, self.width * 2**self.levels
        size = (height // small, width // small, wide)
        h = layers.dense(math.prod(size), dtype=self.dtype, name="in")(z)
        h = self._active(h.reshape(-1, *size), "norm_in")
        for i in range(self.levels):
            h = jnp.repeat(jnp.repeat(h, 2, axis=1), 2, axis=2)
            wide //= 2
            h = layers.conv(wide, dtype=self.dtype, name=f"conv_{i}")(h)
            h = self._active(h, f"norm_{i}")
        out = layers.conv(channels, dtype=self.dtype, name="out")(h)
        return precision.output(jnp.tanh(out))

    def _active(self, h: Array, name: str) -> Array:
        groups = math.gcd(h.shape[-1], 8)
        return nn.relu(layers.group_norm(groups, dtype=self.dtype, name=name)(h))


class _Down(nn.Module):
    """Convolutions that halve an image `levels` times, then a dense layer."""

    outputs: int
    width: int
    levels: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        _check(x.shape[1:], self.width, self.levels)
        h = x
        for i in range(self.levels + 1):
            stride = 1 if i == 0 else 2
            wide = self.width * 2**i
            h = layers.conv(wide, stride=stride, dtype=self.dtype, name=f"conv_{i}")(h)
            h = nn.leaky_relu(h, 0.2)
        out = layers.dense(self.outputs, dtype=self.dtype, name="out")
        return precision.output(out(h.reshape(h.shape[0], -1)))


class Critic(nn.Module):
    """Images to how real they look, a logit each; no norm, as a gradient penalty wants it.

    Attributes:
        width: channels at full size.
        levels: how often the size halves.
        dtype: the compute dtype, None for float32.

    Source: after Radford et al. 2016, arXiv:1511.06434.
    """

    width: int = 32
    levels: int = 2
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, C] to [B], float32."""
        return _Down(1, self.width, self.levels, self.dtype, name="down")(x)[:, 0]


class Encoder(nn.Module):
    """Images to a normal over latents, for a VAE whose decoder is a `Generator`.

    Attributes:
        latent: L.
        width: channels at full size.
        levels: how often the size halves.
        dtype: the compute dtype, None for float32.

    Source: Kingma and Welling 2014, arXiv:1312.6114, appendix C.
    """

    latent: int
    width: int = 32
    levels: int = 2
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """[B, H, W, C] to means and logarithms of variances, [B, L] each, float32."""
        down = _Down(2 * self.latent, self.width, self.levels, self.dtype, name="down")
        mean, log_var = jnp.split(down(x), 2, axis=-1)
        return mean, log_var


class DCGAN(nn.Module):
    """The generator of the DCGAN: from 1x1 to 4x4, and twice the size with each further layer.

        h = relu(up(z));  h <- relu(up(h));  ...;  x = tanh(up(h))

    `up` is a transposed convolution of 4x4. A trained network's norms are parts of its kernels and
    biases here: it is for drawing, not for training.

    Attributes:
        channels: of each size, 4x4 first.
        out_channels: of the image.

    Source: Radford et al. 2016, arXiv:1511.06434, figure 1.
    """

    channels: tuple[int, ...] = (512, 256, 128, 64)
    out_channels: int = 3

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """[B, L] to [B, 4 * 2**n, 4 * 2**n, C] in (-1, 1), n the number of channels."""
        if z.ndim != 2:
            raise ValueError(f"z must be latents [B, L], got {list(z.shape)}")
        h = z[:, None, None, :]
        for i, features in enumerate((*self.channels, self.out_channels)):
            h = nn.ConvTranspose(
                features,
                (4, 4),
                strides=(1, 1) if i == 0 else (2, 2),
                padding="VALID" if i == 0 else "SAME",
                param_dtype=arrays.float_dtype(),
                name=f"up_{i}",
            )(h)
            h = nn.relu(h) if i < len(self.channels) else jnp.tanh(h)
        return precision.output(h)


def _check(shape: tuple[int, ...], width: int, levels: int) -> None:
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"images must be [B, H, W, C], got shape {list(shape)} of one")
    if width < 1 or levels < 0:
        raise ValueError(f"width must be at least 1 and levels 0, got {width} and {levels}")
    if shape[0] % 2**levels or shape[1] % 2**levels:
        raise ValueError(
            f"levels={levels} need sizes that divide by {2**levels}, got {shape[0]} x {shape[1]}"
        )
