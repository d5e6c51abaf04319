"""Datasets in numpy's .npy files: one array of examples, which stays on disk.

Nothing is unpickled: arrays of objects are refused.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff.data import dataset, files

__all__ = ["example_shape", "load", "opened"]


def load(path: str | os.PathLike, *, value_range: Any = None) -> dataset.Dataset:
    """Maps an array of examples from a file; it is read once to be checked.

    Args:
        path: a file with [N, H, W, C], [N, H, W] or [N, D]; uint8, or floats in [-1, 1], or
            anything real with `value_range`.
        value_range: (low, high), the numbers that stand for -1 and 1.

    Returns:
        The dataset, without labels, named as the file.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it is no .npy file, is damaged, or holds what is not wanted.
    """
    path = Path(path).expanduser()
    return dataset.from_arrays(opened(path), value_range=value_range, name=path.name)


def example_shape(path: str | os.PathLike) -> tuple[int, ...]:
    """The shape of an example in a file, (H, W, C) or (D,), whatever its values.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it cannot be read, or its array is of another rank.
    """
    path = Path(path).expanduser()
    shape = opened(path).shape
    if len(shape) not in (2, 3, 4):
        raise ValueError(
            f"{path.name} must have shape [N, H, W, C], [N, H, W] or [N, D], got {list(shape)}"
        )
    return (*shape[1:], 1) if len(shape) == 3 else shape[1:]


def opened(path: Path) -> np.ndarray:
    """The array of a file, of which nothing has been read yet.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it cannot be read.
    """
    files.check_readable(path)
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    # what numpy raises of a torn header, a size that is made up, an empty array
    except (ValueError, OSError, EOFError, OverflowError, SyntaxError, TypeError) as error:
        raise ValueError(f"{path} cannot be read as an .npy file: {error}") from error
