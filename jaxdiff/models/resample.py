"""Halving and doubling an image by a finite impulse response: the filters of EDM's networks.

    down(x)_i = sum_k f_k x_{2i + k - p}            along both axes, pixels outside being 0,
    up(x)_j   = sum_k 2 f_k x_{(j + p - k) / 2}     over whole indices alone

with f = taps / sum(taps) and p = (len(taps) - 1) // 2. [1, 1] is the mean of 2x2 pixels and their
repetition; [1, 3, 3, 1] is smoother. They are sums of strided slices and not convolutions of one
channel each, which are slow on every backend, and of float32 numbers whatever the image's dtype.
"""

import jax.numpy as jnp
from jax import Array, lax

__all__ = ["check_taps", "down", "up"]

Taps = tuple[float, ...]


def down(x: Array, taps: Taps = (1, 1), *, padded: bool = True) -> Array:
    """Half the height and width.

    Args:
        x: [B, H, W, C], H and W even.
        taps: the filter before normalisation, of even length.
        padded: whether zeros are to be put around; if not, `x` brings its margin of p pixels.

    Returns:
        [B, H/2, W/2, C], in the dtype of `x`.

    Source: Karras et al. 2022, arXiv:2206.00364, table 7 (resampling filter).
    """
    margin = (len(taps) - 1) // 2 if padded else 0
    out = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    for axis in (1, 2):
        wide = _pad(out, axis, margin)
        size = (wide.shape[axis] - len(taps)) // 2 + 1
        parts = (
            tap * lax.slice_in_dim(wide, k, k + 2 * size - 1, 2, axis)
            for k, tap in enumerate(_normalised(taps))
        )
        out = sum(parts)
    return out.astype(x.dtype)


def up(x: Array, taps: Taps = (1, 1)) -> Array:
    """Twice the height and width.

    Args:
        x: [B, H, W, C].
        taps: the filter before normalisation, of even length.

    Returns:
        [B, 2 H, 2 W, C], in the dtype of `x`.

    Source: Karras et al. 2022, arXiv:2206.00364, table 7 (resampling filter).
    """
    margin, reach = (len(taps) - 1) // 2, len(taps) // 2
    out = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    for axis in (1, 2):
        size, wide = out.shape[axis], _pad(out, axis, reach)
        phases = []
        for parity in (0, 1):  # of the output pixel j = 2 m + parity, which only such k reach
            terms = []
            for k in range((parity + margin) % 2, len(taps), 2):
                start = reach + (parity + margin - k) // 2
                part = lax.slice_in_dim(wide, start, start + size, 1, axis)
                terms.append(2 * _normalised(taps)[k] * part)
            phases.append(sum(terms))
        out = jnp.stack(phases, axis + 1).reshape(
            *x.shape[:1], *(2 * n if i == axis else n for i, n in enumerate(out.shape) if i)
        )
    return out.astype(x.dtype)


def check_taps(taps: Taps) -> None:
    """Raises ValueError unless `taps` is a filter of even length with a sum to divide by."""
    if len(taps) < 2 or len(taps) % 2 or sum(taps) == 0:
        raise ValueError(
            f"taps must be of even length with a sum that is not 0, got taps={tuple(taps)}"
        )


def _normalised(taps: Taps) -> list[float]:
    return [tap / sum(taps) for tap in taps]


def _pad(x: Array, axis: int, margin: int) -> Array:
    widths = [(0, 0)] * x.ndim
    widths[axis] = (margin, margin)
    return jnp.pad(x, widths)
