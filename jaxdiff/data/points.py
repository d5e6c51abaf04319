"""Points as they are, for what needs no range: embeddings, latents, features, images."""

import os
from pathlib import Path

import numpy as np

from jaxdiff.data import npy, npz, readers

__all__ = ["load_points"]


def load_points(source: str | os.PathLike) -> np.ndarray:
    """The examples of a file in the numbers that it holds, or of any data as `load` gives them.

    Args:
        source: an .npz file with `x`, an .npy file, or whatever `load` reads.

    Returns:
        [N, ...], float32.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or holds no real numbers [N, ...] of float32.
    """
    path = Path(source).expanduser()
    if path.suffix == ".npz" and path.is_file():
        x = npz.read(path, "x")
    elif path.suffix == ".npy" and path.is_file():
        x = np.array(npy.opened(path))
    else:
        return readers.load(str(source)).images()
    if x.ndim < 2 or x.dtype.kind not in "iuf" or not x.size:
        raise ValueError(
            f"{path.name} must hold real numbers [N, ...], got {x.dtype} {list(x.shape)}"
        )
    with np.errstate(over="ignore"):
        single = x.astype(np.float32)
    if np.isinf(single).any() and not np.isinf(x).any():
        raise ValueError(
            f"{path.name} must hold numbers of float32, got up to {np.abs(x).max():.3g}"
        )
    return single
