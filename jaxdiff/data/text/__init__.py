"""Labelled texts: read from tables, divided, and dealt out as tokens."""

import os
from collections.abc import Sequence

from jaxdiff.data.text import table, vader
from jaxdiff.data.text.labelled import Labelled, digest, normalised, split, without
from jaxdiff.data.text.table import read_texts
from jaxdiff.data.text.tokens import Batches, Tokenizer, Tokens, in_turn, read_tokenizer

__all__ = [
    "Batches",
    "Labelled",
    "Tokenizer",
    "Tokens",
    "digest",
    "in_turn",
    "load",
    "normalised",
    "read_texts",
    "read_tokenizer",
    "split",
    "vader",
    "without",
]


def load(
    source: str | os.PathLike,
    *,
    text: str = "text",
    label: str = "label",
    classes: Sequence[str] | None = None,
) -> Labelled:
    """Loads labelled texts by their path.

    Args:
        source: a table, .tsv or .csv (see `table.read`); or vaderSentiment-3.3.2.tar.gz, of whose
            sentences on films and products the clearly negative and positive ones are taken.
        text, label: the columns of a table, by name or number.
        classes: the classes there may be, those found unless given.

    Returns:
        The texts, named as the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is of no known kind, or its content is not what it must be.
    """
    source = os.fspath(source)
    if source.endswith(".tar.gz"):
        rated = vader.two_classes(vader.read(source))
        if classes is not None and tuple(classes) != rated.classes:
            known, found = ", ".join(classes), ", ".join(rated.classes)
            raise ValueError(f"the classes must be {known}, those of {source} are {found}")
        return rated
    if source.lower().endswith((".tsv", ".csv", ".txt")):
        return table.read(source, text=text, label=label, classes=classes)
    raise ValueError(
        f"data must be a .tsv, .csv or .txt table or vaderSentiment-3.3.2.tar.gz, got {source}"
    )
