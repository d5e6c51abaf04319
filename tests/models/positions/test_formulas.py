"""Each position method against its paper's formula, written out in float64 an entry at a time.

float64 on both sides: what differs is rounding, of sums of some ten terms of order one, 1e-12.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.models import positions
from jaxdiff.models.attention import Attend
from jaxdiff.models.positions import tables
from tests.models.positions import formula
from tests.models.positions.formula import clipped, normal

pytestmark = pytest.mark.usefixtures("x64")

B, N, HEADS, DIM, SPAN = 2, 6, 2, 4, 3  # a span below N - 1: the last displacements are clipped
HOW = {"heads": HEADS, "dim": DIM, "span": (SPAN,)}
QUERY, KEY, VALUE = (normal(seed, B, N, HEADS, DIM) for seed in range(3))


def attended(name, query=QUERY, key=KEY, value=VALUE, **how):
    """A method's drawn parameters, and what attention with it answers."""
    attend = Attend(positions.relative(name, **{**HOW, **how}))
    variables = formula.drawn(attend, query, key, value, None)
    out = jax.jit(attend.apply)(variables, query, key, value, None)
    return variables.get("params", {}).get("position", {}), np.asarray(out)


def table(entry):
    """[HEADS, N, N] of a function of (i - j, head)."""
    return np.array([[[entry(i - j, h) for j in range(N)] for i in range(N)] for h in range(HEADS)])


def same(got, wanted):
    np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-12)


def test_bias():
    params, out = attended("bias")
    assert params["table"].shape == (2 * SPAN + 1, HEADS)
    bias = table(lambda d, h: params["table"][clipped(d, SPAN) + SPAN, h])
    same(out, formula.attend(QUERY, KEY, VALUE, bias=bias))


def test_factor():
    params, out = attended("factor")
    c = table(lambda d, h: params["table"][clipped(d, SPAN) + SPAN, h])
    same(out, formula.attend(QUERY, KEY, VALUE, factor=c))


def test_factor_shared_by_heads_and_in_buckets():
    for per_head, buckets in ((False, None), (True, 4)):
        attend = Attend(tables.Factor(**HOW, per_head=per_head, buckets=buckets, reach=3))
        variables = formula.drawn(attend, QUERY, KEY, VALUE, None)
        held = variables["params"]["position"]["table"]
        assert held.shape == ((7, 1) if buckets is None else (4, HEADS))

        def entry(d, h, buckets=buckets, held=held):
            if buckets is None:
                return held[clipped(d, SPAN) + SPAN, 0]
            return held[formula.bucket(-d, buckets, 3), h]

        out = jax.jit(attend.apply)(variables, QUERY, KEY, VALUE, None)
        same(out, formula.attend(QUERY, KEY, VALUE, factor=table(entry)))


def test_factor_starts_as_nothing():
    attend = Attend(positions.relative("factor", **HOW))
    variables = attend.init(jax.random.key(0), QUERY, KEY, VALUE, None)
    same(attend.apply(variables, QUERY, KEY, VALUE, None), formula.attend(QUERY, KEY, VALUE))


def test_urpe_is_bias_and_factor():
    params, out = attended("urpe")
    b, c = (params[f"parts_{k}"]["table"] for k in range(2))
    bias = table(lambda d, h: b[clipped(d, SPAN) + SPAN, h])
    factor = table(lambda d, h: c[clipped(d, SPAN) + SPAN, h])
    same(out, formula.attend(QUERY, KEY, VALUE, bias=bias, factor=factor))


def test_t5():
    params, out = attended("t5")
    bias = table(lambda d, h: params["table"][formula.bucket(-d), h])
    same(out, formula.attend(QUERY, KEY, VALUE, bias=bias))


@pytest.mark.parametrize(("buckets", "reach"), [(32, 128), (8, 20), (4, 3)])
@pytest.mark.parametrize("causal", [False, True])
def test_t5_buckets(buckets, reach, causal):
    d = np.arange(-300, 301)
    found = tables.bucket(d, buckets, reach, causal=causal)
    wanted = [formula.bucket(-int(x), buckets, reach, both=not causal) for x in d]
    np.testing.assert_array_equal(found, wanted)
    assert found.min() == 0
    assert found.max() == buckets - 1


def test_t5_published_buckets():
    """Half the buckets a direction, half of these exact: 8 single distances, 8 up to 128."""
    assert [int(tables.bucket(np.array(d), 32, 128)) for d in (0, 1, 7, 8, 127, 128, 9999)] == [
        0, 1, 7, 8, 15, 15, 15,
    ]  # fmt: skip
    assert int(tables.bucket(np.array(-1), 32, 128)) == 17


def test_alibi():
    """Eight heads: 1/2, 1/4, .. 1/256, as the paper has it; twelve: four more in between."""
    same(tables.slopes(8), [2.0**-k for k in range(1, 9)])
    between = [2.0 ** (-k / 2) for k in (1, 3, 5, 7)]
    same(tables.slopes(12), [*(2.0**-k for k in range(1, 9)), *between])
    _, out = attended("alibi")
    bias = table(lambda d, h: -(2.0 ** (-4 * (h + 1))) * abs(d))
    same(out, formula.attend(QUERY, KEY, VALUE, bias=bias))


