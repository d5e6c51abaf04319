"""Non-leaking augmentation: geometric distortions that the network is told of.

The network gets a label of 9 numbers beside each image, zero where nothing was done to it. Told
zeros it models the images as they are, however many distorted ones it learned from.

    flip x      for half of the images
    flip y      for half of those chosen
    scale       by 2**(.2 w),  w ~ N(0, 1)
    rotation    by an angle a, uniform in (-pi, pi)
    anisotropy  by 2**(.2 w) along the axis at angle r, 2**(-.2 w) across it,  w ~ N(0, 1),
                r = 0 for half of those chosen, else uniform in (-pi, pi)
    shift       by (w_x, w_y) eighths of the image,  w ~ N(0, 1)

Each but the first is chosen with a probability p, by itself. The label is

    [flip x, flip y, w of scale, cos a - 1, sin a, w cos r, w sin r, w_x, w_y]

Source: Karras et al. 2022, arXiv:2206.00364, appendix F.2, after Karras et al. 2020,
arXiv:2006.06676, appendix B. Probabilities, laws and label are theirs. Images are resampled by
one cubic spline instead of a wavelet's double resolution: as sharp, a single gather, and SciPy
has the same; it does not filter before it shrinks, which scales of 2**(.2 w) hardly do.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays

__all__ = ["LABELS", "Distortion", "augment", "distort", "draw", "label", "resample"]

LABELS = 9
"""How many numbers tell the network what was done."""

_STD = 0.2  # of log2 of scale and anisotropy
_SHIFT = 0.125  # of the side of the image


class Distortion(NamedTuple):
    """What is done to one image; zeros leave it as it is.

    Attributes:
        flip: [2], whether mirrored left to right, and upside down.
        scale: [], w.
        rotation: [], the angle.
        aniso: [2], w and the angle r.
        shift: [2], w_x (to the right) and w_y (down).
    """

    flip: Array
    scale: Array
    rotation: Array
    aniso: Array
    shift: Array


def augment(key: Array, x: Array, probability: Array | float) -> tuple[Array, Array]:
    """Distorts images at random, and says how.

    Args:
        key: one key; example i depends on (key, i) alone.
        x: [B, H, W, C], float, sides of at least 2 pixels.
        probability: [], p, in [0, 1]; at 0 there are no flips either. EDM's runs on CIFAR-10
            have .12, on FFHQ and AFHQ .15.

    Returns:
        Images [B, H, W, C], labels [B, 9] float32: what was not distorted is the same bit for
        bit, with a label of zeros. Like any sharp resampling it overshoots a little at edges.

    Raises:
        ValueError: a probability out of range, more than one key, or x of another rank, no floats
            or too small.
    """
    arrays.check_range("probability", probability, 0, 1)
    if x.ndim != 4 or min(x.shape[1:3]) < 2:
        raise ValueError(f"x must be images [B, H, W, C] of 2 x 2 or more, got {list(x.shape)}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"x must be floats in [-1, 1], got {x.dtype}")
    if jnp.shape(key):
        raise ValueError(f"key must be one key, got keys of shape {list(jnp.shape(key))}")
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(x.shape[0]))
    drawn = jax.vmap(draw, (0, None))(keys, probability)
    wide = x.astype(np.promote_types(x.dtype, np.float32))  # half a float places no pixel
    return jax.vmap(distort)(wide, drawn).astype(x.dtype), jax.vmap(label)(drawn)


def draw(key: Array, probability: Array | float) -> Distortion:
    """What is to be done to one image.

    Args:
        key: its key.
        probability: as for `augment`.
    """
    chosen_key, flip_key, normal_key, angle_key, axis_key = jax.random.split(key, 5)
    chosen = jax.random.uniform(chosen_key, (5,)) < probability
    mirrored = jnp.stack([jnp.asarray(probability) > 0, chosen[0]])
    w = jnp.where(chosen[jnp.array([1, 3, 4, 4])], jax.random.normal(normal_key, (4,)), 0)
    angles = jax.random.uniform(angle_key, (2,), minval=-math.pi, maxval=math.pi)
    inclined = chosen[3] & jax.random.bernoulli(axis_key)
    angles = jnp.where(jnp.stack([chosen[2], inclined]), angles, 0)
    return Distortion(
        flip=mirrored & jax.random.bernoulli(flip_key, shape=(2,)),
        scale=w[0],
        rotation=angles[0],
        aniso=jnp.stack([w[1], angles[1]]),
        shift=w[2:],
    )


def label(drawn: Distortion) -> Array:
    """What the network is told of one distortion, [9] float32."""
    w, r = drawn.aniso
    rest = [
        drawn.scale,
        jnp.cos(drawn.rotation) - 1,
        jnp.sin(drawn.rotation),
        w * jnp.cos(r),
        w * jnp.sin(r),
        *drawn.shift,
    ]
    return jnp.concatenate([drawn.flip.astype(jnp.float32), jnp.stack(rest).astype(jnp.float32)])


def distort(x: Array, drawn: Distortion) -> Array:
    """Does it to one image.

        y(p) = x(M (p - d)),  M = 2**(-.2 w_scale) R(a) R(-r) diag(2**(-.2 w), 2**(.2 w)) R(r)

    with p from the middle of the image, the first axis to the right, the second down, R(a) =
    [[cos a, -sin a], [sin a, cos a]], and d the shift in pixels.

    Args:
        x: [H, W, C].
        drawn: what is done; the flips first.

    Returns:
        [H, W, C].
    """
    x = jnp.where(drawn.flip[0], x[:, ::-1], x)
    x = jnp.where(drawn.flip[1], x[::-1], x)
    w, r = drawn.aniso
    stretch = jnp.exp2(_STD * jnp.stack([-w, w]))
    matrix = _product(_turn(-r), stretch[:, None] * _turn(r))
    matrix = _product(_turn(drawn.rotation), matrix)
    height, width = x.shape[:2]
    shift = drawn.shift * _SHIFT * jnp.array([width, height], jnp.float32)
    moved = resample(x, jnp.exp2(-_STD * drawn.scale) * matrix, shift)
    still = (drawn.scale == 0) & (drawn.rotation == 0) & (w == 0) & jnp.all(drawn.shift == 0)
    return jnp.where(still, x, moved)


def _turn(angle: Array) -> Array:
    """R(angle)."""
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])])


def _product(a: Array, b: Array) -> Array:
    """a b in full precision, which an accelerator's default is not."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def resample(x: Array, matrix: Array, shift: Array) -> Array:
    """One image as a cubic spline at other places: y(p) = x(matrix (p - shift)).

    Beyond the border the image is mirrored at its outermost pixels. At whole pixels the spline is
    the pixel, bit for bit, so that quarter turns and whole shifts of a square lose nothing.

    Args:
        x: [H, W, C], H and W at least 2.
        matrix: [2, 2], acts on (right, down) from the middle of the image.
        shift: [2], in pixels.

    Returns:
        [H, W, C] of the dtype of x.
    """
    height, width = x.shape[:2]
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    right = jnp.arange(width, dtype=x.dtype)[None] - middle_x - shift[0].astype(x.dtype)
    below = jnp.arange(height, dtype=x.dtype)[:, None] - middle_y - shift[1].astype(x.dtype)
    m = matrix.astype(x.dtype)
    across, x_taps, x_exact = _taps(m[0, 0] * right + m[0, 1] * below + middle_x, width)
    down, y_taps, y_exact = _taps(m[1, 0] * right + m[1, 1] * below + middle_y, height)
    filters = (jnp.asarray(_prefilter(n), x.dtype) for n in (height, width))
    spline = jnp.einsum("hi,wj,ijc->hwc", *filters, x, precision=jax.lax.Precision.HIGHEST)
    smooth = sum(
        (y_taps[a] * x_taps[b])[..., None] * spline[down[a], across[b]]
        for a in range(4)
        for b in range(4)
    )
    return jnp.where((x_exact & y_exact)[..., None], x[down[1], across[1]], smooth)


def _taps(u: Array, n: int) -> tuple[Array, Array, Array]:
    """The four pixels of an axis about a place, their cubic B-spline weights, whether one alone.

    Args:
        u: [...], places.
        n: the number of pixels.

    Returns:
        Indices [4, ...] in 0..n-1, weights [4, ...], and whether u is a whole number, [...].
    """
    low = jnp.floor(u)
    f = u - low
    g = 1 - f
    weights = jnp.stack([g**3, 4 - 6 * f**2 + 3 * f**3, 4 - 6 * g**2 + 3 * g**3, f**3]) / 6
    index = low.astype(jnp.int32)[None] + jnp.arange(-1, 3).reshape((4,) + (1,) * u.ndim)
    index = index % (2 * n - 2)
    return jnp.minimum(index, 2 * n - 2 - index), weights, f == 0


@functools.cache
def _prefilter(n: int) -> np.ndarray:
    """[n, n]: from pixels to the coefficients of the spline through them, mirrored at both ends."""
    sampled = (np.eye(n, k=-1) + 4 * np.eye(n) + np.eye(n, k=1)) / 6
    sampled[0, 1] *= 2
    sampled[-1, -2] *= 2
    return np.linalg.inv(sampled)
