"""Texts as token numbers of one fixed length, and batches of them by (seed, step).

One length means one program, whatever the texts. The tokenizer is that of a `tokenizer.json`,
by the library `tokenizers`: pip install 'jaxdiff[text]'.
"""

import dataclasses
import operator
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdiff import arrays
from jaxdiff.data import files, order

__all__ = ["Batches", "Tokenizer", "Tokens", "in_turn", "read_tokenizer"]


class Tokens(NamedTuple):
    """Texts as numbers.

    Attributes:
        ids: [N, L] int32, 0 behind the end of a text.
        mask: [N, L] bool, true where there is a token.
    """

    ids: np.ndarray
    mask: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenizer:
    """From texts to tokens; `read_tokenizer` makes it.

    Attributes:
        inner: that of the library, which cuts texts to `length` and does not pad.
        length: L, with the tokens that the model's format adds, such as [CLS] and [SEP].
    """

    inner: Any
    length: int

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """The tokens of N texts; what is beyond the length is cut off.

        Raises:
            ValueError: naming a text that is empty or has no tokens.
        """
        ids = np.zeros((len(texts), self.length), np.int32)
        mask = np.zeros((len(texts), self.length), bool)
        for row, encoded in enumerate(self.inner.encode_batch(list(texts))):
            if all(encoded.special_tokens_mask):
                raise ValueError(f"text {row} must have a token, got {texts[row]!r}")
            ids[row, : len(encoded.ids)] = encoded.ids
            mask[row, : len(encoded.ids)] = True
        return Tokens(ids, mask)

    @property
    def count(self) -> int:
        """The number of tokens that a table must have rows for."""
        return 1 + max(self.inner.get_vocab().values())

    def count_cut(self, texts: Sequence[str]) -> int:
        """How many of the texts are longer than the length."""
        return sum(bool(encoded.overflowing) for encoded in self.inner.encode_batch(list(texts)))


def read_tokenizer(path: str | os.PathLike, length: int) -> Tokenizer:
    """Reads a tokenizer.

    Args:
        path: a tokenizer.json.
        length: tokens of a text, at least 3: two are of the model's format.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: the library is missing.
        ValueError: the file is no tokenizer, or the length too small.
    """
    arrays.check_count("length", length, 3)
    path = Path(path).expanduser()
    files.check_readable(path)
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError(
            "texts need the library tokenizers: pip install 'jaxdiff[text]'"
        ) from error
    try:
        inner = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises nothing more special
        raise ValueError(f"{path} is no tokenizer.json: {error}") from error
    inner.no_padding()  # by its own file it may pad to the longest of a batch
    inner.enable_truncation(max_length=operator.index(length))
    return Tokenizer(inner, operator.index(length))


@dataclasses.dataclass(frozen=True, eq=False)
class Batches:
    """Tokens with labels, dealt out as a function of (seed, step).

    Attributes:
        tokens: of N > 0 texts.
        labels: [N] int32.
        batch_size: texts a batch, which may exceed N.
        seed: what the order of texts is drawn from.
    """

    tokens: Tokens
    labels: np.ndarray
    batch_size: int
    seed: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    def batch_at(self, step: Any) -> dict[str, np.ndarray]:
        """The batch of one step: every text once an epoch, in an order of its own.

        Args:
            step: the number of the step, >= 0.

        Returns:
            {"ids": [B, L] int32, "mask": [B, L] bool, "y": [B] int32}.

        Raises:
            ValueError: where `step` is negative.
        """
        step = operator.index(step)
        if step < 0:
            raise ValueError(f"step must be >= 0, got {step}")
        rows, _ = order.deal(self.seed, len(self), step * self.batch_size, self.batch_size)
        return {
            "ids": self.tokens.ids[rows],
            "mask": self.tokens.mask[rows],
            "y": self.labels[rows],
        }


def in_turn(tokens: Tokens, batch_size: int) -> Iterator[Tokens]:
    """All tokens in their order, the last batch filled up with the last text."""
    count = len(tokens.ids)
    for first in range(0, count, batch_size):
        rows = np.minimum(np.arange(first, first + batch_size), count - 1)
        yield Tokens(tokens.ids[rows], tokens.mask[rows])