def test_shaw():
    params, out = attended("shaw")
    pairs = [[clipped(i - j, SPAN) + SPAN for j in range(N)] for i in range(N)]
    keys, vectors = params["keys"][np.array(pairs)], params["values"][np.array(pairs)]
    bias = np.einsum("bihd,ijd->bhij", QUERY, keys) * DIM**-0.5
    same(out, formula.attend(QUERY, KEY, VALUE, bias=bias, vectors=vectors))


def test_xl():
    params, out = attended("xl")
    kernel = params["project"]["kernel"]
    bias = np.zeros((B, HEADS, N, N))
    for b, h, i, j in np.ndindex(bias.shape):
        r = (formula.waves(i - j, HEADS * DIM) @ kernel).reshape(HEADS, DIM)[h]
        asked = (QUERY[b, i, h] + params["v"][h]) @ r
        bias[b, h, i, j] = (asked + params["u"][h] @ KEY[b, j, h]) * DIM**-0.5
    same(out, formula.attend(QUERY, KEY, VALUE, bias=bias))


def test_deberta():
    params, out = attended("deberta")
    keys, queries = (
        (params["table"] @ params[name]["kernel"]).reshape(-1, HEADS, DIM)
        for name in ("to_key", "to_query")
    )
    bias = np.zeros((B, HEADS, N, N))
    for b, h, i, j in np.ndindex(bias.shape):
        there, back = clipped(i - j, SPAN) + SPAN, clipped(j - i, SPAN) + SPAN
        asked, told = QUERY[b, i, h] @ keys[there, h], KEY[b, j, h] @ queries[back, h]
        bias[b, h, i, j] = (asked + told) * (3 * DIM) ** -0.5
    same(out, formula.attend(QUERY, KEY, VALUE, bias=bias, scale=(3 * DIM) ** -0.5))


def test_rotary():
    _, out = attended("rotary")
    query, key = (
        np.array([[[formula.turned(x[b, i, h], i) for h in range(HEADS)] for i in range(N)]
                  for b in range(B)]) for x in (QUERY, KEY)
    )  # fmt: skip
    same(out, formula.attend(query, key, VALUE))


GRID = (2, 3)
PLACES = [(i // 3, i % 3) for i in range(6)]


def on_grid(entry, span=(1, 2)):
    """[HEADS, N, N] of a function of (rows apart, columns apart, head)."""
    out = np.zeros((HEADS, N, N))
    for h, i, j in np.ndindex(out.shape):
        apart = [
            clipped(a - b, most) for a, b, most in zip(PLACES[i], PLACES[j], span, strict=True)
        ]
        out[h, i, j] = entry(*apart, h)
    return out


def test_tables_on_a_grid_are_of_row_and_column():
    params, out = attended("bias", span=(1, 2), shape=GRID)
    assert params["table"].shape == (3 * 5, HEADS)
    bias = on_grid(lambda r, c, h: params["table"].reshape(3, 5, HEADS)[r + 1, c + 2, h])
    same(out, formula.attend(QUERY, KEY, VALUE, bias=bias))
    params, out = attended("factor", span=(1, 2), shape=GRID)
    factor = on_grid(lambda r, c, h: params["table"].reshape(3, 5, HEADS)[r + 1, c + 2, h])
    same(out, formula.attend(QUERY, KEY, VALUE, factor=factor))
    _, out = attended("alibi", span=(1, 2), shape=GRID)
    bias = on_grid(lambda r, c, h: -(2.0 ** (-4 * (h + 1))) * (abs(r) + abs(c)))
    same(out, formula.attend(QUERY, KEY, VALUE, bias=bias))


def test_axial_rotary_turns_each_half_by_its_axis():
    _, out = attended("rotary", span=(1, 2), shape=GRID)
    query, key = np.array(QUERY), np.array(KEY)
    for b, i, h in np.ndindex(B, N, HEADS):
        for x in (query, key):
            parts = [formula.turned(x[b, i, h, 2 * a : 2 * a + 2], PLACES[i][a]) for a in range(2)]
            x[b, i, h] = np.concatenate(parts)
    same(out, formula.attend(query, key, VALUE))


@pytest.mark.parametrize("name", [*positions.RELATIVE, "urpe", "rotary+factor"])
def test_scores_depend_on_displacements_alone(name):
    """Of a window of a sequence, hooks say of tokens 1..5 what they say of tokens 0..4."""
    part = positions.relative(name, **HOW)
    ahead, behind = np.roll(QUERY, 1, axis=1), np.roll(KEY, 1, axis=1)

    def told(part, query, key):
        q, k = part.rotate(query), part.rotate(key)
        bias = part.bias(q, k)
        factor = part.factor(N)
        scores = jnp.einsum("bnhd,bmhd->bhnm", q, k) + (0 if bias is None else bias)
        return scores, jnp.ones((1, N, N)) if factor is None else factor

    variables = formula.drawn(part, QUERY, KEY, method=told)
    run = jax.jit(lambda q, k: part.apply(variables, q, k, method=told))
    (b0, c0), (b1, c1) = run(QUERY, KEY), run(ahead, behind)
    same(b1[..., 1:, 1:], b0[..., :-1, :-1])
    same(c1[..., 1:, 1:], c0[..., :-1, :-1])
    same(c0[..., 1:, 1:], c0[..., :-1, :-1])
