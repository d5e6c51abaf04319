"""What a command writes: refused before the work rather than after it."""

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

__all__ = ["check"]


def check(flag: str, path: Path | None, endings: Sequence[str]) -> None:
    """Raises unless a file can be written where the flag says; None is none to write.

    Args:
        flag: what the message calls it, such as "--out".
        path: the file.
        endings: how its name may end, such as (".csv", ".json").

    Raises:
        ValueError: it ends otherwise, is a directory, or cannot be made.
        FileNotFoundError: its directory does not exist.
    """
    if path is None:
        return
    if path.suffix not in endings:
        raise ValueError(f"{flag} must end in {' or '.join(endings)}, got {path}")
    if path.is_dir():
        raise ValueError(f"{flag} must be a file, got the directory {path}")
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"{flag}: there is no directory {path.parent} for {path.name}")
    trial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:  # by doing it: permissions do not tell of full disks or of what no one may write to
        trial.touch(exist_ok=False)
        os.unlink(trial)
    except OSError as error:
        raise ValueError(f"{flag} cannot be written: {error.strerror}: {path}") from error
