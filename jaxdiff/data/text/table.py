"""Texts in tables: .csv with commas and quotes, everything else with tabs and none.

A column is given by its name, which the first line then says, or by its number from 0, where
there is no such line. Every error names the line.
"""

import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from jaxdiff.data import files
from jaxdiff.data.text.labelled import Labelled

__all__ = ["read", "read_texts"]


def read(
    path: str | os.PathLike,
    *,
    text: str = "text",
    label: str = "label",
    classes: Sequence[str] | None = None,
) -> Labelled:
    """Reads labelled texts.

    Args:
        path: a table in UTF-8.
        text, label: the two columns, both by name or both by number.
        classes: the classes there may be, in their order; those that are found, sorted as text,
            unless given.

    Returns:
        The texts in the order of the file, named as the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: naming the line: it has other columns, an empty text, no label, or a label
            that is not among `classes`; or there are no texts, or all are of one class.
    """
    path = Path(path).expanduser()
    if text == label:
        raise ValueError(f"text and label must be two columns, got {text!r} for both")
    texts, labels = [], []
    for line, (words, name) in _rows(path, (text, label)):
        if not name:
            raise ValueError(f"{path}: line {line} has no label")
        if classes is not None and name not in classes:
            known = ", ".join(classes)
            raise ValueError(f"{path}: line {line} has label {name!r}, must be one of {known}")
        texts.append(_wanted(words, path, line))
        labels.append(name)
    found = tuple(sorted(set(labels)) if classes is None else classes)
    if not texts:
        raise ValueError(f"{path} holds no texts")
    if len(found) < 2:
        raise ValueError(f"{path} must hold two classes or more, got only {found[0]!r}")
    places = {name: i for i, name in enumerate(found)}
    numbers = np.array([places[name] for name in labels], np.int32)
    return Labelled(tuple(texts), numbers, found, path.name)


def read_texts(path: str | os.PathLike, *, text: str = "text") -> tuple[str, ...]:
    """Reads the texts alone of a table, labelled or not.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: naming the line that has other columns or an empty text; or there are none.
    """
    path = Path(path).expanduser()
    texts = tuple(_wanted(words, path, line) for line, (words,) in _rows(path, (text,)))
    if not texts:
        raise ValueError(f"{path} holds no texts")
    return texts


def _wanted(words: str, path: Path, line: int) -> str:
    if not words:
        raise ValueError(f"{path}: line {line} has an empty text")
    return words


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """The number of each line, and what stands in the columns, without spaces around it."""
    files.check_readable(path)
    numbered = [column.isascii() and column.isdecimal() for column in columns]
    if any(numbered) and not all(numbered):
        raise ValueError(f"columns must be all names or all numbers, got {' and '.join(columns)}")
    commas = path.suffix.lower() == ".csv"
    how = {"delimiter": ","} if commas else {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    reader = csv.reader(io.StringIO(_decoded(path), newline=""), strict=True, **how)
    places, width = ([int(column) for column in columns] if all(numbered) else None), None
    try:
        for row in reader:
            if not row:  # a blank line
                continue
            if places is None:
                places, width = _places(row, columns, path, reader.line_num), len(row)
                continue
            width = width or len(row)
            if len(row) != width or max(places) >= width:
                wanted = max(width, max(places) + 1)
                raise ValueError(
                    f"{path}: line {reader.line_num} must have {wanted} columns, got {len(row)}"
                )
            yield reader.line_num, [row[place].strip() for place in places]
    except csv.Error as error:
        raise ValueError(f"{path}: line {reader.line_num}: {error}") from error


def _places(header: list[str], columns: tuple[str, ...], path: Path, line: int) -> list[int]:
    """Where the columns are, by the line that names them."""
    names = [name.strip() for name in header]
    for column in columns:
        if names.count(column) != 1:
            raise ValueError(
                f"{path}: line {line} must name a column {column!r} once, got"
                f" {', '.join(names)}; without names, give columns by number"
            )
    return [names.index(column) for column in columns]


def _decoded(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}: line {line} is not UTF-8: {error.reason}") from error
