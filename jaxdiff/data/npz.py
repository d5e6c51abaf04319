"""Datasets in numpy's .npz files: `x`, and if wanted `y` (labels) and `range` ([low, high]).

Nothing is unpickled: arrays of objects are refused.
"""

import contextlib
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff.data import dataset, files, images

__all__ = ["UNREADABLE", "example_shape", "load", "read", "write"]

# What an archive raises that is damaged, encrypted (RuntimeError), packed in an unknown way
# (NotImplementedError), or of a size that is made up (MemoryError).
UNREADABLE = (ValueError, OSError, EOFError, RuntimeError, NotImplementedError, MemoryError)
UNREADABLE += (KeyError, zipfile.BadZipFile, zlib.error)


def load(path: str | os.PathLike, *, value_range: Any = None) -> dataset.Dataset:
    """Reads a dataset.

    Args:
        path: a file with `x`: [N, H, W, C], [N, H, W] or [N, D]; uint8, or floats in [-1, 1], or
            anything real whose range is stated; if wanted `y`: [N] integers >= 0, and `range`:
            [low, high], the numbers that stand for -1 and 1.
        value_range: (low, high), instead of the file's own `range`.

    Returns:
        The dataset, named as the file.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it is no .npz file, is damaged, or holds what is not wanted.
    """
    path = Path(path).expanduser()
    with _opened(path) as file:
        x = _member(file, "x", path)
        y = _member(file, "y", path) if "y" in file.files else None
        if value_range is None and "range" in file.files:
            value_range = _member(file, "range", path)
    return dataset.from_arrays(x, y, value_range=value_range, name=path.name)


def example_shape(path: str | os.PathLike) -> tuple[int, ...]:
    """The shape of an example in a file, (H, W, C) or (D,), whatever its values.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it cannot be read, or x is of another rank.
    """
    path = Path(path).expanduser()
    with _opened(path) as file:
        shape = _member(file, "x", path).shape
    if len(shape) not in (2, 3, 4):
        raise ValueError(
            f"{path.name}: x must have shape [N, H, W, C], [N, H, W] or [N, D], got {list(shape)}"
        )
    return (*shape[1:], 1) if len(shape) == 3 else shape[1:]


def read(path: str | os.PathLike, key: str) -> np.ndarray:
    """One array of a file as it is.

    Args:
        path: the file, which holds an x.
        key: the array's name.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it cannot be read.
    """
    with _opened(Path(path).expanduser()) as file:
        return _member(file, key, Path(path))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    """The file, which holds an x."""
    files.check_readable(path)
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not an .npz file")
    try:
        opened = np.load(path, allow_pickle=False)
    except UNREADABLE as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    with opened as file:
        if "x" not in file.files:
            raise ValueError(f"{path} must hold an array x, got {', '.join(file.files) or 'none'}")
        yield file


def _member(file: np.lib.npyio.NpzFile, key: str, path: Path) -> np.ndarray:
    """One array of an open file, or an error that names it."""
    try:
        value = file[key]
    except UNREADABLE as error:
        raise ValueError(f"{path}: cannot read array {key}: {error}") from error
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{path}: {key} is not a numpy array")
    return value


def write(path: str | os.PathLike, x: Any, y: Any = None) -> None:
    """Writes examples in [-1, 1] so that `load` returns them, whole or not at all.

    Args:
        path: the file to write, ending in .npz; its directory must exist.
        x: [N, H, W, C] or [N, D] floats in [-1, 1].
        y: [N] integer labels >= 0, or None.

    Raises:
        ValueError: where the arrays are not what `load` would accept, or the name not .npz.
        OSError: where the file cannot be written.
    """
    if Path(path).suffix != ".npz":
        raise ValueError(f"path must end in .npz, got {path}")
    x = images.to_float(np.asarray(x), (-1, 1), "x")
    arrays = {"x": x, "range": np.array([-1.0, 1.0], np.float32)}
    if y is not None:
        arrays["y"] = images.check_labels(y, len(x))
    with files.replacing(path) as file:
        np.savez(file, **arrays)
