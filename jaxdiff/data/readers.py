"""From what a user types to a dataset: one table of readers, tried from the top.

A new kind of data is one row: how its sources look, what reads them, which rows are held out.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxdiff.data import dataset, digits, npz

__all__ = ["READERS", "Reader", "example_shape", "load"]


class Reader(NamedTuple):
    """One kind of data.

    Attributes:
        pattern: how its sources are written, for people.
        accepts: whether a source is of this kind, from its name alone.
        read: (source, value_range) -> the whole dataset.
        shape: source -> the shape of an example, whatever the values.
        heldout_every: one row in so many is held out, unless the caller says otherwise.
    """

    pattern: str
    accepts: Callable[[str], bool]
    read: Callable[[str, Any], dataset.Dataset]
    shape: Callable[[str], tuple[int, ...]]
    heldout_every: int


def _read_digits(source: str, value_range: Any) -> dataset.Dataset:
    """The digits, whose range is known."""
    if value_range is not None:
        raise ValueError(f"value_range is for files, {source} have their own; got {value_range}")
    return digits.load()


READERS: tuple[Reader, ...] = (
    Reader(
        "digits",
        lambda source: source == "digits",
        _read_digits,
        lambda source: digits.load().example_shape,
        heldout_every=2,
    ),
    Reader(
        "FILE.npz",
        lambda source: source.endswith(".npz"),
        lambda source, value_range: npz.load(source, value_range=value_range),
        npz.example_shape,
        heldout_every=10,
    ),
)


def load(
    source: str | os.PathLike,
    *,
    split: str = "all",
    value_range: Any = None,
    heldout_every: int | None = None,
) -> dataset.Dataset:
    """Loads a dataset by its name or path.

    Args:
        source: "digits", or the path of an .npz file (see `npz.load`).
        split: "train", "heldout" or "all".
        value_range: (low, high), the numbers in a file that stand for -1 and 1, where neither its
            type nor the file itself says so.
        heldout_every: row i is held out where i mod heldout_every = heldout_every - 1; by default
            2 for the digits (even rows train, odd rows are held out) and 10 for files, or the
            number of rows where there are fewer.

    Returns:
        The dataset; `with_batches` sets batch size, seed and augmentation.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where the source is of no known kind (the error lists them), or its content is
            not what it must be.
    """
    source = os.fspath(source)
    reader = _reader(source)
    whole = reader.read(source, value_range)
    if heldout_every is None:
        heldout_every = max(2, min(reader.heldout_every, len(whole)))
    return whole.part(split, heldout_every=heldout_every)


def example_shape(source: str | os.PathLike) -> tuple[int, ...]:
    """The shape of an example, (H, W, C) or (D,), even where its values need a `value_range`.

    Args:
        source: as for `load`.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where the source is of no known kind, or holds no such examples.
    """
    source = os.fspath(source)
    return _reader(source).shape(source)


def _reader(source: str) -> Reader:
    """The first that accepts the source."""
    reader = next((reader for reader in READERS if reader.accepts(source)), None)
    if reader is None:
        choices = ", ".join(reader.pattern for reader in READERS)
        raise ValueError(f"unknown data {source!r}: must be one of {choices}")
    return reader
