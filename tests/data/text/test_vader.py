"""VADER's ratings. Truth: an archive that the test wrote; and for the published one, where
VADER_ARCHIVE names it, the numbers of sentences that its own README states."""

import hashlib
import io
import os
import tarfile

import numpy as np
import pytest

from jaxdiff.data import text
from jaxdiff.data.text import vader

FILMS = "1\t2.5\tA fine film.\r\n2\t-0.4\tIt is a film.\r\n3\t-3.0\tAwful, no\r\n"
PRODUCTS = "1_1\t0.5\tworks well enough\r\n1_2\t-0.5\tbroke down\r\n"


def packed(members):
    into = io.BytesIO()
    with tarfile.open(fileobj=into, mode="w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return into.getvalue()


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """One of the published form, of five sentences."""
    inner = packed(
        {
            "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt": FILMS.encode(),
            "hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt": PRODUCTS.encode(),
        }
    )
    name = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
    path = tmp_path / "vaderSentiment-3.3.2.tar.gz"
    path.write_bytes(packed({name: inner}))
    monkeypatch.setattr(vader, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def test_sentences_and_ratings(archive):
    rated = vader.read(archive)
    assert rated.texts[1:4] == ("It is a film.", "Awful, no", "works well enough")
    assert rated.ratings.tolist() == [2.5, -0.4, -3.0, 0.5, -0.5]
    assert len(vader.read(archive, ["products"]).texts) == 2
    assert sorted(os.listdir(archive.parent)) == [archive.name]  # nothing is unpacked


def test_two_classes(archive):
    """By hand: -0.4 lies in the dead zone, its ends do not."""
    data = text.load(archive)
    assert data.classes == ("negative", "positive")
    assert data.labels.tolist() == [1, 0, 1, 0]
    assert "It is a film." not in data.texts
    wide = vader.two_classes(vader.read(archive), 1.0)
    assert wide.labels.tolist() == [1, 0]


def test_three_classes(archive):
    data = vader.three_classes(vader.read(archive))
    assert [data.classes[i] for i in data.labels] == [
        "positive",
        "neutral",
        "negative",
        "positive",
        "negative",
    ]


def test_mistakes(archive):
    with pytest.raises(ValueError, match=r"subsets must be of films, products, .*, got books"):
        vader.read(archive, ["books"])
    with pytest.raises(ValueError, match=r"got none"):
        vader.read(archive, [])
    with pytest.raises(ValueError, match=r"dead_zone must lie in \[0, 4\), got 4"):
        vader.two_classes(vader.read(archive), 4.0)
    with pytest.raises(ValueError, match=r"the classes must be good, bad"):
        text.load(archive, classes=("good", "bad"))
    with pytest.raises(FileNotFoundError):
        vader.read(archive.with_name("none.tar.gz"))
    archive.write_bytes(archive.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"is not vaderSentiment-3.3.2.tar.gz"):
        vader.read(archive)


@pytest.mark.skipif("VADER_ARCHIVE" not in os.environ, reason="VADER_ARCHIVE names no archive")
def test_the_published_archive():
    path = os.environ["VADER_ARCHIVE"]
    counts = {"films": 10605, "products": 3708, "tweets": 4200, "newspaper": 5190}
    for name, count in counts.items():
        rated = vader.read(path, [name])
        assert len(rated.texts) == len(rated.ratings) == count
        assert np.abs(rated.ratings).max() <= 4
    films = vader.read(path, ["films"])
    assert films.texts[0].startswith("The Rock is destined to be the 21st Century's")
    parts = text.split(text.load(path))
    sets = [{text.normalised(t) for t in part.texts} for part in parts]
    assert sum(map(len, sets)) == len(set.union(*sets))
