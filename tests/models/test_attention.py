"""Attention against the formula in float64 (`formula`), and what masks must and must not do.

Tolerances: sums of some ten terms of order one round to 1e-6 in float32, 1e-12 in float64.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxdiff.models import attention, positions
from jaxdiff.models.attention import NORMALISE, Attend, Attention, attend, weigh
from tests.models.positions import formula
from tests.models.positions.formula import normal

B, N, M, HEADS, DIM = 2, 5, 7, 2, 4
QUERY, KEY, VALUE = (
    normal(0, B, N, HEADS, DIM),
    normal(1, B, M, HEADS, DIM),
    normal(2, B, M, HEADS, 3),
)
BIAS, FACTOR = normal(3, 1, HEADS, N, M), normal(4, HEADS, N, M)
MASK = normal(5, B, 1, N, M) > -0.5
MASK[1, 0, 2] = False  # a query that may see nothing


def single(*arrays):
    return tuple(jnp.asarray(a, jnp.float32) for a in arrays)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("how", NORMALISE)
def test_the_formula(how):
    """Bias, mask and factor at once, and each left out."""
    options = {"bias": BIAS, "mask": MASK, "factor": FACTOR, "scale": 0.3}

    @jax.jit
    def run(query, key, value):
        outs = [attend(query, key, value, normalise=how, **options)]
        rest = [{k: v for k, v in options.items() if k != name} for name in options]
        return outs + [attend(query, key, value, normalise=how, **some) for some in rest]

    got = run(QUERY, KEY, VALUE)
    kept = [{k: v for k, v in options.items() if k != name} for name in ("", *options)]
    for out, some in zip(got, kept, strict=True):
        wanted = formula.attend(QUERY, KEY, VALUE, normalise=how, **some)
        np.testing.assert_allclose(out, wanted, rtol=1e-9, atol=1e-12)


def test_fused_is_the_formula_and_the_explicit_form(monkeypatch):
    """`jax.nn.dot_product_attention` answers where it can, once here: not with a factor of ones."""
    query, key, value, bias = single(QUERY, KEY, KEY, BIAS)
    fused, calls = jax.nn.dot_product_attention, []
    monkeypatch.setattr(
        jax.nn, "dot_product_attention", lambda *a, **k: calls.append(1) or fused(*a, **k)
    )

    @jax.jit
    def run(query, key, value, bias):
        how = {"bias": bias, "mask": MASK}
        ones = jnp.ones((1, 1, 1))
        return attend(query, key, value, **how), attend(query, key, value, factor=ones, **how)

    fast, explicit = run(query, key, value, bias)
    assert calls == [1]
    wanted = formula.attend(QUERY, KEY, KEY, bias=BIAS, mask=MASK)
    np.testing.assert_allclose(fast, wanted, atol=2e-6)
    np.testing.assert_allclose(explicit, wanted, atol=2e-6)


@pytest.mark.parametrize("how", NORMALISE)
def test_rows_that_see_nothing_are_zero_and_have_gradients(how):
    query, key, value, bias = single(QUERY, KEY, KEY, BIAS)

    @jax.jit
    @jax.value_and_grad
    def run(arrays):
        query, key, value, bias = arrays
        out = attend(query, key, value, bias=bias, mask=MASK, normalise=how)
        return jnp.sum(jnp.sin(out)) + 100 * jnp.sum(jnp.abs(out[1, 2]))

    total, gradient = run((query, key, value, bias))
    wanted = formula.attend(QUERY, KEY, KEY, bias=BIAS, mask=MASK, normalise=how)
    np.testing.assert_array_equal(wanted[1, 2], 0)
    np.testing.assert_allclose(total, np.sin(wanted).sum(), rtol=1e-4, atol=1e-4)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_all_padding_is_zero_not_nan():
    """In every form of the module; its output is then the last layer's bias, 0 at the start."""
    h = jnp.ones((2, 4, 8))
    mask = np.array([[True] * 4, [False] * 4])
    for name in ("none", "urpe", "shaw"):
        part = positions.relative(name, heads=2, dim=4, span=(3,))
        net = Attention(2, position=part)
        out, _ = jax.jit(net.init_with_output)(jax.random.key(0), h, mask=mask)
        np.testing.assert_array_equal(out[1], 0)
        assert np.isfinite(out).all()
        assert np.abs(out[0]).max() > 0


