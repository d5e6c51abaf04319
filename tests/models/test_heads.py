"""Heads on every network: shapes, zero at the start, what is frozen and what is not.

Truth: the network itself, whose last layers a head with the same weights must repeat; a loop over
pixels; gradients that are exactly 0.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.models import MLP, DiT, UNet, WithHeads, heads, layers
from tests.models.test_networks import ALL, NETWORKS

NAMES = ("residual2", "eps2")
QUICK = {"xla_backend_optimization_level": 0}
SMALL = MLP(width=8, depth=1, dropout=0.5)
X = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
T = np.array([3.0, 40.0, 500.0], np.float32)


def filled(shapes):
    """Variables as if trained: none is zero."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda a: jnp.asarray(0.5 * rng.normal(size=a.shape), a.dtype), shapes)


def start(net, x=X, t=T):
    return jax.eval_shape(net.init, jax.random.key(0), x, t)


def outlines(tree):
    return jax.tree.map(lambda a: (a.shape, a.dtype), tree)


@pytest.mark.slow
@pytest.mark.parametrize("form", heads.FORMS)
@pytest.mark.parametrize(
    "name",
    [*NETWORKS, *[pytest.param(n, marks=pytest.mark.slow) for n in ALL if n not in NETWORKS]],
)
def test_every_network_takes_heads(name, form):
    kind, fields, shape = ALL[name]
    backbone = kind(**fields)
    net = WithHeads(backbone, NAMES, form)
    x = jax.ShapeDtypeStruct((3, *shape), jnp.float32)
    variables = start(net, x)
    assert outlines(variables["params"]["backbone"]) == outlines(start(backbone, x)["params"])
    assert list(variables) == ["params"]
    assert set(variables["params"]["heads"]) == set(NAMES)
    out = jax.eval_shape(net.apply, variables, x, T)
    assert out.shape == (3, *shape[:-1], 3 * shape[-1])
    assert out.dtype == jnp.float32


@pytest.mark.parametrize(
    ("backbone", "shape", "form"),
    [
        (SMALL, (4,), "simple"),
        (SMALL, (4,), "residual"),
        pytest.param(
            DiT(width=8, depth=1, heads=1, patch=2), (4, 4, 2), "residual", marks=pytest.mark.slow
        ),
    ],
)
def test_heads_start_as_zero_beside_the_network_itself(backbone, shape, form, key):
    net = WithHeads(backbone, NAMES, form)
    x = jax.random.normal(key, (3, *shape))
    variables = jax.jit(net.init, compiler_options=QUICK)(key, x, T)
    params = {**variables["params"], "backbone": filled(variables["params"]["backbone"])}
    out = jax.jit(net.apply, compiler_options=QUICK)({"params": params}, x, T)
    alone = backbone.apply({"params": params["backbone"]}, x, T)
    # one program and single operations may round otherwise
    np.testing.assert_allclose(out[..., : shape[-1]], alone, atol=1e-5)
    np.testing.assert_array_equal(out[..., shape[-1] :], 0)
    # what makes it zero is its last layer alone
    assert jnp.abs(filled(variables["params"]["heads"])["eps2"]["out"]["kernel"]).max() > 0


@pytest.mark.parametrize(
    ("backbone", "shape"),
    [
        (SMALL, (4,)),
        (UNet(channels=8, multipliers=(1,), blocks=1, attention=(), groups=2), (4, 6, 1)),
    ],
)
def test_a_head_of_the_last_layers_weights_says_what_the_network_says(backbone, shape, key):
    """So it reads what stands before the last norm; UNet's groups here are those of a head."""
    net = WithHeads(backbone, ("copy",))
    x = jax.random.normal(key, (3, *shape))
    params = filled(start(backbone, x)["params"])
    variables = {"backbone": params, "heads": {"copy": {n: params[n] for n in ("norm", "out")}}}
    out = jax.jit(net.apply, compiler_options=QUICK)({"params": variables}, x, T)
    mean, copy = jnp.split(out, 2, axis=-1)
    assert jnp.abs(mean).max() > 0.1
    np.testing.assert_allclose(copy, mean, atol=1e-5)  # float32, sums of the same terms


