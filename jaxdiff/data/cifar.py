"""CIFAR-10 and CIFAR-100 in their binary version, mapped from the files.

A record is one label byte (CIFAR-10) or two, coarse and fine (CIFAR-100), and 3072 bytes of
pixels: 32 x 32 red, green, blue, each row by row.

Source: Krizhevsky 2009, Learning multiple layers of features from tiny images; "Binary version"
on the page of the data set.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxdiff.data import dataset, files, sources

__all__ = ["SHAPE", "accepts", "load"]

SHAPE = (32, 32, 3)
_PIXELS = 32 * 32 * 3


class _Kind(NamedTuple):
    """One of the two sets: its files, and how many classes each label byte tells apart."""

    name: str
    train: tuple[str, ...]
    test: str
    classes: tuple[int, ...]

    @property
    def record(self) -> int:
        """The bytes of an example."""
        return len(self.classes) + _PIXELS


_KINDS = (
    _Kind("CIFAR-10", tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin", (10,)),
    _Kind("CIFAR-100", ("train.bin",), "test.bin", (20, 100)),
)


def accepts(source: str) -> bool:
    """Whether a name ends in .bin, or is that of a directory that holds such files."""
    path = Path(source).expanduser()
    if path.is_dir():
        return any(p.suffix == ".bin" for p in path.iterdir())
    return path.suffix == ".bin"


def load(path: str | os.PathLike, *, coarse: bool = False) -> dataset.Dataset:
    """Maps a set.

    Args:
        path: a directory with data_batch_1.bin .. data_batch_5.bin and test_batch.bin, or with
            train.bin and test.bin; or one such file.
        coarse: whether the labels of CIFAR-100 are its 20 superclasses.

    Returns:
        The dataset, images [32, 32, 3], named as the path; the test part comes last and is marked.

    Raises:
        FileNotFoundError: where there is no such file, or one of a set is missing.
        ValueError: where a file is not what it must be.
    """
    path = Path(path).expanduser()
    kind, paths = _found(path)
    if coarse and len(kind.classes) == 1:
        raise ValueError(f"coarse is for CIFAR-100, {path} is {kind.name}")
    parts = [_records(p, kind) for p in paths]
    pixels = [
        records[:, -_PIXELS:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1) for records in parts
    ]
    column = 0 if coarse else len(kind.classes) - 1
    return dataset.from_source(
        sources.joined([sources.read_only(x) for x in pixels], [p.name for p in paths]),
        np.concatenate([records[:, column] for records in parts]),
        name=path.name,
        test_from=sum(map(len, parts[:-1])) if path.is_dir() else None,
    )


def _found(path: Path) -> tuple[_Kind, list[Path]]:
    """Which set it is, and its files, the test part last."""
    if path.is_dir():
        kind = next((kind for kind in _KINDS if (path / kind.test).is_file()), None)
        if kind is None:
            wanted = " or ".join(f"{kind.test} ({kind.name})" for kind in _KINDS)
            raise FileNotFoundError(f"{path} holds .bin files, but no {wanted}")
        return kind, [path / name for name in (*kind.train, kind.test)]
    files.check_readable(path)
    fitting = [kind for kind in _KINDS if path.stat().st_size % kind.record == 0]
    # a size that fits both is that of 9.4 MB times a whole number: then the name decides
    fitting.sort(key=lambda kind: path.name not in (*kind.train, kind.test))
    if not fitting:
        records = " or ".join(f"{kind.record} ({kind.name})" for kind in _KINDS)
        raise ValueError(
            f"{path} must hold records of {records} bytes, got {path.stat().st_size} bytes"
        )
    return fitting[0], [path]


def _records(path: Path, kind: _Kind) -> np.ndarray:
    """The bytes of a file, a record a row, whose labels have been checked."""
    files.check_readable(path)
    size = path.stat().st_size
    if size == 0 or size % kind.record:
        raise ValueError(
            f"{path} must hold records of {kind.record} bytes ({kind.name}), got {size} bytes"
        )
    records = np.memmap(path, np.uint8, "r", shape=(size // kind.record, kind.record))
    most = records[:, : len(kind.classes)].max(axis=0)
    if np.any(most >= kind.classes):
        raise ValueError(
            f"{path}: labels of {kind.name} must be below {list(kind.classes)}, got {most.tolist()}"
        )
    return records
