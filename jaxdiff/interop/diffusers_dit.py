"""diffusers' DiTTransformer2DModel as `models.DiT`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxdiff.interop import diffusers_common as common
from jaxdiff.interop import names
from jaxdiff.models import DiT, positions

__all__ = ["FIELDS", "OLDER", "config_of", "constants", "network", "table"]

FIELDS: dict[str, Any] = {
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "out_channels": None,
    "num_layers": 28,
    "dropout": 0.0,
    "norm_num_groups": 32,
    "attention_bias": (True,),
    "sample_size": 32,
    "patch_size": 2,
    "activation_fn": ("gelu-approximate",),
    "num_embeds_ada_norm": 1000,
    "upcast_attention": False,
    "norm_type": ("ada_norm_zero",),
    "norm_elementwise_affine": (False,),
    "norm_eps": 1e-5,
}
# Fields of the class that DiTs were saved as before they had their own.
OLDER = {
    "attention_type": ("default",),
    "caption_channels": (None,),
    "cross_attention_dim": (None,),
    "double_self_attention": (False,),
    "interpolation_scale": (None, 1, 1.0),
    "num_vector_embeds": (None,),
    "only_cross_attention": (False,),
    "use_additional_conditions": (None, False),
    "use_linear_projection": (False,),
}
_BLOCK = {
    "modulation": (names.ordered(names.DENSE, names.chunks(1, 0, 2, 4, 3, 5)), "norm1.linear"),
    "attention/query": (names.DENSE, "attn1.to_q"),
    "attention/key": (names.DENSE, "attn1.to_k"),
    "attention/value": (names.DENSE, "attn1.to_v"),
    "attention/out": (names.DENSE, "attn1.to_out.0"),
    "perceptron/expand": (names.DENSE, "ff.net.0.proj"),
    "perceptron/contract": (names.DENSE, "ff.net.2"),
}


def network(fields: Mapping[str, Any]) -> DiT:
    """Our network of their configuration."""
    if not fields["num_embeds_ada_norm"]:
        raise ValueError("num_embeds_ada_norm must be the number of classes, got None")
    return DiT(
        width=fields["num_attention_heads"] * fields["attention_head_dim"],
        depth=fields["num_layers"],
        heads=fields["num_attention_heads"],
        patch=fields["patch_size"],
        out_channels=common.out_channels(
            {**fields, "out_channels": fields["out_channels"] or fields["in_channels"]}
        ),
        waves=256,
        num_classes=fields["num_embeds_ada_norm"],
        dropout=fields["dropout"],
        epsilon=1e-6,
        perceptron_epsilon=None if fields["norm_eps"] == 1e-6 else fields["norm_eps"],
        positions="sincos",
    )


def config_of(net: DiT, shape: tuple[int, ...]) -> dict[str, Any]:
    """Their configuration of our network."""
    common.check(
        net, embedding=("sinusoidal",), cond_dim=(0,), skips=(False,), positions=("sincos",)
    )
    common.check(net, waves=(256,), epsilon=(1e-6,), expansion=(4,))
    if not net.num_classes:
        raise ValueError("net must have num_classes, which theirs cannot do without, got 0")
    epsilon = net.epsilon if net.perceptron_epsilon is None else net.perceptron_epsilon
    return {
        "_class_name": "DiTTransformer2DModel",
        "num_attention_heads": net.heads,
        "attention_head_dim": net.width // net.heads,
        "in_channels": shape[-1],
        "out_channels": shape[-1] if net.out_channels is None else net.out_channels,
        "num_layers": net.depth,
        "dropout": net.dropout,
        "sample_size": shape[0],
        "patch_size": net.patch,
        "num_embeds_ada_norm": net.num_classes,
        "norm_eps": epsilon,
    }


def table(net: DiT) -> dict[str, names.Link]:
    """Where our parameters are there."""
    side = net.patch
    patches = names.Kind(
        lambda a: (a.reshape(side, side, -1, a.shape[-1]).transpose(3, 2, 0, 1),),
        lambda t: t[0].transpose(2, 3, 1, 0).reshape(-1, t[0].shape[0]),
    )
    rows = names.layer("in", {**names.DENSE, "kernel": ("weight", patches)}, "pos_embed.proj")
    for ours, made, end in (
        ("time_in", names.ordered(names.DENSE, names.swapped, -2), "timestep_embedder.linear_1"),
        ("time_out", names.DENSE, "timestep_embedder.linear_2"),
        ("label", names.EMBED, "class_embedder.embedding_table"),
    ):
        first, *others = (f"transformer_blocks.{i}.norm1.emb.{end}" for i in range(net.depth))
        rows |= names.layer(f"conditioning/{ours}", made, first, copies=tuple(others))
    for i in range(net.depth):
        rows |= names.module(f"block_{i}", _BLOCK, f"transformer_blocks.{i}")
    order = names.ordered(names.DENSE, names.chunks(1, 0))
    rows |= names.layer("modulation", order, "proj_out_1")
    return rows | names.layer("out", names.DENSE, "proj_out_2")


def constants(net: DiT, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The table that older files hold."""
    grid = tuple(n // net.patch for n in shape[:2])
    made = positions.absolute("sincos", grid)
    return {"pos_embed.pos_embed": np.asarray(made.apply({}, grid, net.width))}
