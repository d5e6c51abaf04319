"""Position methods against the reference library, where it is installed (torch, transformers).

Its float32 against ours: sums of some ten terms of order one, 1e-5.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.models import positions
from jaxdiff.models.positions import tables
from tests.models.positions import formula
from tests.models.positions.formula import normal

torch = pytest.importorskip("torch", reason="needs torch")
transformers = pytest.importorskip("transformers", reason="needs transformers")

B, N, HEADS, DIM = 2, 6, 2, 4
WIDTH = HEADS * DIM


def tensor(a):
    return torch.tensor(np.asarray(a, np.float32))


def scores(name, query, key, variables, span=N):
    """Scaled products and bias, [B, heads, N, N]."""
    part = positions.relative(name, heads=HEADS, dim=DIM, span=(span,))
    query, key = (jnp.asarray(a, jnp.float32) for a in (query, key))

    def both(part, query, key):
        q, k = part.rotate(query), part.rotate(key)
        bias = part.bias(q, k)
        scale = part.scale(DIM) or DIM**-0.5
        products = jnp.einsum("bnhd,bmhd->bhnm", q, k) * scale
        return products if bias is None else products + bias

    return np.asarray(jax.jit(lambda q, k: part.apply(variables, q, k, method=both))(query, key))


@pytest.mark.parametrize("both", [True, False])
def test_t5_buckets(both):
    from transformers.models.t5.modeling_t5 import T5Attention

    d = np.arange(-2000, 2001)
    for buckets, reach in ((32, 128), (16, 40)):
        wanted = T5Attention._relative_position_bucket(
            torch.tensor(-d), bidirectional=both, num_buckets=buckets, max_distance=reach
        )
        found = tables.bucket(d, buckets, reach, causal=not both)
        np.testing.assert_array_equal(found, wanted.numpy())


@pytest.mark.parametrize("heads", [1, 2, 6, 8, 12, 71])
def test_alibi_slopes(heads):
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    alibi = build_alibi_tensor(torch.ones(1, 2, dtype=torch.long), heads, torch.float32)
    np.testing.assert_allclose(tables.slopes(heads), alibi[:, 0, 1], rtol=1e-6)


def test_rotary():
    from transformers.models.roformer import modeling_roformer as roformer

    query, key = normal(0, B, N, HEADS, DIM), normal(1, B, N, HEADS, DIM)
    table = roformer.RoFormerSinusoidalPositionalEmbedding(N, DIM)
    waves = table.create_weight()[None, None]
    q, k = (tensor(a).transpose(1, 2) for a in (query, key))
    q, k = roformer.RoFormerSelfAttention.apply_rotary_position_embeddings(waves, q, k)
    wanted = (q @ k.transpose(-1, -2)).numpy() * DIM**-0.5
    np.testing.assert_allclose(scores("rotary", query, key, {}), wanted, atol=1e-5)


def test_xl():
    """Transformer-XL's scores as XLNet has them."""
    from transformers.models.xlnet import modeling_xlnet as xlnet

    h = normal(0, B, N, WIDTH)
    config = transformers.XLNetConfig(
        vocab_size=3, d_model=WIDTH, n_layer=1, n_head=HEADS, d_inner=8, dropout=0.0
    )
    net = xlnet.XLNetRelativeAttention(config).eval()
    for seed, weight in enumerate(net.parameters()):
        weight.data = tensor(normal(10 + seed, *weight.shape) * 0.5)
    waves = xlnet.XLNetModel(config).relative_positional_encoding(N, N, bsz=B)
    with torch.no_grad():
        out = net(tensor(h).transpose(0, 1), None, None, None, waves, None, output_attentions=True)[
            -1
        ]
    wanted = out.permute(2, 3, 0, 1).numpy() if out.shape[0] == N else out.numpy()
    project = net.r.detach().numpy().reshape(WIDTH, WIDTH)
    params = {"u": net.r_w_bias, "v": net.r_r_bias}
    params = {name: value.detach().numpy() for name, value in params.items()}
    variables = {"params": {**params, "project": {"kernel": project}}}
    query, key = (
        np.einsum("bnd,dhe->bnhe", h, weight.detach().numpy()) for weight in (net.q, net.k)
    )
    found = jax.nn.softmax(scores("xl", query, key, variables))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("side", ["to_key", "to_query"])
def test_deberta(side):
    """A side at a time, for the reference looks both of them up at i - j where the paper (and
    ours) have j - i for keys: with its table read backwards they are the same."""
    from transformers.models.deberta_v2 import modeling_deberta_v2 as deberta

    query, key = normal(0, B, N, HEADS, DIM), normal(1, B, N, HEADS, DIM)
    config = transformers.DebertaV2Config(
        hidden_size=WIDTH, num_attention_heads=HEADS, relative_attention=True,
        max_relative_positions=N + 1, pos_att_type=["c2p", "p2c"], position_buckets=-1,
    )  # fmt: skip
    net = deberta.DisentangledSelfAttention(config).eval()
    variables = formula.drawn(
        positions.relative("deberta", heads=HEADS, dim=DIM, span=(N + 1,)),
        *(jnp.asarray(a, jnp.float32) for a in (query, key)), method="bias",
    )  # fmt: skip
    params = variables["params"]
    other = {"to_key": "to_query", "to_query": "to_key"}[side]
    params[other]["kernel"] = np.zeros_like(params[other]["kernel"])
    for name, layer in (("to_key", net.pos_key_proj), ("to_query", net.pos_query_proj)):
        layer.weight.data, layer.bias.data = tensor(params[name]["kernel"].T), torch.zeros(WIDTH)
    # Ours has rows -span..span, theirs -span..span - 1.
    table = params["table"][:-1] if side == "to_key" else params["table"][::-1][:-1]
    q, k = (tensor(a).transpose(1, 2).reshape(B * HEADS, N, DIM) for a in (query, key))
    with torch.no_grad():
        bias = net.disentangled_attention_bias(q, k, None, tensor(table.copy()), 3)
    wanted = (q @ k.transpose(-1, -2)).numpy() * (3 * DIM) ** -0.5 + bias.numpy()
    found = scores("deberta", query, key, variables, span=N + 1)
    np.testing.assert_allclose(found.reshape(B * HEADS, N, N), wanted, atol=2e-5)
