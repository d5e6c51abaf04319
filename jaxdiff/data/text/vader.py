"""Sentences with the ratings of twenty people each, from the sources of vaderSentiment 3.3.2.

    pip download --no-deps --no-binary :all: vaderSentiment==3.3.2

brings the archive, under the MIT licence. It is read where it lies, nothing is unpacked.
"""

import hashlib
import io
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxdiff import arrays
from jaxdiff.data import files
from jaxdiff.data.text.labelled import Labelled

__all__ = ["SUBSETS", "Rated", "read", "three_classes", "two_classes"]

SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
SUBSETS = {
    "films": "movieReviewSnippets",
    "products": "amazonReviewSnippets",
    "tweets": "tweets",
    "newspaper": "nytEditorialSnippets",
}
"""The four sets of sentences, and how their files are called."""

_INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
_TABLE = "hutto_ICWSM_2014/{}_GroundTruth.txt"


class Rated(NamedTuple):
    """Sentences and the mean of their ratings.

    Attributes:
        texts: N of them.
        ratings: [N] float64, -4 (very negative) .. 4 (very positive).
    """

    texts: tuple[str, ...]
    ratings: np.ndarray


def read(path: str | os.PathLike, subsets: Sequence[str] = ("films", "products")) -> Rated:
    """Reads sentences from the source distribution of vaderSentiment 3.3.2.

    Args:
        path: vaderSentiment-3.3.2.tar.gz, of whose very bytes it must be.
        subsets: which of `SUBSETS`: 10,605 sentences of film reviews, 3,708 of product reviews,
            4,200 tweets, 5,190 of newspaper editorials.

    Returns:
        The sentences of the subsets, one after the other.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unknown subset or none, or another file.

    Source: Hutto and Gilbert 2014, VADER: a parsimonious rule-based model for sentiment analysis
    of social media text (ICWSM).
    """
    unknown = [name for name in subsets if name not in SUBSETS]
    if unknown or not subsets:
        got = unknown[0] if unknown else "none"
        raise ValueError(f"subsets must be of {', '.join(SUBSETS)}, got {got}")
    path = Path(path).expanduser()
    files.check_readable(path)
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise ValueError(f"{path} is not vaderSentiment-3.3.2.tar.gz: its sha256 is another")
    texts, ratings = [], []
    inner = _member(data, _INNER)
    for name in subsets:
        table = _member(inner, _TABLE.format(SUBSETS[name])).decode()
        for line in table.splitlines():
            _, rating, text = line.split("\t")
            texts.append(text.strip())
            ratings.append(float(rating))
    return Rated(tuple(texts), np.array(ratings))


def _member(archive: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as opened:
        return opened.extractfile(name).read()


def two_classes(rated: Rated, dead_zone: float = 0.5) -> Labelled:
    """Negative and positive sentences; those between, |rating| < dead_zone, are left out.

    Args:
        rated: the sentences.
        dead_zone: in [0, 4); with 0, sentences rated exactly 0 are positive.

    Raises:
        ValueError: `dead_zone` is out of range.
    """
    arrays.check_range("dead_zone", dead_zone, 0, 4, "[)")
    chosen = np.flatnonzero(np.abs(rated.ratings) >= dead_zone)
    labels = (rated.ratings[chosen] >= 0).astype(np.int32)
    texts = tuple(rated.texts[i] for i in chosen)
    return Labelled(texts, labels, ("negative", "positive"), "vader")


def three_classes(rated: Rated, dead_zone: float = 0.5) -> Labelled:
    """The same, with those between as a class of their own, "neutral".

    Args:
        rated: the sentences.
        dead_zone: in [0, 4).

    Raises:
        ValueError: `dead_zone` is out of range.
    """
    arrays.check_range("dead_zone", dead_zone, 0, 4, "[)")
    sides = np.sign(rated.ratings) * (np.abs(rated.ratings) >= dead_zone)
    names = ("negative", "neutral", "positive")
    return Labelled(rated.texts, (sides + 1).astype(np.int32), names, "vader")
