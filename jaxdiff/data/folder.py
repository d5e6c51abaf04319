"""Datasets in folders of pictures, which are decoded when their rows are asked for.

The folders directly below the root are the classes, in the order of their names, as in
torchvision's ImageFolder; deeper ones belong to the class they lie in. Where the root holds but a
"train" and a "test" (or "val", "valid", "validation", "heldout"), those are the parts.
"""

import dataclasses
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxdiff.data import dataset, pictures

__all__ = ["example_shape", "load"]

_HELDOUT = ("test", "val", "valid", "validation", "heldout")
_DECODED = 2**26  # bytes of files that are decoded at once to be checked: a matter of seconds
_NAMED = 5  # files that a message names


class _Entry(NamedTuple):
    """A picture: its path, the part of the set, the folder that is its class, its header."""

    path: str
    part: int
    folder: str
    header: pictures.Header


@dataclasses.dataclass(frozen=True, eq=False)
class _Pictures:
    """The source: rows are decoded anew each time.

    A file that turns out to be damaged only then is stood in for by the next one of its class, so
    that a batch stays a function of (seed, step).
    """

    paths: Sequence[str]
    classes: np.ndarray
    size: int | None
    shape: tuple[int, ...]
    strict: bool
    dtype: np.dtype = dataclasses.field(default=np.dtype(np.uint8), init=False)
    _said: set[int] = dataclasses.field(default_factory=set, init=False)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return np.stack([self._standing_in(int(row)) for row in rows])

    def decode(self, row: int) -> np.ndarray:
        """The picture of one row.

        Raises:
            ValueError: the file is damaged.
        """
        path = self.paths[row]
        pixels = pictures.decode(path, grey=self.shape[-1] == 1, size=self.size)
        if pixels.shape != self.shape[1:]:
            raise ValueError(
                f"{path} is {_size(pixels.shape)} where {_size(self.shape[1:])} is due"
            )
        return pixels

    def _standing_in(self, row: int) -> np.ndarray:
        """The picture of a row, or of the next in its class that is whole."""
        try:
            return self.decode(row)
        except ValueError as error:
            if self.strict:
                raise
            if row not in self._said:
                self._said.add(row)
                warnings.warn(f"{error}; the next of its class stands in for it", stacklevel=2)
        alike = np.flatnonzero(self.classes == self.classes[row])
        after = np.roll(alike, -1 - int(np.searchsorted(alike, row)))[:-1]
        for other in after:
            try:
                return self.decode(int(other))
            except ValueError:
                continue
        raise ValueError(f"{self.paths[row]} cannot be read, nor can any other of its class")


def load(
    path: str | os.PathLike, *, size: int | None = None, strict: bool = False
) -> dataset.Dataset:
    """Lists a folder of pictures.

    Every header is read, and if the files have up to 64 MiB together, or `strict`, every file is
    decoded. What cannot be is left out, with one warning that names it.

    Args:
        path: the folder.
        size: the side of the squares that pictures are resized and cropped to; needed unless
            they are all of one size.
        strict: whether a damaged file is an error.

    Returns:
        The dataset, uint8 [H, W, 3], or [H, W, 1] if all are grey; with labels where there are at
        least two classes. The test part, if there is one, comes last and is marked.

    Raises:
        FileNotFoundError: where there is no such folder.
        ValueError: where it holds no pictures, or they differ in size, or lie both in classes and
            beside them.
    """
    path = Path(path).expanduser()
    source, counts, damaged = _listed(path, size, strict)
    if damaged:
        warnings.warn(_complaint(path, damaged, len(source)), stacklevel=2)
    return dataset.from_source(
        source,
        source.classes if source.classes.any() else None,
        name=path.name,
        test_from=counts[0] if len(counts) == 2 else None,
    )


def example_shape(
    path: str | os.PathLike, *, size: int | None = None, strict: bool = False
) -> tuple[int, ...]:
    """The shape of an example, (H, W, C); what is damaged is left to `load` to name.

    Raises:
        FileNotFoundError, ValueError: as `load` does.
    """
    return _listed(Path(path).expanduser(), size, strict)[0].shape[1:]


