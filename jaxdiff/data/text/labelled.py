"""Texts with classes, and their parts for training, validation and test."""

import dataclasses
import hashlib
import json
import unicodedata
from collections.abc import Sequence

import numpy as np

from jaxdiff import arrays
from jaxdiff.data import order

__all__ = ["Labelled", "digest", "normalised", "split", "without"]


@dataclasses.dataclass(frozen=True, eq=False)
class Labelled:
    """Texts, and the class of each.

    Attributes:
        texts: N of them.
        labels: [N] int32, places in `classes`.
        classes: the names of the classes.
        name: what errors and logs call it.
    """

    texts: tuple[str, ...]
    labels: np.ndarray
    classes: tuple[str, ...]
    name: str = "data"

    def __len__(self) -> int:
        return len(self.texts)

    def rows(self, chosen: Sequence[int] | np.ndarray) -> "Labelled":
        """Some of them, [M] integers in 0 .. N - 1, in that order."""
        texts = tuple(self.texts[i] for i in chosen)
        labels = self.labels[np.asarray(chosen, np.int64)]
        return dataclasses.replace(self, texts=texts, labels=labels)


def normalised(text: str) -> str:
    """What two texts share that count as the same: letters, without case, spacing or their form.

    Unicode's NFKC, its case folding, and single spaces.
    """
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def split(
    data: Labelled, *, validation: float = 0.1, test: float = 0.1, seed: int = 0
) -> tuple[Labelled, Labelled, Labelled]:
    """The parts for training, validation and test; no text is in two of them.

    Texts that are equal when `normalised` go to one part together. Every class is divided in the
    same proportions, up to one text.

    Args:
        data: the texts.
        validation, test: the shares of distinct texts, >= 0, their sum below 1; 0 for none.
        seed: what is drawn by, 0 <= seed < 2**63.

    Returns:
        Training, validation and test part, each in the order of `data`.

    Raises:
        ValueError: shares or a seed out of range, a share that comes to no text at all, or a
            class that no text is left of to train on.
    """
    order.check_seed(seed)
    for name, share in (("validation", validation), ("test", test)):
        arrays.check_range(name, share, 0, 1, "[)")
    if not validation + test < 1:
        raise ValueError(f"validation + test must be below 1, got {validation} + {test}")
    groups: dict[str, int] = {}
    of = np.array([groups.setdefault(normalised(text), len(groups)) for text in data.texts])
    first = np.unique(of, return_index=True)[1]
    drawn = order.shuffled(seed, 0, len(groups))[0]
    by_class = drawn[np.argsort(data.labels[first][drawn], kind="stable")]
    in_test = _spread(len(by_class), test)
    rest = by_class[~in_test]
    in_validation = _spread(len(rest), validation / (1 - test))
    chosen = (rest[~in_validation], rest[in_validation], by_class[in_test])
    parts = tuple(data.rows(np.flatnonzero(np.isin(of, groups))) for groups in chosen)
    for name, share, part in zip(
        ("validation", "test"), (validation, test), parts[1:], strict=True
    ):
        if share > 0 and not len(part):
            raise ValueError(
                f"{name}={share} of {len(groups)} distinct texts of {data.name} is none"
            )
    missing = sorted(set(range(len(data.classes))) - set(parts[0].labels.tolist()))
    if missing:
        name, count = data.classes[missing[0]], int(np.sum(data.labels == missing[0]))
        raise ValueError(
            f"class {name!r} of {data.name} has {count} texts, none is left to train on"
        )
    return parts


def _spread(n: int, share: float) -> np.ndarray:
    """Which of n in a row are taken, evenly, so that the first k hold share * k, rounded down."""
    taken = np.floor(share * np.arange(n + 1) + 1e-9)  # .1 * 30 must not be a hair below 3
    return np.diff(taken) > 0


def digest(*parts: Labelled) -> str:
    """What tells texts and labels from others: a SHA-256 of them in their order."""
    whole = [[part.texts, part.labels.tolist(), part.classes] for part in parts]
    return hashlib.sha256(json.dumps(whole).encode()).hexdigest()


def without(data: Labelled, other: Sequence[str]) -> Labelled:
    """What of `data` is not among other texts, by `normalised`."""
    known = {normalised(text) for text in other}
    return data.rows([i for i, text in enumerate(data.texts) if normalised(text) not in known])
