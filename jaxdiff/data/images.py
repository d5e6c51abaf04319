"""Arrays of examples: which are accepted, and how stored numbers become floats in [-1, 1].

Images are [N, H, W, C], channels last; vectors are [N, D]. Everything here is numpy on the host
and runs before anything is compiled.
"""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

__all__ = [
    "check_images",
    "check_labels",
    "check_range",
    "check_shape",
    "count_values",
    "from_uint8",
    "scaled",
    "to_float",
    "to_uint8",
]

MAX_CHANNELS = 4  # of pictures: grey, grey + alpha, RGB, RGBA
SLACK = 1e-6  # of the width of a range: a few roundings of float32, as a rescaling leaves
BLOCK = 2**25  # bytes looked at in one go, so that arrays on disk need not fit into memory


def check_images(x: Any, name: str = "images") -> np.ndarray:
    """Images or vectors that are what a model expects: finite floats in [-1, 1].

    Args:
        x: [N, H, W, C] or [N, D], any float type, in [-1, 1].
        name: what the errors call it.

    Returns:
        The same numbers as float32 numpy.

    Raises:
        ValueError: where `x` is empty, of another rank, channels first, not of a float type, not
            finite or out of [-1, 1]; and where it never goes below 0, as [0, 1] data do.
    """
    x = np.asarray(x)
    _check_floats(x, name)
    return x.astype(np.float32, copy=False)


def _check_floats(x: np.ndarray, name: str) -> None:
    """What `check_images` refuses."""
    check_shape(x, name)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"{name} must be floats in [-1, 1], got {x.dtype}; from_uint8 converts bytes"
        )
    low, high = _check_values(x, -1, 1, name)
    if 0 <= low < high:
        raise ValueError(
            f"{name} must span [-1, 1], got values in [{low:g}, {high:g}], which look like [0, 1] "
            "data: map them by 2 x - 1, or state value_range=(0, 1) where they are loaded"
        )


def check_shape(x: np.ndarray, name: str) -> None:
    """Refuses all but non-empty numeric [N, H, W, C], channels last, and [N, D].

    Raises:
        ValueError: naming `name`, the shape or type given and the one wanted.
    """
    wanted = "[N, H, W, C] or [N, D]"
    shape = list(x.shape)
    if not (jnp.issubdtype(x.dtype, jnp.floating) or jnp.issubdtype(x.dtype, jnp.integer)):
        raise ValueError(f"{name} must be an array of real numbers, got dtype {x.dtype}")
    if x.ndim not in (2, 4):
        raise ValueError(f"{name} must have shape {wanted}, got {shape}")
    if 0 in shape:
        raise ValueError(f"{name} must not be empty, got shape {shape}")
    if x.ndim == 4 and shape[1] <= MAX_CHANNELS and shape[1] < min(shape[2:]):
        raise ValueError(
            f"{name} must have its channels last, [N, H, W, C], got {shape}, which looks like "
            "[N, C, H, W]: transpose it by (0, 2, 3, 1)"
        )


