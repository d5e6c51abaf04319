"""An encoder and a decoder around a model, so that what diffuses are latents.

    z = scale (E(x) - shift),        x = D(z / scale + shift)

A model learns z as others learn x, and what it draws is decoded: samplers, losses and schedules do
not know. `shift` and `scale` are the mean and one over the deviation of what the encoder makes of
data, measured; schedules expect data of mean 0 and variance 1 or less.

    around a loss        losses.denoising(key, denoiser, codec.encode(other, x), schedule)
    around samples       codec.decode(sample(key, denoise, grid, (16, 4, 4, 4)))

Encoder and decoder are any functions. Those with parameters are pytrees, so that the parameters of
a `Codec` are inputs of whatever program it is passed to.

Not here: networks (`models.Autoencoder`), and how they are trained (`training.latents`).

Source: Rombach et al. 2022, arXiv:2112.10752, section 3 and appendix G.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.keys import example_keys
from jaxdiff.typing import Normal

__all__ = ["Codec", "Moments", "codec", "drawn", "merged", "moments", "pooled", "standardised"]


@arrays.pytree
class Codec:
    """A pair of an encoder and a decoder; `codec` makes one.

    Attributes:
        encoder: `encoder(key, x)`, from data [B, ...] to latents [B, ..., C]; key is one or [B].
        decoder: from latents to data.
        shift: [] or [C], what is taken off latents.
        scale: [] or [C], what they are multiplied with then, > 0.
    """

    encoder: Callable[[Array, Array], Array]
    decoder: Callable[[Array], Array]
    shift: Array
    scale: Array

    def encode(self, key: Array, x: Array) -> Array:
        """z = scale (E(x) - shift).

        Args:
            key: a PRNG key, or [B] keys, of encoders that draw.
            x: [B, ...], data.

        Returns:
            [B, ..., C].
        """
        z = self.encoder(key, x)
        return _as(self.scale, z) * (z - _as(self.shift, z))

    def decode(self, z: Array) -> Array:
        """x = D(z / scale + shift), [B, ..., C] to [B, ...]."""
        return self.decoder(z / _as(self.scale, z) + _as(self.shift, z))


def _as(number: Any, z: Array) -> Array:
    """[] or [C] beside latents: of their rank and dtype."""
    number = jnp.asarray(number, z.dtype)
    return number if number.ndim == 0 else number.reshape((1,) * (z.ndim - 1) + number.shape)


def codec(
    encoder: Callable[[Array, Array], Array],
    decoder: Callable[[Array], Array],
    *,
    shift: Any = 0.0,
    scale: Any = 1.0,
) -> Codec:
    """A codec of two functions; as it is by default, its latents are what the encoder gives.

    Args:
        encoder: `encoder(key, x)`, see `Codec`; `drawn` makes one of a posterior.
        decoder: from latents to data.
        shift: [] or [C], finite.
        scale: [] or [C], finite and > 0.

    Raises:
        TypeError: something that is no function.
        ValueError: a number out of range.
    """
    arrays.check_range("shift", shift, -np.inf, np.inf, "()")
    arrays.check_range("scale", scale, 0, np.inf, "()")
    numbers = (jnp.asarray(n, arrays.float_dtype()) for n in (shift, scale))
    return Codec(arrays.as_pytree(encoder), arrays.as_pytree(decoder), *numbers)


@arrays.pytree
class _Drawn:
    posterior: Callable[[Array], Normal]

    def __call__(self, key: Array, x: Array) -> Array:
        mean, var = self.posterior(x)
        keys = example_keys(key, mean.shape[0])
        draw = jax.vmap(lambda k: jax.random.normal(k, mean.shape[1:], mean.dtype))
        return mean + arrays.safe_sqrt(var) * draw(keys)


def drawn(posterior: Callable[[Array], Normal]) -> Callable[[Array, Array], Array]:
    """The encoder that draws from a posterior; example i of a batch by (key, i) alone.

        E(x) = mean + sqrt(var) noise

    Args:
        posterior: from data [B, ...] to the mean and variance of their latents, [B, ..., C] each.

    Returns:
        `encoder(key, x)`, for `codec`.
    """
    return _Drawn(arrays.as_pytree(posterior))


class Moments(NamedTuple):
    """Mean and variance of latents by channel.

    Attributes:
        count: [], of how many numbers a channel.
        mean: [C], or [] of all channels together.
        var: the same shape, >= 0, over `count`.
    """

    count: Array
    mean: Array
    var: Array


def moments(z: Array) -> Moments:
    """The moments of the last axis' channels over all the others.

    Args:
        z: [..., C], latents as the encoder gives them.
    """
    flat = arrays.wide_float(z).reshape(-1, z.shape[-1])
    count = jnp.asarray(flat.shape[0], flat.dtype)
    return Moments(count, jnp.mean(flat, axis=0), jnp.var(flat, axis=0))


def merged(a: Moments, b: Moments) -> Moments:
    """The moments of two sets together, without the cancellation of sums of squares.

        w = count_b / (count_a + count_b),        mean = mean_a + w (mean_b - mean_a)
        var = (1 - w) var_a + w var_b + w (1 - w) (mean_b - mean_a)**2

    Args:
        a, b: of disjoint sets.

    Source: Chan et al. 1983, The American Statistician 37(3), eq. 2.1.
    """
    count = a.count + b.count
    w, gap = b.count / count, b.mean - a.mean
    var = (1 - w) * a.var + w * b.var + w * (1 - w) * gap**2
    return Moments(count, a.mean + w * gap, var)


def pooled(found: Moments) -> Moments:
    """The moments of all channels together, for one shift and one scale."""
    mean = jnp.mean(found.mean)
    var = jnp.mean(found.var + (found.mean - mean) ** 2)
    return Moments(found.count * found.mean.size, mean, var)


def standardised(pair: Codec, found: Moments) -> Codec:
    """The codec whose latents have mean 0 and variance 1.

        shift = mean,        scale = 1 / sqrt(var)

    Args:
        pair: the encoder and decoder; its own shift and scale are left behind.
        found: moments of what its encoder gives, by channel or `pooled`.

    Raises:
        ValueError: a channel that does not vary.

    Source: Rombach et al. 2022, arXiv:2112.10752, appendix G (there the scale alone, pooled, of
    the first batch).
    """
    var = arrays.concrete(found.var)
    if var is not None and not np.all(var > 0):
        raise ValueError(f"latents must vary in each channel, got variances {var.tolist()}")
    return codec(pair.encoder, pair.decoder, shift=found.mean, scale=1 / jnp.sqrt(found.var))
