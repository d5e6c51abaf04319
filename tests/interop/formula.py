"""BERT's encoder written down once more, in float64 and numpy, from Devlin et al. 2019 and Vaswani
et al. 2017; and random weights under BERT's names."""

import json
import math

import numpy as np

SMALL = {
    "model_type": "bert",
    "vocab_size": 23,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 10,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}


def random_weights(config, seed=0):
    """Of order one in every sum, none of them special: biases and norms too."""
    rng = np.random.default_rng(seed)
    width, hidden = config["hidden_size"], config["intermediate_size"]
    shapes = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], width),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], width),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], width),
        "embeddings.LayerNorm.weight": (width,),
        "embeddings.LayerNorm.bias": (width,),
    }
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{i}."
        dense = {f"attention.self.{n}": (width, width) for n in ("query", "key", "value")}
        dense |= {"attention.output.dense": (width, width)}
        dense |= {"intermediate.dense": (hidden, width), "output.dense": (width, hidden)}
        for name, shape in dense.items():
            shapes |= {f"{layer}{name}.weight": shape, f"{layer}{name}.bias": shape[:1]}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{layer}{name}.weight": (width,), f"{layer}{name}.bias": (width,)}

    def draw(name, shape):
        about = 1.0 if name.endswith("LayerNorm.weight") else 0.0
        return (about + rng.normal(size=shape) * 0.4).astype(np.float32)

    return {name: draw(name, shape) for name, shape in shapes.items()}


def hidden_states(weights, config, ids, mask):
    """The last hidden states [B, N, width], float64."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    heads = config["num_attention_heads"]
    erf = np.vectorize(math.erf)

    def dense(h, name):
        return h @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(h, name):
        centred = h - h.mean(-1, keepdims=True)
        var = (centred**2).mean(-1, keepdims=True)
        unit = centred / np.sqrt(var + config["layer_norm_eps"])
        return unit * w[f"{name}.weight"] + w[f"{name}.bias"]

    def attention(h, name):
        parts = [dense(h, f"{name}.self.{n}") for n in ("query", "key", "value")]
        q, k, v = (p.reshape(*h.shape[:2], heads, -1).transpose(0, 2, 1, 3) for p in parts)
        scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(q.shape[-1])
        scores = np.where(mask[:, None, None, :], scores, -np.inf)
        a = np.exp(scores - scores.max(-1, keepdims=True))
        out = (a / a.sum(-1, keepdims=True)) @ v
        return dense(out.transpose(0, 2, 1, 3).reshape(h.shape), f"{name}.output.dense")

    h = w["embeddings.word_embeddings.weight"][ids]
    h = h + w["embeddings.position_embeddings.weight"][: ids.shape[1]]
    h = h + w["embeddings.token_type_embeddings.weight"][0]
    h = norm(h, "embeddings.LayerNorm")
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        h = norm(h + attention(h, f"{layer}.attention"), f"{layer}.attention.output.LayerNorm")
        inside = dense(h, f"{layer}.intermediate.dense")
        inside = inside * (1 + erf(inside / np.sqrt(2))) / 2
        h = norm(h + dense(inside, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    return h


def write(directory, config, weights, **metadata):
    """config.json and model.safetensors."""
    from safetensors.numpy import save_file

    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps({**config, **metadata}))
    save_file(weights, directory / "model.safetensors")
    return directory
