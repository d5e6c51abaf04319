"""A seal on a folder: the SHA-256 of every file in it, so that one altered byte is noticed.

The seal is a file that is written last, and whole. A folder without one was never completed; a
folder whose files differ from it was altered since.
"""

import hashlib
import json
from pathlib import Path

from jaxdiff.data import files

__all__ = ["faults", "is_sealed", "seal", "unseal"]

_NAME = "digests.json"


def seal(folder: Path) -> None:
    """Writes the digests of all files in `folder`; to be called once they are complete."""
    body = json.dumps({name: _digest(path) for name, path in _files(folder).items()}, indent=1)
    with files.replacing(folder / _NAME) as file:
        file.write(f"{_of_text(body)}\n{body}".encode())


def is_sealed(folder: Path) -> bool:
    """Whether the folder was completed."""
    return (folder / _NAME).is_file()


def unseal(folder: Path) -> None:
    """Takes the seal off: the folder counts as never completed."""
    (folder / _NAME).unlink(missing_ok=True)


def faults(folder: Path) -> list[str]:
    """What differs from the seal, in words; [] if nothing does.

    Files that the seal does not name, as file managers leave them, are of no account.

    Raises:
        OSError: a file cannot be read.
    """
    try:
        first, _, body = (folder / _NAME).read_text(encoding="utf-8").partition("\n")
        if first != _of_text(body):
            return [f"{_NAME} was altered"]
        wanted: dict[str, str] = json.loads(body)
    except FileNotFoundError:
        return ["it was never completed"]
    except UnicodeDecodeError:
        return [f"{_NAME} was altered"]
    found = _files(folder)
    missing = [f"{name} is missing" for name in wanted if name not in found]
    altered = [
        f"{name} was altered"
        for name, digest in wanted.items()
        if name in found and _digest(found[name]) != digest
    ]
    return missing + altered


def _files(folder: Path) -> dict[str, Path]:
    """All files but the seal, by their path within the folder."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    named = {path.relative_to(folder).as_posix(): path for path in found}
    return {name: path for name, path in named.items() if name != _NAME}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