def _listed(
    path: Path, size: int | None, strict: bool
) -> tuple[_Pictures, list[int], Sequence[str]]:
    """The pictures, how many each part has, and what is said of those that cannot be read."""
    if size is not None and size < 1:
        raise ValueError(f"size must be >= 1, got {size}")
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}")
    damaged: dict[str, str] = {}
    roots = _roots(path)
    entries = list(_entries(roots, damaged))
    if entries and (strict or sum(os.path.getsize(e.path) for e in entries) <= _DECODED):
        damaged |= _undecodable(_source(entries, size, strict))
        entries = [entry for entry in entries if entry.path not in damaged]
    said = list(damaged.values())
    if strict and said:
        raise ValueError(_complaint(path, said, len(entries)))
    counts = [sum(entry.part == part for entry in entries) for part in range(len(roots))]
    for root, count in zip(roots, counts, strict=True):
        if count == 0:
            also = f"; {_complaint(path, said, len(entries))}" if said else ""
            raise ValueError(f"{root} holds no pictures ({', '.join(pictures.SUFFIXES)}){also}")
    return _source(entries, size, strict), counts, said


def _roots(path: Path) -> list[Path]:
    """The folders of the parts: for training, and if there is one for testing."""
    below = [p.name for p in _below(path) if p.is_dir()]
    heldout = [name for name in below if name.lower() in _HELDOUT]
    if len(below) == 2 and heldout and below[1 - below.index(heldout[0])].lower() == "train":
        return [path / name for name in sorted(below, key=lambda name: name in heldout)]
    if heldout and "train" in map(str.lower, below):
        raise ValueError(
            f"{path} must hold one part to train on and one to test on, got folders "
            f"{', '.join(below)}; name one of them instead"
        )
    return [path]


def _below(folder: Path) -> list[Path]:
    """What lies in a folder by name, but what is hidden and what archives of macOS leave."""
    found = (p for p in folder.iterdir() if not p.name.startswith(".") and p.name != "__MACOSX")
    return sorted(found, key=lambda p: p.name)


def _entries(roots: Sequence[Path], damaged: dict[str, str]) -> Iterator[_Entry]:
    """All pictures that have a header, in the order of their paths; the rest goes to `damaged`."""
    for part, root in enumerate(roots):
        for path in _files(root, ()):
            inside = path.relative_to(root).parts
            try:
                found = pictures.header(path)
            except ValueError as error:
                damaged[str(path)] = str(error)
                continue
            yield _Entry(str(path), part, inside[0] if len(inside) > 1 else "", found)


def _files(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """Files named as pictures in a folder and below, links followed but not in circles."""
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    for path in _below(folder):
        if os.path.isdir(path):
            yield from _files(path, (*above, here))
        elif path.suffix.lower() in pictures.SUFFIXES:
            yield path


def _source(entries: Sequence[_Entry], size: int | None, strict: bool) -> _Pictures:
    """The pictures as a source, which they must fit together for."""
    first = entries[0]
    for entry in entries:
        if size is None and entry.header[:2] != first.header[:2]:
            raise ValueError(
                f"pictures must be of one size unless size is given, got {first.path} of "
                f"{_size(first.header)} and {entry.path} of {_size(entry.header)}"
            )
    folders = sorted({entry.folder for entry in entries})
    if "" in folders and len(folders) > 1:
        stray = next(entry.path for entry in entries if not entry.folder)
        raise ValueError(
            f"pictures must lie in the folders of their classes or all beside each other, got "
            f"{stray} beside the folder {folders[1]}"
        )
    height, width = first.header[:2] if size is None else (size, size)
    channels = 1 if all(entry.header.grey for entry in entries) else 3
    number = {folder: i for i, folder in enumerate(folders)}
    return _Pictures(
        paths=[entry.path for entry in entries],
        classes=np.array([number[entry.folder] for entry in entries]),
        size=size,
        shape=(len(entries), height, width, channels),
        strict=strict,
    )


def _undecodable(source: _Pictures) -> dict[str, str]:
    """The files that cannot be decoded, and why."""

    def complaint(row: int) -> str | None:
        try:
            source.decode(row)
        except ValueError as error:
            return str(error)
        return None

    with ThreadPoolExecutor() as pool:  # decoding is C code that lets other threads run
        found = pool.map(complaint, range(len(source)))
        return {p: text for p, text in zip(source.paths, found, strict=True) if text is not None}


def _complaint(path: Path, damaged: Sequence[str], sound: int) -> str:
    """One message that names the first few damaged files."""
    named = "; ".join(damaged[:_NAMED])
    more = f"; and {len(damaged) - _NAMED} more" if len(damaged) > _NAMED else ""
    return (
        f"{path}: {len(damaged)} of {len(damaged) + sound} pictures cannot be read: {named}{more}"
    )


def _size(shape: Sequence[int]) -> str:
    return f"{shape[0]} x {shape[1]}"
