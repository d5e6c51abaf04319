"""From what a user types to a dataset: one table of readers, tried from the top.

A new kind of data is one row: how its sources look, what reads them, which options it knows,
which rows are held out.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jaxdiff.data import cifar, dataset, digits, folder, idx, npy, npz

__all__ = ["READERS", "Reader", "example_shape", "load", "options"]


class Reader(NamedTuple):
    """One kind of data.

    Attributes:
        pattern: how its sources are written, for people.
        accepts: whether a source is of this kind, from its name and what a directory lists.
        read: (source, **options) -> the whole dataset.
        shape: (source, **options) -> the shape of an example, whatever the values.
        options: the options of `load` that it knows.
        heldout_every: one row in so many is held out, where there is no official test part and
            the caller does not say otherwise.
    """

    pattern: str
    accepts: Callable[[str], bool]
    read: Callable[..., dataset.Dataset]
    shape: Callable[..., tuple[int, ...]]
    options: tuple[str, ...] = ()
    heldout_every: int = 10


READERS: tuple[Reader, ...] = (
    Reader(
        "digits",
        lambda source: source == "digits",
        lambda source: digits.load(),
        lambda source: digits.load().example_shape,
        heldout_every=2,
    ),
    Reader(
        "FILE.npz",
        lambda source: source.endswith(".npz"),
        npz.load,
        lambda source, **options: npz.example_shape(source),
        options=("value_range",),
    ),
    Reader(
        "FILE.npy",
        lambda source: source.endswith(".npy"),
        npy.load,
        lambda source, **options: npy.example_shape(source),
        options=("value_range",),
    ),
    Reader(
        "FILE-idx3-ubyte[.gz] or a directory of such (MNIST and its kin)",
        idx.accepts,
        idx.load,
        lambda source, **options: idx.example_shape(source),
        options=("value_range",),
    ),
    Reader(
        "FILE.bin or a directory of such (CIFAR, the binary version)",
        cifar.accepts,
        cifar.load,
        lambda source, **options: cifar.SHAPE,
        options=("coarse",),
    ),
    Reader(
        "a folder of pictures",
        lambda source: Path(source).expanduser().is_dir(),
        folder.load,
        folder.example_shape,
        options=("size", "strict"),
    ),
)


def load(
    source: str | os.PathLike,
    *,
    split: str = "all",
    heldout_every: int | None = None,
    value_range: Any = None,
    size: int | None = None,
    strict: bool = False,
    coarse: bool = False,
) -> dataset.Dataset:
    """Loads a dataset by its name or path.

    Args:
        source: "digits", or the path of an .npz file (see `npz.load`), of an .npy file
            (`npy.load`), of an idx file or a directory of such (`idx.load`), of a binary file of
            CIFAR or a directory of such (`cifar.load`), of a folder of pictures (`folder.load`).
        split: "train", "heldout" or "all".
        heldout_every: row i is held out where i mod heldout_every = heldout_every - 1; by default
            an official test part is, where there is none 2 for the digits (even rows train, odd
            rows are held out) and 10 for files, or the number of rows where there are fewer.
        value_range: (low, high), the numbers in a file that stand for -1 and 1, where neither its
            type nor the file itself says so.
        size: for folders, the side of the squares that pictures are resized and cropped to.
        strict: for folders, whether a damaged picture is an error rather than left out.
        coarse: for CIFAR-100, whether the labels are its 20 superclasses.

    Returns:
        The dataset; `with_batches` sets batch size, seed and augmentation.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where the source is of no known kind (the error lists them), has no such
            option, or its content is not what it must be.
    """
    source = os.fspath(source)
    reader = _reader(source)
    options = {"value_range": value_range, "size": size, "strict": strict, "coarse": coarse}
    whole = reader.read(source, **_known(reader, source, options))
    if heldout_every is None and whole.test_from is None:
        heldout_every = max(2, min(reader.heldout_every, len(whole)))
    return whole.part(split, heldout_every=heldout_every)


def example_shape(source: str | os.PathLike, *, size: int | None = None) -> tuple[int, ...]:
    """The shape of an example, (H, W, C) or (D,), even where its values need a `value_range`.

    Args:
        source, size: as for `load`.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where the source is of no known kind, or holds no such examples.
    """
    source = os.fspath(source)
    reader = _reader(source)
    return reader.shape(source, **_known(reader, source, {"size": size}))


def options(source: str | os.PathLike) -> tuple[str, ...]:
    """The options of `load` that a source of this kind knows.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where the source is of no known kind.
    """
    return _reader(os.fspath(source)).options


def _known(reader: Reader, source: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, all of which the reader must know."""
    given = {k: value for k, value in options.items() if value is not None and value is not False}
    for name, value in given.items():
        if name not in reader.options:
            wanted = ", ".join(other.pattern for other in READERS if name in other.options)
            raise ValueError(f"{name} is for {wanted}; got {name}={value} with {source}")
    return given


def _reader(source: str) -> Reader:
    """The first that accepts the source."""
    reader = next((reader for reader in READERS if reader.accepts(source)), None)
    if reader is None:
        if os.sep in source and not Path(source).expanduser().exists():
            raise FileNotFoundError(f"there is no data file {source}")
        choices = ", ".join(reader.pattern for reader in READERS)
        raise ValueError(f"unknown data {source!r}: must be one of {choices}")
    return reader
