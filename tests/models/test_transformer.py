"""Transformers: against the formula in float64, under masks, ends and prefixes, and bad input."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from jaxdiff.models import EncoderDecoder, Transformer
from tests.models.positions import formula

TOKENS = np.array([[3, 1, 4, 1, 2], [2, 0, 1, 3, 3]])
MASK = np.arange(5)[None] < np.array([[3], [5]])
SMALL = {"vocab": 5, "width": 8, "depth": 2, "heads": 2, "hidden": 12, "length": 9}


def normed(x, p, epsilon=1e-5):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
    return x * p["scale"] + p["bias"]


def dense(x, p):
    return x @ p["kernel"] + p["bias"]


def attention(p, h, memory, mask, heads=2):
    query, key, value = (
        dense(x, p[name]).reshape(*x.shape[:2], heads, -1)
        for x, name in ((h, "query"), (memory, "key"), (memory, "value"))
    )
    return dense(formula.attend(query, key, value, mask=mask).reshape(h.shape), p["out"])


def perceptron(p, h):
    inside = dense(h, p["expand"])
    return dense(inside * special.ndtr(inside), p["contract"])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_the_formula(norm):
    """Learned positions, kinds of token, an output layer; "gelu" by the normal distribution."""
    net = Transformer(**SMALL, norm=norm, types=2, out=3)
    types = np.array([[0, 0, 1, 1, 0]] * 2)
    variables = formula.drawn(net, TOKENS, types=types)
    got = jax.jit(net.apply)(variables, TOKENS, MASK, types=types)
    p = variables["params"]
    h = p["tokens"]["embedding"][TOKENS] + p["types"]["embedding"][types]
    h = h + p["positions"]["table"][:5]
    h = normed(h, p["norm_in"]) if norm == "post" else h
    for q in (p["block_0"], p["block_1"]):
        for name, layer in (
            ("attention", lambda x, q=q: attention(q["attention"], x, x, MASK[:, None, None])),
            ("perceptron", lambda x, q=q: perceptron(q["perceptron"], x)),
        ):
            its = q[f"norm_{name}"]
            h = normed(h + layer(h), its) if norm == "post" else h + layer(normed(h, its))
    h = normed(h, p["norm_out"]) if norm == "pre" else h
    np.testing.assert_allclose(got, dense(h, p["out"]), rtol=1e-8, atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_attention_to_a_memory_by_the_formula():
    net = Transformer(**{**SMALL, "depth": 1}, positions="none", causal=True, cross=True)
    memory, seen = formula.normal(0, 2, 4, 8), np.arange(4)[None] < np.array([[4], [2]])
    variables = formula.drawn(net, TOKENS, memory=memory)
    got = jax.jit(net.apply)(variables, TOKENS, memory=memory, memory_mask=seen)
    p = variables["params"]
    q, h = p["block_0"], p["tokens"]["embedding"][TOKENS]
    own = normed(h, q["norm_attention"])
    h = h + attention(q["attention"], own, own, np.tril(np.ones((5, 5), bool)))
    h = h + attention(q["cross"], normed(h, q["norm_cross"]), memory, seen[:, None, None])
    h = h + perceptron(q["perceptron"], normed(h, q["norm_perceptron"]))
    np.testing.assert_allclose(got, normed(h, p["norm_out"]), rtol=1e-8, atol=1e-10)


def test_a_pair_sees_its_source_and_not_ahead():
    encoder = Transformer(**{**SMALL, "depth": 1})
    net = EncoderDecoder(encoder, Transformer(**{**SMALL, "depth": 1}, causal=True, cross=True))
    variables = formula.drawn(net, TOKENS, TOKENS)
    run = jax.jit(net.apply)
    out = run(variables, TOKENS, TOKENS, MASK)
    other = np.where(MASK, TOKENS, 4)  # what is padding may be anything
    np.testing.assert_array_equal(run(variables, other, TOKENS, MASK), out)
    assert np.abs(run(variables, 4 - TOKENS, TOKENS, MASK) - out).max() > 1e-3
    later = np.array(TOKENS)
    later[:, 3:] = 0
    changed = np.abs(run(variables, TOKENS, later, MASK) - out).max(axis=(0, 2))
    np.testing.assert_array_equal(changed[:3], 0)
    assert changed[3:].min() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        {"positions": "urpe", "boundary": True},
        {"positions": "shaw", "shared": False, "norm": "post"},
        pytest.param({"positions": "rotary+factor", "block": "gau"}, marks=pytest.mark.slow),
        pytest.param(
            {"positions": "learned+deberta", "causal": True, "dtype": "bfloat16"},
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda fields: fields["positions"],
)
def test_padding_remat_vmap_and_gradients(fields):
    """One program: what is padding changes nothing, `remat` nothing but rounding, vmap neither."""
    net, again = Transformer(**SMALL, **fields), Transformer(**SMALL, **fields, remat=True)
    sets = [formula.drawn(net, TOKENS, seed=seed, scale=0.5) for seed in range(2)]
    both = jax.tree.map(lambda *leaves: np.stack(leaves), *sets)
    other = np.where(MASK, TOKENS, 4)

    @jax.jit
    def run(both):
        first = jax.tree.map(lambda leaf: leaf[0], both)
        loss = lambda net, v: jnp.sum(jnp.sin(net.apply(v, TOKENS, MASK)))  # noqa: E731
        return {
            "plain": net.apply(first, TOKENS, MASK),
            "padded": net.apply(first, other, MASK),
            "many": jax.vmap(lambda v: net.apply(v, TOKENS, MASK))(both)[0],
            "slopes": [jax.grad(functools.partial(loss, n))(first) for n in (net, again)],
        }

    got = run(both)
    assert got["plain"].dtype == jnp.float32
    seen = MASK[..., None]
    np.testing.assert_array_equal(np.where(seen, got["plain"], 0), np.where(seen, got["padded"], 0))
    close = {"atol": 0.1} if "dtype" in fields else {"atol": 2e-5}  # bfloat16 has three digits
    np.testing.assert_allclose(got["many"], got["plain"], **close)
    for a, b in zip(*(jax.tree.leaves(slope) for slope in got["slopes"]), strict=True):
        assert np.isfinite(a).all()
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 if "dtype" not in fields else 1.0)


def test_a_prefix_is_seen_and_taken_off():
    """Tokens in front whose vectors are given: the same as tokens that have these vectors."""
    net = Transformer(**SMALL, positions="bias")
    variables = formula.drawn(net, TOKENS)
    prefix = variables["params"]["tokens"]["embedding"][np.array([4, 0])]
    long = np.concatenate([np.array([[4, 0]] * 2), TOKENS], axis=1)
    mask = np.pad(MASK, ((0, 0), (2, 0)), constant_values=True)
    wanted = jax.jit(net.apply)(variables, long, mask)[:, 2:]
    got = jax.jit(net.apply)(variables, TOKENS, MASK, prefix=prefix)
    np.testing.assert_allclose(got, wanted, atol=1e-5)


@pytest.mark.slow
def test_beyond_the_table():
    """Relative methods clip: tables made for 3 tokens say of 9 what the farthest say; learned
    absolute ones are an error; sinusoidal ones have any length."""
    long = np.arange(9)[None] % 5
    for name in ("urpe", "shaw", "deberta"):
        short = Transformer(**{**SMALL, "depth": 1, "length": 3}, positions=name)
        wide = Transformer(**{**SMALL, "depth": 1}, positions=name)
        variables = formula.drawn(short, long)
        fitted = dict(variables["params"])

        def spread(table):
            if table.shape[0] != 5:  # displacements -2..2
                return table
            return table[np.clip(np.arange(-8, 9), -2, 2) + 2]

        fitted["relative"] = jax.tree.map(spread, fitted["relative"])
        got = jax.jit(short.apply)(variables, long)
        wanted = jax.jit(wide.apply)({"params": fitted}, long)
        np.testing.assert_allclose(got, wanted, atol=1e-5)
    learned = Transformer(**{**SMALL, "length": 8})
    with pytest.raises(ValueError, match="learned positions are for at most 8 tokens, got 9"):
        learned.init(jax.random.key(0), long)
    endless = Transformer(**{**SMALL, "length": 1, "depth": 0}, positions="sinusoidal")
    assert np.isfinite(endless.init_with_output(jax.random.key(0), long)[0]).all()


@pytest.mark.parametrize("kind", [-1, 5])
def test_wrong_tokens_are_nan(kind):
    net = Transformer(**{**SMALL, "depth": 1}, positions="none")
    tokens = np.array([[1, kind]])
    out, _ = jax.jit(net.init_with_output)(jax.random.key(0), tokens)
    assert np.isnan(out[0, 1]).all()


@pytest.mark.parametrize("kind", [-1, 2])
def test_wrong_kinds_of_token_are_nan(kind):
    net = Transformer(**{**SMALL, "depth": 0}, types=2)
    tokens = np.array([[1, 1]])
    out, _ = jax.jit(net.init_with_output)(jax.random.key(0), tokens, types=np.array([[0, kind]]))
    assert np.isnan(out[0, 1]).all()
    assert np.isfinite(out[0, 0]).all()


IDS = jnp.zeros((2, 5), int)


@pytest.mark.parametrize(
    ("fields", "given", "message"),
    [
        ({"heads": 3}, {}, "heads=3 must divide width=8"),
        ({"heads": 0}, {}, "heads=0 must divide"),
        ({"inner": 7}, {}, "heads=2 must divide inner=7"),
        ({"positions": "absolute"}, {}, "positions must be of none, learned"),
        ({"positions": "learned+sinusoidal"}, {}, "one absolute part"),
        ({"positions": "bias+urpe"}, {}, "positions must be of"),
        ({"normalise": "l1"}, {}, "normalise must be one of softmax"),
        ({"norm": "rms"}, {}, "norm must be one of pre, post"),
        ({"block": "mlp"}, {}, "block must be one of attention, gau"),
        ({"activation": "tanh"}, {}, "activation must be one of gelu"),
        ({"dropout": 1.0}, {}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"dtype": "int8"}, {}, "dtype must be None or one of"),
        ({"block": "gau", "cross": True}, {}, "cross=True needs block='attention'"),
        ({"cross": True}, {}, "memory must be given where cross is True"),
        ({}, {"memory": jnp.zeros((2, 3, 8))}, "memory must be given where cross is True only"),
        ({}, {"tokens": jnp.zeros((2, 5))}, r"tokens must be int \[B, N\], got float32 \[2, 5\]"),
        ({}, {"tokens": jnp.zeros(5, int)}, r"tokens must be int \[B, N\]"),
        ({"vocab": None}, {}, r"tokens must be float \[B, N, any\]"),
        ({}, {"mask": jnp.ones((2, 5), int)}, r"mask must be bool \[2, 5\]"),
        ({}, {"mask": jnp.ones((2, 4), bool)}, r"mask must begin as tokens \[2, 5\]"),
        ({}, {"mask": jnp.ones((2, 5, 4), bool)}, r"mask must be bool \[2, 5\]"),
        ({"width": 0}, {}, "width must be a whole number of at least 1, got 0"),
        ({"hidden": 0}, {}, "hidden must be a whole number of at least 1, got 0"),
        ({"vocab": 0}, {}, "vocab must be a whole number of at least 1, got 0"),
        ({}, {"types": jnp.ones((2, 5), int)}, r"types must be \[2, 5\] where types > 0, got"),
        ({"types": 2}, {"types": jnp.ones((2, 4), int)}, r"types must be .* got \[2, 4\] of 2"),
        ({}, {"prefix": jnp.ones((1, 3))}, r"prefix must be \[P, 8\], got \[1, 3\]"),
        ({"positions": "rotary", "inner": 6}, {}, "rotary positions on 1 axes need heads"),
    ],
)
def test_bad_input(fields, given, message):
    net = Transformer(**{**SMALL, **fields})
    tokens = given.get("tokens", IDS)
    rest = {name: value for name, value in given.items() if name != "tokens"}
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(functools.partial(net.init, **rest), jax.random.key(0), tokens)
