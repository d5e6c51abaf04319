"""The parts of labelled texts. Truth: sets and counts by brute force."""

import numpy as np
import pytest

from jaxdiff.data.text import Labelled, normalised, split, without


def made(n=400, distinct=150, classes=3):
    """Texts with many repeats, some of them in another spelling, of unequal classes."""
    rng = np.random.default_rng(0)
    which = rng.integers(0, distinct, n)
    spelt = [
        "the film no {}",
        "The  film NO {} ",
        "the film\tno {}",
        "\uff34\uff28\uff25 film no {}",
    ]
    texts = tuple(spelt[i % 4].format(number) for i, number in enumerate(which))
    labels = np.minimum(which % 7, classes - 1).astype(np.int32)
    return Labelled(texts, labels, tuple("abc"[:classes]))


@pytest.mark.parametrize("seed", range(5))
def test_no_text_is_in_two_parts(seed):
    """By a comparison of every pair of parts, under the spelling that counts as the same."""
    data = made()
    parts = split(data, validation=0.2, test=0.1, seed=seed)
    assert sorted(t for part in parts for t in part.texts) == sorted(data.texts)
    sets = [
        {" ".join(t.replace("\uff34\uff28\uff25", "the").lower().split()) for t in p.texts}
        for p in parts
    ]
    assert not sets[0] & sets[1]
    assert not sets[0] & sets[2]
    assert not sets[1] & sets[2]


def test_shares_are_of_distinct_texts_and_alike_in_all_classes():
    """Of each class within one text, since 1/5 and 1/10 of whole numbers are rounded."""
    data = Labelled(tuple(f"t{i}" for i in range(1000)), (np.arange(1000) % 3 > 0) * 1, ("a", "b"))
    parts = split(data, validation=0.2, test=0.1)
    assert [len(part) for part in parts] == [700, 200, 100]
    for part, share in zip(parts, (0.7, 0.2, 0.1), strict=True):
        assert abs(np.sum(part.labels == 0) - share * 334) <= 2


def test_labels_stay_with_their_texts():
    data = made()
    known = dict(zip(data.texts, data.labels.tolist(), strict=True))
    for part in split(data):
        assert [known[t] for t in part.texts] == part.labels.tolist()


def test_parts_are_by_seed():
    data = made()
    first, again, other = split(data, seed=1), split(data, seed=1), split(data, seed=2)
    assert all(a.texts == b.texts for a, b in zip(first, again, strict=True))
    assert first[2].texts != other[2].texts


def test_no_test_part_where_none_is_wanted():
    parts = split(made(), test=0)
    assert len(parts[2]) == 0
    assert len(parts[0]) + len(parts[1]) == 400


def test_normalised():
    """Unicode's own examples: full-width letters, ligatures, the German sharp s."""
    assert normalised(" \uff21  ﬁne\tStraße\n") == "a fine strasse"
    assert normalised("good film") != normalised("good films")


def test_without():
    data = Labelled(("a b", "C", "d"), np.array([0, 1, 0], np.int32), ("x", "y"))
    left = without(data, ["c", "A  B "])
    assert left.texts == ("d",)
    assert left.labels.tolist() == [0]


def test_bad_shares():
    data = made()
    with pytest.raises(ValueError, match=r"validation must lie in \[0, 1\), got -0.1"):
        split(data, validation=-0.1)
    with pytest.raises(ValueError, match=r"test must lie in \[0, 1\), got nan"):
        split(data, test=float("nan"))
    with pytest.raises(ValueError, match=r"validation \+ test must be below 1, got 0.5 \+ 0.5"):
        split(data, validation=0.5, test=0.5)
    with pytest.raises(ValueError, match=r"seed must lie in"):
        split(data, seed=-1)
    few = Labelled(tuple("abcdefgh"), np.arange(8) % 2, ("x", "y"))
    with pytest.raises(ValueError, match=r"test=0.1 of 8 distinct texts of data is none"):
        split(few, validation=0.2)


def test_a_class_without_a_text_to_train_on():
    labels = np.array([0] * 9 + [1], np.int32)
    rare = Labelled(tuple(map(str, range(10))), labels, ("x", "y"), "mine.tsv")
    with pytest.raises(ValueError, match=r"class 'y' of mine.tsv has 1 texts, none is left"):
        split(rare)