def test_channels_become_pixels_row_by_row():
    x = np.random.default_rng(0).normal(size=(2, 3, 2, 2 * 3 * 5))
    wanted = np.empty((2, 6, 6, 5))
    for i in range(6):
        for j in range(6):
            place = (i % 2) * 3 + j % 3
            wanted[:, i, j] = x[:, i // 2, j // 3, 5 * place : 5 * place + 5]
    np.testing.assert_array_equal(layers.depth_to_space(x, 6, 6), wanted)


def value(variables, x, net, **more):
    return jnp.sum(net.apply(variables, x, T, **more) ** 2)


@pytest.mark.slow
@pytest.mark.parametrize("form", heads.FORMS)
def test_a_frozen_network_has_gradients_of_zero_and_joint_ones_do_not(form):
    found = {}
    for frozen in (True, False):
        net = WithHeads(SMALL, NAMES, form, frozen)
        variables = filled(start(net))
        grads = jax.grad(value, argnums=(0, 1))
        found[frozen] = jax.jit(lambda v, x, net=net, grads=grads: grads(v, x, net))(variables, X)
    (frozen, by_x), (joint, also_by_x) = found[True], found[False]
    for leaf in jax.tree.leaves(frozen["params"]["backbone"]):
        np.testing.assert_array_equal(leaf, 0)
    for tree in (frozen["params"]["heads"], joint["params"]["backbone"], joint["params"]["heads"]):
        assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(tree))
    # guidance and flows ask for the gradient by x, which is that of the whole network either way
    np.testing.assert_allclose(by_x, also_by_x, rtol=1e-5)


def test_dropout_is_for_networks_that_are_trained(key):
    for frozen in (True, False):
        net = WithHeads(SMALL, NAMES, frozen=frozen)
        variables = filled(start(net))
        dry = net.apply(variables, X, T)
        wet = net.apply(variables, X, T, key=key, train=True)
        assert np.array_equal(dry, wet) == frozen


def test_vmap_over_heads_on_one_network():
    net = WithHeads(SMALL, NAMES)
    variables = filled(start(net))["params"]
    many = jax.tree.map(lambda a: jnp.stack([a, 2 * a, -a]), variables["heads"])
    axes = {"params": {"backbone": None, "heads": 0}}
    apply = jax.jit(jax.vmap(lambda v: net.apply(v, X, T), in_axes=(axes,)))
    outs = apply({"params": {**variables, "heads": many}})
    for i in range(3):
        one = {**variables, "heads": jax.tree.map(lambda a, i=i: a[i], many)}
        alone = net.apply({"params": one}, X, T)
        np.testing.assert_allclose(outs[i], alone, rtol=1e-5, atol=1e-5)


def test_float64_under_x64(x64):
    net = WithHeads(SMALL, NAMES, "residual")
    variables = filled(start(net, X.astype(np.float64)))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float64")}
    assert net.apply(variables, X.astype(np.float64), T).dtype == jnp.float64


def test_equal_fields_make_equal_networks():
    one, two = (WithHeads(MLP(width=8), NAMES) for _ in range(2))
    assert one == two
    assert hash(one) == hash(two)
    assert one != WithHeads(MLP(width=8), NAMES, frozen=False)


class Silent(nn.Module):
    dtype = None

    @nn.compact
    def __call__(self, x, t, cond=None, *, train=False):
        return nn.Dense(x.shape[-1])(x)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: WithHeads(SMALL, ()), r"names must be one or more, each once, got \(\)"),
        (lambda: WithHeads(SMALL, "eps2"), "names must be a tuple.*got 'eps2'"),
        (lambda: WithHeads(SMALL, ("a", "a")), "names must be one or more, each once"),
        (lambda: WithHeads(SMALL, ("a",), "deep"), "form must be one of simple, residual, got"),
        (lambda: start(WithHeads(Silent(), ("a",))), "must sow 'features'.*Silent does not"),
    ],
)
def test_bad_heads_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
