"""Truth: PyTorch's operations, and the UNet of diffusers with the same weights.

Skipped unless they are there: `pip install jaxdiff[parity]`. Everything is float32: results of
order one are held to 1e-5 for a single operation and to 1e-4 for a whole network, as sums are
taken in other orders.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("diffusers")

import torch
from diffusers import UNet2DModel
from torch.nn import functional

from jaxdiff.models import UNet, attention, layers, resample

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(2, 8, 8, 6)).astype(np.float32)


def to_torch(x):
    """[B, H, W, C] to [B, C, H, W]."""
    return torch.tensor(np.asarray(x)).permute(0, 3, 1, 2)


def from_torch(x):
    return x.detach().permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1), (1, 2, 4, 3)])
def test_resampling_is_a_strided_convolution(taps):
    f = torch.tensor(taps, dtype=torch.float32)
    kernel = (torch.outer(f, f) / f.sum() ** 2).tile(6, 1, 1, 1)
    options = {"stride": 2, "padding": (len(taps) - 1) // 2, "groups": 6}
    wanted = functional.conv2d(to_torch(X), kernel, **options)
    np.testing.assert_allclose(resample.down(X, taps), from_torch(wanted), atol=1e-6)
    wanted = functional.conv_transpose2d(to_torch(X), 4 * kernel, **options)
    np.testing.assert_allclose(resample.up(X, taps), from_torch(wanted), atol=1e-5)


@pytest.mark.parametrize("epsilon", [1e-5, 1e-6])
def test_group_norm(epsilon):
    norm = layers.group_norm(3, epsilon=epsilon, name="norm")
    scale, bias = GENERATOR.normal(size=(2, 6)).astype(np.float32)
    small = 1e-3 * X  # so that epsilon counts
    got = norm.apply({"params": {"scale": scale, "bias": bias}}, small)
    wanted = functional.group_norm(
        to_torch(small), 3, torch.tensor(scale), torch.tensor(bias), epsilon
    )
    np.testing.assert_allclose(got, from_torch(wanted), atol=1e-5)


def test_attention():
    query, key, value = GENERATOR.normal(size=(3, 2, 7, 3, 4)).astype(np.float32)
    heads = [torch.tensor(a).transpose(1, 2) for a in (query, key, value)]
    wanted = functional.scaled_dot_product_attention(*heads).transpose(1, 2)
    np.testing.assert_allclose(attention.attend(query, key, value), wanted.numpy(), atol=1e-5)


LEVELS = 3
SHARED = {
    "sample_size": 8,
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (8, 16, 16),
    "layers_per_block": 2,
    "norm_num_groups": 4,
    "freq_shift": 1,
    "flip_sin_to_cos": False,
    "downsample_padding": 0,
}
OURS = {"channels": 8, "multipliers": (1, 2, 2), "blocks": 2, "groups": 4}
PARTS = {
    "norm1": "norm_in",
    "norm2": "norm_out",
    "conv1": "conv_in",
    "conv2": "conv_out",
    "time_emb_proj": "emb",
    "conv_shortcut": "skip",
    "group_norm": "norm",
    "to_out": "out",
}
ENDS = {
    "conv_in": ("in",),
    "conv_norm_out": ("norm",),
    "conv_out": ("out",),
    "time_embedding.linear_1": ("conditioning", "time_in"),
    "time_embedding.linear_2": ("conditioning", "time_out"),
}


def our_path(name):
    """The path of a module of diffusers' UNet, less the three projections of attention."""
    if name in ENDS:
        return ENDS[name]
    part = name.split(".")
    if part[0] == "mid_block":
        if part[1] == "attentions":
            return "middle_attention", PARTS[part[3]]
        return f"middle_{part[2]}", PARTS[part[3]]
    way, level = part[0].split("_")[0], int(part[1])
    level = level if way == "down" else LEVELS - 1 - level
    if part[2] in ("downsamplers", "upsamplers"):
        return f"{way}_{level + (way == 'down')}", "conv"
    kind = "_attention" if part[2] == "attentions" else ""
    return f"{way}_{level}_{part[3]}{kind}", PARTS[part[4]]


