"""Rows of named tuples as CSV files, and back."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxdiff.data import files

__all__ = ["read", "write"]


def write(path: Path, rows: Sequence[Any]) -> None:
    """One named tuple a row, under the names of their fields; the folder is made."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([rows[0]._fields, *rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as file:
        file.write(text.getvalue().encode())


def read(path: Path) -> list[dict[str, str]]:
    """One dict a row."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
