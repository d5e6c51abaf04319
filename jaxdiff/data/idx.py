"""Datasets in idx files, the format of MNIST and its kin, compressed by gzip or not.

A file is two zero bytes, a byte for the type of its numbers, a byte for the number of dimensions,
each dimension as 4 bytes, and the numbers, all big-endian. A set is a file of images, with its
labels beside it; or a directory of such, where "train" and "test" or "t10k" name the parts.

Source: LeCun, Cortes and Burges 1998, The MNIST database, "File formats".
"""

import gzip
import math
import os
import re
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jaxdiff.data import dataset, files, sources

__all__ = ["accepts", "example_shape", "load"]

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MOST = 1032  # bytes that a byte of deflate can stand for (zlib's technical details)
_NAME = re.compile(r"[.-](idx\d?|ubyte)(\.gz)?$")
_UNREADABLE = (OSError, EOFError, zlib.error)  # gzip's words for torn and altered files


def accepts(source: str) -> bool:
    """Whether a name is that of an idx file, or of a directory that holds images in such."""
    path = Path(source).expanduser()
    return bool(_NAME.search(path.name)) if not path.is_dir() else bool(_images_in(path))


def load(path: str | os.PathLike, *, value_range: Any = None) -> dataset.Dataset:
    """Reads a set of images; files that are not compressed stay on disk.

    Args:
        path: a file of images, its labels beside it if there are any; or a directory with such
            for training, and if wanted for testing.
        value_range: (low, high), the numbers that stand for -1 and 1, where they are not bytes.

    Returns:
        The dataset, named as the path; the test part comes last and is marked.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where a file is damaged, or holds what is not wanted.
    """
    path = Path(path).expanduser()
    parts = [_pair(part, value_range) for part in _parts(path)]
    names = [part.name for part in parts]
    labelled = [part.y is not None for part in parts]
    if any(labelled) != all(labelled):
        raise ValueError(f"{path}: {names[labelled.index(False)]} has no labels beside it")
    return dataset.from_source(
        sources.joined([part.x for part in parts], names),
        np.concatenate([part.y for part in parts]) if all(labelled) else None,
        name=path.name,
        test_from=len(parts[0]) if len(parts) == 2 else None,
        bins=parts[0].bins if len({part.bins for part in parts}) == 1 else None,
    )


def example_shape(path: str | os.PathLike) -> tuple[int, ...]:
    """The shape of an example, (H, W, C) or (D,), from the header alone.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where the header is not of an idx file of images or vectors.
    """
    first = _parts(Path(path).expanduser())[0]
    with _opened(first) as file:
        shape = _header(file, first)[1]
    return (*shape[1:], 1) if len(shape) == 3 else shape[1:]


def _images_in(folder: Path) -> list[Path]:
    """Files of images; where one is there both compressed and not, the latter, which is mapped."""
    named = (p for p in folder.iterdir() if "images" in p.name and _NAME.search(p.name))
    found = sorted((p for p in named if p.is_file()), reverse=True)
    plain = {p.name.removesuffix(".gz"): p for p in found}
    return [plain[name] for name in sorted(plain)]


def _parts(path: Path) -> list[Path]:
    """The files of images of a set: for training, and if there is one for testing."""
    if not path.is_dir():
        return [path]
    found = _images_in(path)
    test = [p for p in found if re.search("t10k|test", p.name)]
    train = [p for p in found if p not in test]
    if len(train) != 1 or len(test) > 1:
        listed = ", ".join(p.name for p in found)
        raise ValueError(
            f"{path} must hold one file of images to train on and at most one to test on, got "
            f"{listed}; name one of them instead"
        )
    return train + test


def _pair(path: Path, value_range: Any) -> dataset.Dataset:
    """A file of images with its labels."""
    x = _array(path)
    if x.ndim == 1:
        raise ValueError(f"{path} holds {len(x)} single numbers: name the file of images instead")
    name = path.name.replace("images", "labels").replace("idx3", "idx1").removesuffix(".gz")
    beside = [path.with_name(name + suffix) for suffix in ("", ".gz")]
    labels = next((p for p in beside if p != path and p.is_file()), None)
    y = None if labels is None else _array(labels)
    if y is not None and y.shape != x.shape[:1]:
        raise ValueError(
            f"{labels} must hold a label for each of the {len(x)} examples in {path.name}, got "
            f"shape {list(y.shape)}"
        )
    return dataset.from_arrays(x, y, value_range=value_range, name=path.name)


def _opened(path: Path) -> BinaryIO:
    """The file, whose content says whether it is compressed."""
    files.check_readable(path)
    return gzip.open(path) if _is_packed(path) else path.open("rb")


def _is_packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _header(file: BinaryIO, path: Path) -> tuple[np.dtype, tuple[int, ...]]:
    """The type and shape that a file says it has, if a file of its size can."""
    try:
        magic = file.read(4)
        rank = magic[3] if len(magic) == 4 else 0
        content = file.read(4 * rank)
    except _UNREADABLE as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if magic[:2] != b"\0\0" or rank == 0:
        raise ValueError(f"{path} is not an idx file: it begins with {magic.hex(' ') or 'nothing'}")
    if magic[2] not in _TYPES:
        wanted = ", ".join(f"{code:02x}" for code in _TYPES)
        raise ValueError(f"{path}: the type of numbers must be one of {wanted}, got {magic[2]:02x}")
    if len(content) < 4 * rank:
        raise ValueError(f"{path} ends within its header of {rank} dimensions")
    dtype, shape = np.dtype(_TYPES[magic[2]]), tuple(np.frombuffer(content, ">u4").tolist())
    size = math.prod(shape) * dtype.itemsize
    most = path.stat().st_size * (_MOST if _is_packed(path) else 1)
    if not 0 < size <= most:
        raise ValueError(
            f"{path} claims to hold {list(shape)} numbers of {dtype.itemsize} bytes, which a file "
            f"of {path.stat().st_size} bytes cannot"
            if size
            else f"{path} holds no examples: its shape is {list(shape)}"
        )
    return dtype, shape


def _array(path: Path) -> np.ndarray:
    """All numbers of a file: mapped where it is not compressed."""
    with _opened(path) as file:
        dtype, shape = _header(file, path)
        start, size = 4 + 4 * len(shape), math.prod(shape) * dtype.itemsize
        if not _is_packed(path):
            _check_size(path, path.stat().st_size - start, size)
            return np.memmap(path, dtype, "r", start, shape)
        try:
            content = file.read(size + 1)
        except _UNREADABLE as error:
            raise ValueError(f"{path} is damaged: {error}") from error
    _check_size(path, len(content), size)
    return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _check_size(path: Path, got: int, wanted: int) -> None:
    if got != wanted:
        what = "is cut short" if got < wanted else "goes on after its end"
        raise ValueError(f"{path} {what}: {wanted} bytes of numbers are due after the header")
