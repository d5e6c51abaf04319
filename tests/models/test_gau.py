"""The gated attention unit against its formula in float64; what it must not see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.models import GAU, positions
from jaxdiff.models.gau import GAUBlock
from tests.models.positions import formula
from tests.models.positions.formula import normal

B, N, WIDTH, INNER = 2, 5, 6, 4
H = normal(0, B, N, WIDTH)
MASK = np.arange(N)[None] < np.array([[3], [5]])


def silu(x):
    return x / (1 + np.exp(-x))


def normed(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("how", ["relu2", "softmax", "l2"])
def test_the_formula(how):
    """Hua et al. 2022, section 3.1, with urpe's bias and factor."""
    part = positions.relative("urpe", heads=1, dim=INNER, value_dim=2 * WIDTH, span=(N,))
    net = GAU(2, INNER, part, how)
    variables = formula.drawn(net, H)
    got = jax.jit(net.apply)(variables, H, MASK)
    p = variables["params"]
    dense = lambda x, name: x @ p[name]["kernel"] + p[name]["bias"]  # noqa: E731
    gate, value = np.split(silu(dense(H, "expand")), 2, axis=-1)
    base = silu(dense(H, "base"))
    query, key = (base * p[f"{n}_gamma"] + p[f"{n}_beta"] for n in ("query", "key"))
    held = [p["position"][f"parts_{k}"]["table"][:, 0] for k in range(2)]
    bias, factor = (np.array([[t[i - j + N] for j in range(N)] for i in range(N)]) for t in held)
    inside = formula.attend(
        query[:, :, None], key[:, :, None], value[:, :, None],
        bias=bias, factor=factor, mask=MASK[:, None, None], normalise=how,
    )[:, :, 0]  # fmt: skip
    np.testing.assert_allclose(got, dense(gate * inside, "contract"), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_block_is_a_branch(norm):
    """pre: h + unit(norm(h)); post: norm(h + unit(h)), norms as numpy has them."""
    h = jnp.asarray(H, jnp.float32)
    net, unit = GAUBlock(2, INNER, norm=norm), GAU(2, INNER)
    variables = jax.jit(net.init)(jax.random.key(0), h)  # norms start as scale 1 and shift 0
    run = jax.jit(lambda h: unit.apply({"params": variables["params"]["gau"]}, h, MASK))
    wanted = h + run(normed(h)) if norm == "pre" else normed(h + run(h))
    np.testing.assert_allclose(jax.jit(net.apply)(variables, h, MASK), wanted, atol=1e-5)


def test_padding_never_leaks_and_causal_never_sees_ahead():
    h = jnp.asarray(H[:1], jnp.float32)
    net, causal = GAU(2, INNER), GAU(2, INNER, causal=True)
    variables = formula.drawn(net, h)

    @jax.jit
    def run(h):
        padded = jax.jacobian(lambda h: net.apply(variables, h, MASK[:1]))(h)
        ahead = jax.jacobian(lambda h: causal.apply(variables, h))(h)
        return [jnp.max(jnp.abs(j[0, :, :, 0]), axis=(1, 3)) for j in (padded, ahead)]

    padded, ahead = run(h)
    np.testing.assert_array_equal(padded[:3, 3:], 0)
    np.testing.assert_array_equal(np.triu(ahead, 1), 0)
    assert np.abs(padded[:3, :3]).max() > 0
    assert np.abs(np.tril(ahead, -1)).max() > 0