def put(tree, path, leaf):
    for step in path[:-1]:
        tree = tree.setdefault(step, {})
    tree[path[-1]] = leaf


def our_weights(module):
    """{"params": ...} of the weights of diffusers' UNet: each has a place, and one place only."""
    params, state = {}, {k: v.numpy() for k, v in module.state_dict().items()}
    for name in [n for n in state if n.endswith(("to_q.weight", "to_q.bias"))]:
        parts = [state.pop(name.replace("to_q", f"to_{k}")) for k in "qkv"]
        stem, leaf = name.rsplit("to_q.", 1)
        path = (our_path(f"{stem}group_norm")[0], "qkv")
        joined = np.concatenate(parts, 0)
        put(params, (*path, *_leaf(leaf, joined)[0]), _leaf(leaf, joined)[1])
    if "class_embedding.weight" in state:
        table = state.pop("class_embedding.weight")
        null = np.zeros_like(table[:1])  # there is none in diffusers
        put(params, ("conditioning", "label", "embedding"), np.concatenate([table, null]))
    for name, value in state.items():
        module_name, leaf = name.rsplit(".", 1)
        path = our_path(module_name)
        kind, converted = _leaf(leaf, value)
        if path[-1] == "skip" and converted.ndim == 4:
            converted = converted[0, 0]  # a 1x1 convolution is a linear layer here
        put(params, (*path, *kind), converted)
    return {"params": params}


def _leaf(name, value):
    if name == "bias":
        return ("bias",), value
    if value.ndim == 1:
        return ("scale",), value
    return ("kernel",), value.T if value.ndim == 2 else value.transpose(2, 3, 1, 0)


def _types(attentive, way):
    plain, attends = f"{way}Block2D", f"Attn{way}Block2D"
    return tuple(attends if i in attentive else plain for i in range(LEVELS))


@pytest.mark.parametrize(
    ("theirs", "ours", "attentive"),
    [
        (
            {"norm_eps": 1e-6, "attention_head_dim": None},
            {"attention": (4,), "epsilon": 1e-6},
            (1,),
        ),
        ({"attention_head_dim": 8}, {"attention": (4, 2), "heads": 2}, (1, 2)),
        ({"add_attention": False}, {"attention": ()}, ()),
        (
            {
                "num_class_embeds": 5,
                "resnet_time_scale_shift": "scale_shift",
                "attention_head_dim": None,
                # without it, the attention in the middle alone would have no norm there
                "attn_norm_num_groups": 4,
            },
            {"attention": (4,), "num_classes": 5, "scale_shift": True},
            (1,),
        ),
    ],
    ids=["ddpm", "two_heads", "no_attention", "classes"],
)
def test_unet_of_diffusers(theirs, ours, attentive):
    torch.manual_seed(0)
    up = tuple(LEVELS - 1 - i for i in attentive)
    blocks = {
        "down_block_types": _types(attentive, "Down"),
        "up_block_types": _types(up, "Up"),
    }
    module = UNet2DModel(**SHARED, **blocks, **theirs).eval()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.3 / math.sqrt(p[0].numel() or 1) * torch.randn_like(p))
    net = UNet(**OURS, **ours)
    x, t = GENERATOR.normal(size=(2, 8, 8, 3)).astype(np.float32), np.array([3.0, 978.0], "f")
    label = np.array([4, 0]) if "num_classes" in ours else None
    variables = our_weights(module)
    shapes = jax.eval_shape(net.init, jax.random.key(0), x, t, label)
    assert jax.tree.map(np.shape, variables) == jax.tree.map(lambda a: a.shape, shapes)
    classes = {} if label is None else {"class_labels": torch.tensor(label)}
    with torch.no_grad():
        wanted = from_torch(module(to_torch(x), torch.tensor(t), **classes).sample)
    got = jax.jit(net.apply)(variables, x, t, label)
    assert np.abs(wanted).max() > 0.1
    np.testing.assert_allclose(got, wanted, atol=1e-4 * max(1, np.abs(wanted).max()))
    assert jnp.abs(got - jax.jit(net.apply)(variables, x, t + 1, label)).max() > 1e-3