def _blocks(x: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of an array, some megabytes at a time."""
    rows = max(1, BLOCK // max(1, x[:1].nbytes))
    return (x[i : i + rows] for i in range(0, len(x), rows))


def _check_values(x: np.ndarray, low: float, high: float, name: str) -> tuple[float, float]:
    """Refuses numbers that are not finite or lie outside [low, high]; returns their own range."""
    bad, least, most, whole = 0, np.inf, -np.inf, True
    for block in _blocks(x):
        if jnp.issubdtype(block.dtype, jnp.floating):
            with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused
                block = block.astype(np.float32, copy=False)
        bad += block.size - np.count_nonzero(np.isfinite(block))
        least, most = np.minimum(least, block.min()), np.maximum(most, block.max())
        whole = whole and bool(least >= 0) and np.array_equal(block, np.rint(block))
    if bad:
        raise ValueError(f"{name} must be finite, got {bad} NaN or infinite of {x.size} values")
    slack = SLACK * (high - low)
    if least < low - slack or most > high + slack:
        hint = ""
        if whole and most > 1:
            hint = ", which look like whole pixel values: store them as uint8, or state value_range"
        raise ValueError(
            f"{name} must lie in [{low:g}, {high:g}], got values in [{least:g}, {most:g}]{hint}"
        )
    return float(least), float(most)


def to_float(x: np.ndarray, value_range: Any, name: str) -> np.ndarray:
    """Maps stored numbers from their stated range onto [-1, 1].

    Args:
        x: [N, H, W, C] or [N, D], of any real type.
        value_range: (low, high), the numbers that become -1 and 1; None says that bytes span
            [0, 255] and floats [-1, 1].
        name: what the errors call it.

    Returns:
        float32 in [-1, 1]; bytes that span [0, 255] stay uint8, a quarter of the memory.

    Raises:
        ValueError: where the numbers do not fit the range, or whole numbers other than bytes come
            without one.
    """
    return scaled(x, check_range(x, value_range, name))


def check_range(x: np.ndarray, value_range: Any, name: str) -> tuple[float, float] | None:
    """Reads all numbers of an array, and says how `scaled` makes examples of it.

    Args:
        x, value_range, name: as for `to_float`.

    Returns:
        (low, high), or None for floats in [-1, 1].

    Raises:
        ValueError: as `to_float` does.
    """
    if value_range is None and jnp.issubdtype(x.dtype, jnp.floating):
        _check_floats(x, name)
        return None
    check_shape(x, name)
    if value_range is None and x.dtype != np.uint8:
        raise ValueError(f"{name} is {x.dtype}: state value_range=(low, high), or store uint8")
    if value_range is None and all(block.max() <= 1 for block in _blocks(x)) and x.any():
        raise ValueError(
            f"{name} is uint8 with values in [0, 1] where [0, 255] is due: state value_range=(0, 1)"
        )
    low, high = (0.0, 255.0) if value_range is None else _bounds(value_range)
    if x.dtype != np.uint8 or (low, high) != (0, 255):
        _check_values(x, low, high, name)
    return low, high


def scaled(x: np.ndarray, bounds: tuple[float, float] | None) -> np.ndarray:
    """Numbers that `check_range` has seen as float32 in [-1, 1], or as the bytes they are.

        2 (x - low) / (high - low) - 1

    Args:
        x: any of the rows.
        bounds: (low, high), None for floats in [-1, 1].
    """
    if bounds is None:
        return x.astype(np.float32, copy=False)
    low, high = bounds
    if x.dtype == np.uint8 and bounds == (0, 255):
        return x
    onto = (x.astype(np.float32) - np.float32(low)) * np.float32(2 / (high - low)) - 1
    return np.clip(onto, -1, 1)


def count_values(dtype: Any, bounds: tuple[float, float] | None) -> int | None:
    """How many values stored numbers can take, evenly over their range with both ends.

    Args:
        dtype: of what is stored.
        bounds: (low, high), as `check_range` returns them.

    Returns:
        high - low + 1 for whole numbers between whole bounds, else None.
    """
    if bounds is None or not jnp.issubdtype(dtype, jnp.integer):
        return None
    low, high = bounds
    return int(high - low) + 1 if low.is_integer() and high.is_integer() else None


def _bounds(value_range: Any) -> tuple[float, float]:
    """(low, high) as floats, finite and rising."""
    pair = np.asarray(value_range)
    if (
        pair.shape != (2,)
        or pair.dtype.kind not in "iuf"
        or not np.isfinite(pair).all()
        or not pair[0] < pair[1]
    ):
        raise ValueError(
            f"value_range must be two finite numbers (low, high) with low < high, got {value_range}"
        )
    return float(pair[0]), float(pair[1])


def check_labels(y: Any, n: int, name: str = "y") -> np.ndarray:
    """One class number for each example.

    Args:
        y: [N], of an integer type, >= 0.
        n: N, how many examples there are.
        name: what the errors call it.

    Returns:
        The labels as int32.

    Raises:
        ValueError: naming `name`, what was given and what was wanted.
    """
    y = np.asarray(y)
    if y.shape != (n,):
        raise ValueError(f"{name} must have shape [{n}], one label an example, got {list(y.shape)}")
    if y.dtype.kind not in "iu":
        raise ValueError(f"{name} must hold integers, got {y.dtype}")
    top = np.iinfo(np.int32).max
    if y.min() < 0 or y.max() > top:
        raise ValueError(f"{name} must lie in 0..{top}, got values in {y.min()}..{y.max()}")
    return y.astype(np.int32)


def from_uint8(x: np.ndarray) -> np.ndarray:
    """Bytes to float32 in [-1, 1]: x / 127.5 - 1."""
    return x.astype(np.float32) / np.float32(127.5) - 1


def to_uint8(x: Any) -> np.ndarray:
    """Floats to the nearest byte, clipped to [-1, 1]: the inverse of `from_uint8`."""
    x = np.asarray(x, np.float32)
    return np.rint((np.clip(x, -1, 1) + 1) * np.float32(127.5)).astype(np.uint8)
