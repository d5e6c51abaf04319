"""Texts as tokens. Truth: a tokenizer of ten words, whose numbers are known; what a permutation
is (every text once an epoch)."""

import numpy as np
import pytest

from jaxdiff.data.text import Batches, Tokens, in_turn, read_tokenizer

tokenizers = pytest.importorskip("tokenizers", reason="needs the library tokenizers")

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "a", "good", "bad", "film", "is", "this"]


@pytest.fixture
def path(tmp_path):
    """A tokenizer that pads and cuts by its own file, as MiniLM's does."""
    model = tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]")
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    made.enable_padding(length=20, pad_id=3)
    made.enable_truncation(4)
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def test_numbers_of_one_length(path):
    tokens = read_tokenizer(path, 7)(["this film is good", "bad", "a a a a a a a a"])
    assert tokens.ids.tolist() == [
        [1, 9, 7, 8, 5, 2, 0],
        [1, 6, 2, 0, 0, 0, 0],
        [1, 4, 4, 4, 4, 4, 2],
    ]
    assert tokens.mask.sum(1).tolist() == [6, 3, 7]
    assert (tokens.ids.dtype, tokens.mask.dtype) == (np.int32, np.bool_)


def test_a_text_does_not_depend_on_its_neighbours(path):
    read = read_tokenizer(path, 7)
    alone, among = read(["bad"]), read(["a a a a a a a a", "bad"])
    np.testing.assert_array_equal(alone.ids[0], among.ids[1])


def test_how_many_are_cut(path):
    read = read_tokenizer(path, 5)
    assert read.count_cut(["a a a", "a a a a", "bad"]) == 1
    assert read(["a a a"]).ids.tolist() == [[1, 4, 4, 4, 2]]


def test_unknown_words_are_tokens_and_nothing_is_an_error(path):
    read = read_tokenizer(path, 5)
    assert read(["unheard"]).ids.tolist() == [[1, 3, 2, 0, 0]]
    with pytest.raises(ValueError, match="text 1 must have a token, got ' '"):
        read(["a", " "])
    assert read([]).ids.shape == (0, 5)


def test_mistakes(path):
    with pytest.raises(ValueError, match="length must be a whole number of at least 3, got 2"):
        read_tokenizer(path, 2)
    with pytest.raises(FileNotFoundError):
        read_tokenizer(path.with_name("none.json"), 8)
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"is no tokenizer.json"):
        read_tokenizer(path, 8)


def numbered(n, batch_size, seed=0):
    ids = np.arange(n, dtype=np.int32)[:, None] * np.ones((1, 4), np.int32)
    labels = (np.arange(n) % 3).astype(np.int32)
    return Batches(Tokens(ids, ids >= 0), labels, batch_size, seed)


def test_every_text_once_an_epoch():
    """23 texts in batches of 5: 23 batches are 5 epochs."""
    batches = numbered(23, 5)
    seen = np.concatenate([batches.batch_at(i)["ids"][:, 0] for i in range(23)])
    for epoch in seen.reshape(5, 23):
        assert sorted(epoch) == list(range(23))
    assert not np.array_equal(seen[:23], seen[23:46])


def test_a_batch_is_of_its_step_alone():
    batches = numbered(23, 5, seed=4)
    late = batches.batch_at(17)
    again = numbered(23, 5, seed=4).batch_at(17)
    for name, value in late.items():
        np.testing.assert_array_equal(value, again[name])
    np.testing.assert_array_equal(late["y"], late["ids"][:, 0] % 3)
    assert late["mask"].shape == late["ids"].shape == (5, 4)
    with pytest.raises(ValueError, match="step must be >= 0, got -1"):
        batches.batch_at(-1)


def test_more_texts_a_batch_than_there_are():
    assert sorted(numbered(2, 6).batch_at(0)["ids"][:, 0]) == [0, 0, 0, 1, 1, 1]


def test_in_turn():
    """The last batch is as large as the others."""
    parts = list(in_turn(numbered(7, 1).tokens, 3))
    assert [part.ids[:, 0].tolist() for part in parts] == [[0, 1, 2], [3, 4, 5], [6, 6, 6]]
