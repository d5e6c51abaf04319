"""A BERT of twelve channels with random weights, its tokenizer, and texts that two words decide."""

import numpy as np

from tests.interop.formula import SMALL, random_weights, write

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "good", "bad", "the", "film", "is", "a", "was", "not"]


def directory(home):
    """config.json, model.safetensors and tokenizer.json."""
    import tokenizers

    config = {**SMALL, "max_position_embeddings": 32}
    path = write(home / "bert", config, random_weights(config))
    model = tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]")
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    made.save(str(path / "tokenizer.json"))
    return path


def sentences(count, seed=0):
    """(text, label): one of "good" and "bad" among other words, each text once."""
    rng = np.random.default_rng(seed)
    found = {}
    while len(found) < count:
        words = list(rng.choice(WORDS[6:], rng.integers(2, 7)))
        label = ("good", "bad")[rng.integers(2)]
        words.insert(rng.integers(len(words) + 1), label)
        found[" ".join(words)] = label
    return list(found.items())


def table(path, rows):
    """A .tsv of (text, label)."""
    lines = ["text\tlabel", *(f"{text}\t{label}" for text, label in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path