@pytest.mark.parametrize("how", NORMALISE)
def test_large_scores(how):
    """Up to 1e4: all but "exp" stay finite, with finite gradients; that one overflows, as its
    documentation says: exp(b) / n is no function of differences of scores."""
    scores = jnp.array([0.0, 50.0, 1e4, -1e4]).reshape(1, 1, 4, 1)

    @jax.jit
    def run(key):
        return weigh(jnp.ones((1, 1, 1, 1)), key.reshape(1, 4, 1, 1), scale=1.0, normalise=how)

    weights = run(scores)
    gradient = jax.jit(jax.jacobian(run))(scores)
    finite = np.isfinite(weights).all() and np.isfinite(gradient).all()
    assert finite == (how != "exp")
    if how in ("softmax", "l2"):
        np.testing.assert_array_equal(np.ravel(weights), [0, 0, 1, 0])


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-15, 1e-5])
def test_rows_that_nearly_vanish(scale):
    """silu(b) is b / 2 near 0, and b / |b| has slopes 1 / |b|: held to 1e6 / 2, not infinite."""
    b = scale * jnp.array([1.0, -2.0, 2.0]).reshape(1, 3, 1, 1)
    run = lambda b: weigh(jnp.ones((1, 1, 1, 1)), b, scale=1.0, normalise="swish_l2")  # noqa: E731
    slope = np.asarray(jax.jit(jax.jacobian(run))(b)).reshape(3, 3)
    assert np.isfinite(slope).all()
    assert np.abs(slope).max() <= 5e5
    weights = np.ravel(run(b))
    length = np.hypot(1.5 * scale, 1e-6)  # of (1, -2, 2) / 2, and the floor
    np.testing.assert_allclose(weights, np.array([0.5, -1, 1]) * scale / length, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_slopes_of_products():
    """Truth: differences of values, both ways and twice; all by vmap as one by one."""
    check_grads(lambda q, k: weigh(q, k, bias=BIAS), (QUERY, KEY), order=2, rtol=1e-5)
    slopes = jax.grad(lambda q, k: jnp.sum(weigh(q[None], k[None], scale=2.0) ** 2), (0, 1))
    at_once = jax.vmap(slopes)(QUERY, KEY)
    for i in range(B):
        for got, wanted in zip(at_once, slopes(QUERY[i], KEY[i]), strict=True):
            np.testing.assert_allclose(got[i], wanted, atol=1e-12)


def test_exp_at_its_limit():
    """e^88 / n is a float32; e^89 is not. In half precision weights are still float32, which the
    values' dtype holds only up to 65504: e^11.09."""
    one = jnp.ones((1, 1, 1, 1))
    at = lambda b, dtype: attend(  # noqa: E731
        one.astype(dtype), one.astype(dtype), one.astype(dtype), scale=b, normalise="exp"
    ).item()
    np.testing.assert_allclose(at(88.0, jnp.float32), np.exp(88.0), rtol=1e-5)
    assert at(89.0, jnp.float32) == np.inf
    np.testing.assert_allclose(at(11.0, jnp.float16), np.exp(11.0), rtol=1e-3)
    assert at(12.0, jnp.float16) == np.inf
    np.testing.assert_allclose(at(12.0, jnp.bfloat16), np.exp(12.0), rtol=1e-2)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_half_precision(name):
    """Products of operands in half precision, everything else in float32: as near to the formula
    on the rounded operands as one rounding of weights and of the result is (2**-11, 2**-8)."""
    query, key, value = (jnp.asarray(a, name) for a in (QUERY, KEY, KEY))
    exact = [np.asarray(a.astype(jnp.float32), np.float64) for a in (query, key, value)]
    bias = jnp.asarray(BIAS, jnp.float32)
    for how in NORMALISE:
        for factor in (None, jnp.asarray(FACTOR, jnp.float32)):
            got = attend(query, key, value, bias=bias, mask=MASK, factor=factor, normalise=how)
            assert got.dtype == jnp.dtype(name)
            more = {} if factor is None else {"factor": FACTOR}
            wanted = formula.attend(*exact, bias=BIAS, mask=MASK, normalise=how, **more)
            unit = 2.0 ** (-11 if name == "float16" else -8)
            error = np.abs(np.asarray(got.astype(jnp.float32)) - wanted).max()
            assert error < 4 * unit * max(1.0, np.abs(wanted).max())
    assert weigh(query, key).dtype == jnp.float32


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_slopes_in_half_precision_compiled(name):
    """Against float32 on the rounded operands, which is differentiated as the formula is; a slope
    is a sum of products of rounded weights, values and cotangents: a few roundings."""
    query = jnp.asarray(QUERY, name)
    slope = jax.jit(jax.grad(lambda q: jnp.sum(attend(q, q, q).astype(jnp.float32) ** 2)))
    wanted = slope(query.astype(jnp.float32))
    unit = 2.0 ** (-11 if name == "float16" else -8)
    got = slope(query)
    assert got.dtype == jnp.dtype(name)
    error = jnp.max(jnp.abs(got.astype(jnp.float32) - wanted))
    assert float(error) < 8 * unit * float(jnp.max(jnp.abs(wanted)))


@pytest.mark.parametrize("how", NORMALISE)
def test_masks_are_bool(how):
    """A mask of 0 and -inf, to be added, would let everything through."""
    query = jnp.asarray(QUERY)
    with pytest.raises(ValueError, match=r"bool.* got (float32|int32)"):
        attend(query, query, query, mask=jnp.zeros((1, 1, 1, 1)), normalise=how)
    with pytest.raises(ValueError, match="mask must be bool, got int32"):
        weigh(query, query, mask=jnp.ones((1, 1, 1, 1), jnp.int32), normalise=how)


def _module(name="none", **how):
    part = positions.relative(name, heads=2, dim=4, span=(5,), causal=how.get("causal", False))
    return Attention(2, position=part, **how)


@pytest.mark.parametrize("name", ["none", "urpe", "shaw", "t5", "xl", "deberta", "rotary"])
def test_padding_never_leaks_and_causal_never_sees_ahead(name):
    """By gradient: what a token may not see has a gradient of exactly zero."""
    h = jnp.asarray(normal(0, 1, 6, 8), jnp.float32)
    net, causal = _module(name), _module(name, causal=True)
    variables = formula.drawn(net, h)
    mask = np.array([[True, True, True, True, False, False]])

    @jax.jit
    def run(h):
        padded = jax.jacobian(lambda h: net.apply(variables, h, mask=mask))(h)
        ahead = jax.jacobian(lambda h: causal.apply(variables, h))(h)
        return [jnp.max(jnp.abs(j[0, :, :, 0]), axis=(1, 3)) for j in (padded, ahead)]

    padded, ahead = run(h)  # [6, 6]: output i by input j
    np.testing.assert_array_equal(padded[:4, 4:], 0)
    assert np.asarray(padded)[:4, :4].min() > 0
    np.testing.assert_array_equal(np.triu(ahead, 1), 0)
    assert np.asarray(ahead)[np.tril_indices(6)].min() > 0


def test_mask_of_pairs_and_of_keys():
    h = jnp.asarray(normal(0, 2, 5, 8), jnp.float32)
    net = _module("bias")
    variables = formula.drawn(net, h)
    keys = np.arange(5)[None] < np.array([[3], [5]])
    pairs = np.broadcast_to(keys[:, None], (2, 5, 5))
    run = jax.jit(lambda mask: net.apply(variables, h, mask=mask))
    np.testing.assert_allclose(run(keys), run(pairs), atol=2e-5)
    causal = _module("bias", causal=True).apply(variables, h, mask=keys)
    below = pairs & np.tril(np.ones((5, 5), bool))
    np.testing.assert_allclose(causal, run(below), atol=2e-5)  # outputs of order ten


@pytest.mark.parametrize("name", ["bias", "urpe", "shaw"])
def test_weights_that_are_told(name):
    """A collection "attention" gets the weights of `weigh`, times the factor; the answer stays."""
    query, key, value = single(QUERY, QUERY[:, ::-1], QUERY)
    net = Attend(positions.relative(name, heads=HEADS, dim=DIM, span=(9,)))
    variables = formula.drawn(net, query, key, value, None)
    plain = net.apply(variables, query, key, value, None)
    out, told = net.apply(variables, query, key, value, None, mutable=["attention"])
    (weights,) = told["attention"]["weights"]
    np.testing.assert_allclose(out, plain, atol=2e-6)
    part = positions.relative(name, heads=HEADS, dim=DIM, span=(9,))
    own = {"params": variables["params"]["position"]}
    bias = part.apply(own, query, key, method="bias")
    wanted = weigh(query, key, bias=bias)
    if name == "urpe":
        wanted = wanted * part.apply(own, N, method="factor")[None]
    np.testing.assert_allclose(weights, wanted, atol=1e-6)


def test_module_is_its_layers():
    """Against the formula, from its own parameters; a memory of another width."""
    h, memory = normal(0, B, N, 8), normal(1, B, M, 6)
    net = Attention(2, inner=4)
    variables = formula.drawn(net, *single(h, memory))
    keys = np.arange(M)[None] < np.array([[3], [7]])
    got = jax.jit(net.apply)(variables, *single(h, memory), keys)
    p = variables["params"]
    dense = lambda x, name: x @ p[name]["kernel"] + p[name]["bias"]  # noqa: E731
    query = dense(h, "query").reshape(B, N, 2, 2)
    key, value = (dense(memory, name).reshape(B, M, 2, 2) for name in ("key", "value"))
    inside = formula.attend(query, key, value, mask=keys[:, None, None]).reshape(B, N, 4)
    np.testing.assert_allclose(got, dense(inside, "out"), atol=1e-4)


def test_dropout_needs_a_key_and_acts_in_training_only():
    h = jnp.asarray(normal(0, 1, 6, 8), jnp.float32)
    net = _module("bias", dropout=0.5)
    variables = formula.drawn(net, h)
    rngs = {"dropout": jax.random.key(1)}
    dropped = net.apply(variables, h, train=True, rngs=rngs)
    assert np.abs(dropped - net.apply(variables, h)).max() > 1e-3
    np.testing.assert_array_equal(dropped, net.apply(variables, h, train=True, rngs=rngs))


@pytest.mark.slow
def test_one_token():
    """Softmax gives it its own value, whatever the bias."""
    h = jnp.asarray(normal(0, 1, 1, 8), jnp.float32)
    for name in ("urpe", "shaw", "deberta"):
        part = positions.relative(name, heads=2, dim=4, span=(1,))
        net = Attention(2, position=part, normalise="softmax")
        variables = jax.jit(net.init)(jax.random.key(0), h)
        p = variables["params"]
        value = np.asarray(h) @ np.asarray(p["value"]["kernel"])
        if name == "shaw":
            value = value + np.tile(p["position"]["values"][1], 2)
        wanted = value @ np.asarray(p["out"]["kernel"])
        np.testing.assert_allclose(net.apply(variables, h), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("net", "mask", "message"),
    [
        (Attention(3), None, "heads must divide the inner width 8, got 3"),
        (Attention(0), None, "heads must divide"),
        (Attention(2, inner=7), None, "heads must divide the inner width 7"),
        (Attention(2, normalise="tanh"), None, "normalise must be one of softmax"),
        (Attention(2), np.ones((1, 5), int), r"mask must be bool \[1, 5\]"),
        (Attention(2), np.ones((1, 4), bool), r"got bool \[1, 4\]"),
        (Attention(2), np.ones((5, 5), bool), r"got bool \[5, 5\]"),
    ],
)
def test_bad_input(net, mask, message):
    with pytest.raises(ValueError, match=message):
        net.init(jax.random.key(0), jnp.ones((1, 5, 8)), mask=mask)


def test_combine_keeps_the_dtype_of_values():
    weights, value = jnp.ones((1, 1, 2, 3)), jnp.ones((1, 3, 1, 2), jnp.bfloat16)
    out = attention.combine(weights, value)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out.astype(jnp.float32), 3)
