"""Files: which can be read, and writing one whole or not at all."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = ["check_readable", "replacing"]


def check_readable(path: Path) -> None:
    """Raises unless there is a file that may be read.

    Raises:
        FileNotFoundError: there is no such file.
        PermissionError: it may not be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no data file {path}")
    with path.open("rb"):
        pass


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Opens a file that takes the place of `path` only once it is complete.

    The bytes go to a hidden neighbour, which is renamed over `path` at the end, so that a reader
    sees the old file or the new one. If the block raises, `path` is left as it was.

    Args:
        path: the file to write; its directory must exist.

    Yields:
        A binary file open for writing.

    Raises:
        OSError: the fitting kind (no such directory, no permission, a directory), naming `path`.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: there is no directory {path.parent}")
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a directory")
    # not tempfile, whose files no one else may read
    hidden = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        file = hidden.open("xb")
    except OSError as error:
        raise OSError(error.errno, f"cannot write: {error.strerror}", str(path)) from error
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(hidden, path)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise
