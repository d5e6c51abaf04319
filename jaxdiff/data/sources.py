"""Where examples are kept: anything that has a shape and a dtype and gives rows when asked.

A numpy array in memory is one; so is one that is mapped from a file, of which only the rows that
are asked for are read. The others here are made of such: rows of one, several in a row, and
numbers that are scaled as they are read.
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from jaxdiff.data import images

__all__ = ["Source", "in_memory", "joined", "read_only", "rows_of", "scaled"]


class Source(Protocol):
    """Examples, in memory or not.

    Attributes:
        shape: (N, H, W, C) or (N, D).
        dtype: uint8, or float32 for examples in [-1, 1].
    """

    shape: tuple[int, ...]
    dtype: np.dtype

    def __len__(self) -> int:
        """N."""
        ...

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """The examples of some rows, [B] integers in 0..N-1: an array [B, ...] in memory.

        A function of `rows` alone, and safe to call from several threads.
        """
        ...


def in_memory(x: Source) -> bool:
    """Whether rows cost no reading from disk."""
    return isinstance(x, np.ndarray) and not isinstance(x, np.memmap)


def read_only(x: np.ndarray) -> np.ndarray:
    """A view that cannot be written through."""
    view = x.view()
    view.flags.writeable = False
    return view


@dataclasses.dataclass(frozen=True, eq=False)
class _Rows:
    """Some rows of a source, in a given order."""

    source: Source
    rows: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows), *self.source.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        return self.source.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self.source[self.rows[rows]]


def rows_of(x: Source, rows: np.ndarray) -> Source:
    """Some rows, [M] integers: copied where `x` is in memory, else read when they are asked for."""
    return read_only(x[rows]) if in_memory(x) else _Rows(x, rows)


@dataclasses.dataclass(frozen=True, eq=False)
class _Joined:
    """Several sources one after the other."""

    parts: Sequence[Source]
    starts: np.ndarray  # the first row of each part, and the number of all

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.parts[0].shape[1:])

    @property
    def dtype(self) -> np.dtype:
        return self.parts[0].dtype

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        of = np.searchsorted(self.starts, rows, side="right") - 1
        for part in np.unique(of):
            here = of == part
            out[here] = self.parts[part][rows[here] - self.starts[part]]
        return out


def joined(parts: Sequence[Source], names: Sequence[str]) -> Source:
    """One source after the other: copied where all are in memory.

    Args:
        parts: at least one source.
        names: what errors call them.

    Raises:
        ValueError: naming two parts whose examples differ in shape or dtype.
    """
    first = parts[0]
    for part, name in zip(parts, names, strict=True):
        if (part.shape[1:], part.dtype) != (first.shape[1:], first.dtype):
            raise ValueError(
                f"the examples of {names[0]} and {name} must be alike, got "
                f"{first.dtype} {list(first.shape[1:])} and {part.dtype} {list(part.shape[1:])}"
            )
    if len(parts) == 1:
        return first
    if all(in_memory(part) for part in parts):
        return np.concatenate(parts)
    return _Joined(tuple(parts), np.cumsum([0, *map(len, parts)]))


@dataclasses.dataclass(frozen=True, eq=False)
class _Scaled:
    """An array on disk, whose numbers become float32 in [-1, 1] as they are read."""

    stored: np.ndarray
    bounds: tuple[float, float] | None
    dtype: np.dtype = dataclasses.field(default=np.dtype(np.float32), init=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored.shape

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return images.scaled(self.stored[rows], self.bounds)


def scaled(x: np.ndarray, bounds: tuple[float, float] | None) -> Source:
    """An array as examples: see `images.scaled`; what is on disk stays there."""
    as_it_is = x.dtype == np.uint8 if bounds == (0, 255) else bounds is None
    if in_memory(x) or (as_it_is and x.dtype in (np.uint8, np.float32)):
        return read_only(images.scaled(x, bounds))
    return _Scaled(x, bounds)
