"""Measurements A of data, as functions x_0 [B, ...] -> [B, ...] for the posterior samplers.

Any function will do that treats each example by itself and that JAX can differentiate; these are
the usual linear ones. Their transposes come from `jax.linear_transpose`: none is written here.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays

__all__ = ["blur", "downsample", "gaussian_kernel", "mask", "matrix"]


@arrays.pytree
class Mask:
    """See `mask`."""

    keep: Array

    def __call__(self, x: Array) -> Array:
        """x where it is seen, 0 elsewhere, whatever stands there."""
        keep = self.keep if self.keep.ndim == x.ndim else self.keep[None]
        sizes = zip(keep.shape, x.shape, strict=False)
        if keep.ndim != x.ndim or any(k not in (1, n) for k, n in sizes):
            raise ValueError(
                f"mask must be {list(x.shape[1:])}, one example, with 1 for an axis that shares,"
                f" got {list(self.keep.shape)}"
            )
        return jnp.where(jnp.broadcast_to(keep, x.shape), x, 0)


@arrays.pytree
class Downsample:
    """See `downsample`."""

    factor: int = arrays.static()

    def __call__(self, x: Array) -> Array:
        """[B, H, W, C] to [B, H / factor, W / factor, C]."""
        _check_images(x)
        batch, height, width, channels = x.shape
        f = self.factor
        if height % f or width % f:
            raise ValueError(f"factor {f} must divide height and width, got {height} x {width}")
        blocks = x.reshape(batch, height // f, f, width // f, f, channels)
        return jnp.mean(blocks, axis=(2, 4))


@arrays.pytree
class Blur:
    """See `blur`."""

    kernel: Array

    def __call__(self, x: Array) -> Array:
        """[B, H, W, C] to the same shape."""
        _check_images(x)
        channels = x.shape[-1]
        kernel = jnp.asarray(self.kernel, x.dtype)[:, :, None, None]
        return jax.lax.conv_general_dilated(
            x,
            jnp.tile(kernel, (1, 1, 1, channels)),
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=channels,
            precision=jax.lax.Precision.HIGHEST,
        )


@arrays.pytree
class Matrix:
    """See `matrix`."""

    a: Array

    def __call__(self, x: Array) -> Array:
        """[B, ...] to [B, m]."""
        flat, a = x.reshape(x.shape[0], -1), jnp.asarray(self.a, x.dtype)
        if flat.shape[1] != a.shape[1]:
            raise ValueError(
                f"matrix must have a column for each of the {flat.shape[1]} numbers of an example,"
                f" got {list(a.shape)}"
            )
        return jnp.einsum("md,bd->bm", a, flat, precision=jax.lax.Precision.HIGHEST)


def mask(keep: Any) -> Mask:
    """Inpainting: y is x_0 where `keep` is 1, and 0 where it is 0.

    A whole image may be given as y: what it holds where `keep` is 0 does not count.

    Args:
        keep: of 0 and 1 or bool, 1 where data are seen: the shape of one example, such as
            [H, W, C] or [H, W, 1], or [B, ...] with a mask for each.

    Raises:
        ValueError: other numbers, or nothing seen at all; when asked, another shape.
    """
    numbers = arrays.concrete(keep)
    if numbers is not None:
        wrong = numbers[(numbers != 0) & (numbers != 1)]
        if wrong.size:
            raise ValueError(f"mask must hold 0 and 1 alone, 1 where seen, got {wrong.flat[0]}")
        if not numbers.any():
            raise ValueError("mask must see something, got 0 everywhere; 1 stands for seen")
    return Mask(jnp.asarray(keep).astype(bool))


def downsample(factor: int) -> Downsample:
    """Super-resolution: y is the mean of each block of factor x factor pixels.

    Args:
        factor: static, at least 2.

    Raises:
        ValueError: factor below 2; when asked, no images or sizes it does not divide.
    """
    if factor != int(factor) or factor < 2:
        raise ValueError(f"factor must be a whole number of at least 2, got {factor}")
    return Downsample(int(factor))


def blur(kernel: Any) -> Blur:
    """Deblurring: y is x_0 convolved with a kernel, each channel by itself, zeros outside.

    Args:
        kernel: [k, k], k odd, such as `gaussian_kernel` gives; not flipped, as nowhere in the
            field.

    Raises:
        ValueError: a kernel of another shape; when asked, no images.
    """
    shape = jnp.shape(kernel)
    if len(shape) != 2 or not shape[0] % 2 or not shape[1] % 2:
        raise ValueError(f"kernel must be [k, k] with odd k, got {list(shape)}")
    return Blur(jnp.asarray(kernel))


def gaussian_kernel(std: Any, radius: int) -> Array:
    """exp(-(i**2 + j**2) / (2 std**2)), normalised to sum 1.

    Args:
        std: [], in pixels, > 0.
        radius: static, at least 1; 3 std loses a quarter per cent along each axis.

    Returns:
        [2 radius + 1, 2 radius + 1].

    Raises:
        ValueError: std not positive or radius below 1.
    """
    arrays.check_range("std", std, 0, np.inf, "()")
    if radius < 1:
        raise ValueError(f"radius must be at least 1, got {radius}")
    offsets = jnp.arange(-radius, radius + 1, dtype=arrays.float_dtype())
    weights = jax.nn.softmax(-((offsets / std) ** 2) / 2)
    return jnp.outer(weights, weights)


def matrix(a: Any) -> Matrix:
    """y = A x_0, the example flattened.

    Args:
        a: [m, D].

    Raises:
        ValueError: no matrix; when asked, another number of columns than of numbers.
    """
    a = arrays.wide_float(a)
    if a.ndim != 2:
        raise ValueError(f"matrix must be [m, D], got {list(a.shape)}")
    return Matrix(a)


def _check_images(x: Array) -> None:
    if x.ndim != 4:
        raise ValueError(f"this measurement is of images [B, H, W, C], got {list(x.shape)}")
