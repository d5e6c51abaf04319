"""What every network owes: shapes, dtypes, zero at the start, conditioning, dropout, independence.

A new network is tested by adding a row to NETWORKS.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.models import MLP, DhariwalUNet, DiT, SongUNet, SuA, SuB, UNet

UNET = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (2,), "groups": 4}
NETWORKS = {
    "mlp": (MLP, {"width": 16, "depth": 2}, (6,)),
    "unet": (UNet, {**UNET, "heads": 2, "skip": "add", "scale_shift": True}, (4, 8, 1)),
    "dit": (DiT, {"width": 16, "depth": 2, "heads": 2}, (4, 8, 1)),
}
EDM = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (2,)}
NCSNPP = {"embedding": "fourier", "waves": 2, "encoder": "residual", "taps": (1, 3, 3, 1)}
SU = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "groups": 4}
# These have tests of their own; what they owe besides is asked of them among the slow ones.
MORE = {
    "ddpmpp": (SongUNet, EDM, (4, 8, 1)),
    "ncsnpp": (SongUNet, {**EDM, **NCSNPP}, (4, 8, 1)),
    "adm": (DhariwalUNet, {**EDM, "head_channels": 8}, (4, 8, 1)),
    "su_a": (SuA, {**SU, "min_size": 2}, (4, 8, 1)),
    "su_b": (SuB, SU, (4, 8, 1)),
}
ALL = NETWORKS | MORE
# These programs run once, on tiny shapes: optimising them would cost more than they do.
QUICK = {"xla_backend_optimization_level": 0}
# float32 through some ten layers; batched and single products are summed in other orders.
ATOL = 1e-4


@pytest.fixture(params=[*NETWORKS, *[pytest.param(n, marks=pytest.mark.slow) for n in MORE]])
def network(request):
    return ALL[request.param]


def _without(network, *kinds):
    if network[0] in kinds:
        pytest.skip("not promised by this network")


def _build(network, batch=3, cond=None, **changes):
    """(net, jitted apply, variables as if trained, x, t): no parameter is zero."""
    kind, fields, shape = network
    net = kind(**{**fields, **changes})
    generator = np.random.default_rng(0)
    dtype = jnp.result_type(float)
    x = jnp.asarray(generator.normal(size=(batch, *shape)), dtype)
    t = jnp.linspace(0.0, 900.0, batch)
    shapes = jax.eval_shape(net.init, jax.random.key(0), x, t, cond)

    def draw(leaf):
        scale = 1 / np.sqrt(np.prod(leaf.shape[:-1]) or 1)
        return jnp.asarray(scale * generator.normal(size=leaf.shape), leaf.dtype)

    return net, _apply(net), jax.tree.map(draw, shapes), x, t


def _apply(net):
    return jax.jit(net.apply, static_argnames="train", compiler_options=QUICK)


def test_starts_as_exactly_zero_in_float32(network):
    _without(network, SongUNet, SuA, SuB)
    kind, fields, shape = network
    x = jax.random.normal(jax.random.key(0), (2, *shape))
    start = jax.jit(kind(**fields).init_with_output, compiler_options=QUICK)
    out, variables = start(jax.random.key(1), x, jnp.array([3.0, 500.0]))
    assert out.dtype == jnp.float32
    np.testing.assert_array_equal(out, jnp.zeros_like(x))
    assert list(variables) == ["params"]


def test_half_precision_keeps_parameters_and_output_float32(network):
    net, apply, variables, x, t = _build(network, dtype="bfloat16", out_channels=2)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    out = apply(variables, x, t)
    assert out.shape == (*x.shape[:-1], 2)
    assert out.dtype == jnp.float32
    # bfloat16 has 8 bits: it really computed in it, and came out within some per cent.
    full = _apply(net.clone(dtype=None))(variables, x, t)
    error = float(jnp.abs(out - full).max() / jnp.abs(full).max())
    assert 1e-5 < error < 0.1


@pytest.mark.slow
def test_float64_under_x64(network, x64):
    net, _, variables, x, t = _build(network)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float64")}
    square = lambda e: jnp.sum(net.apply(variables, x + e, t) ** 2)  # noqa: E731
    value = jax.jit(jax.value_and_grad(square), compiler_options=QUICK)
    step = 1e-5
    # Central differences of a smooth function: an error of step**2 and rounding / step.
    difference = (value(step)[0] - value(-step)[0]) / (2 * step)
    np.testing.assert_allclose(value(0.0)[1], difference, rtol=1e-6)


@pytest.mark.slow
def test_each_example_is_computed_alone(network):
    _, apply, variables, x, t = _build(network, batch=7)
    together = apply(variables, x, t)
    assert float(jnp.abs(together).max()) > 0.1
    alone = jnp.concatenate([apply(variables, x[i : i + 1], t[i : i + 1]) for i in range(7)])
    np.testing.assert_allclose(together, alone, atol=ATOL)


def test_label_vector_and_time_count(network):
    cond = {"label": jnp.array([0, 1, -1]), "vector": jnp.zeros((3, 2))}
    _, apply, variables, x, t = _build(network, cond=cond, num_classes=4, cond_dim=2)
    base = apply(variables, x, t, cond)
    for changed in (
        apply(variables, x, t + 50, cond),
        apply(variables, x, t, {**cond, "label": jnp.array([3, 2, 0])}),
        apply(variables, x, t, {**cond, "vector": jnp.ones((3, 2))}),
    ):
        assert (jnp.abs(changed - base).reshape(3, -1).max(axis=1) > 10 * ATOL).all()
    # Only the example whose label changed may change.
    other = apply(variables, x, t, {**cond, "label": jnp.array([0, 3, -1])})
    np.testing.assert_array_equal(other[0], base[0])
    np.testing.assert_array_equal(other[2], base[2])


@pytest.mark.slow
def test_dropout_is_for_training_alone(network):
    _without(network, SuA, SuB)
    _, apply, variables, x, t = _build(network, dropout=0.5)
    wet = [
        apply(variables, x, t, train=True, rngs={"dropout": jax.random.key(k)}) for k in (0, 1, 0)
    ]
    dry = apply(variables, x, t)
    np.testing.assert_array_equal(wet[0], wet[2])
    assert not np.allclose(wet[0], wet[1])
    assert not np.allclose(wet[0], dry)
    with pytest.raises(Exception, match="dropout"):  # no silent training without a key
        apply(variables, x, t, train=True)


def test_equal_fields_make_equal_modules(network):
    kind, fields, _ = network
    one, two = kind(**fields), kind(**fields)
    assert one == two
    assert hash(one) == hash(two)
    assert one != kind(**fields, num_classes=3)


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param("unet", marks=pytest.mark.slow), "dit"])
def test_rematerialisation_changes_no_gradient(name):
    net, _, variables, x, t = _build(NETWORKS[name], dropout=0.3)

    def value(variables, net):
        out = net.apply(variables, x, t, train=True, rngs={"dropout": jax.random.key(3)})
        return jnp.mean(out**2)

    grad = jax.jit(jax.grad(value), static_argnums=1, compiler_options=QUICK)
    plain, remat = grad(variables, net), grad(variables, net.clone(remat=True))
    assert jax.tree.structure(plain) == jax.tree.structure(remat)
    largest = max(float(jnp.abs(a).max()) for a in jax.tree.leaves(plain))
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(remat), strict=True):
        # The same sums, perhaps fused otherwise; by biases of keys they are rounding alone, since a
        # softmax does not see them.
        least = max(float(jnp.abs(a).max()), 1e-3 * largest)
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * least)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("unet", {"multipliers": (1, 1, 1, 1, 1)}, ["divide by", "16", "4 x 8"]),
        ("unet", {"groups": 3}, ["groups=3", "[8, 16]"]),
        ("unet", {"attention": (5,)}, ["attention", "5", "[4, 2]"]),
        ("unet", {"heads": 3}, ["heads=3", "16"]),
        ("unet", {"skip": "sum"}, ["skip", "concat", "sum"]),
        ("unet", {"resample": "fir"}, ["resample", "pool", "fir"]),
        ("unet", {"blocks": 0}, ["blocks=0"]),
        ("unet", {"multipliers": ()}, ["multipliers=()"]),
        ("unet", {"embedding": "rotary"}, ["embedding", "rotary"]),
        ("unet", {"num_classes": 3}, ["cond is missing", "num_classes=3"]),
        ("dit", {"patch": 3}, ["patch=3", "4 x 8"]),
        ("dit", {"heads": 3}, ["heads=3", "width=16"]),
        ("dit", {"width": 18}, ["width", "18"]),
        ("mlp", {"depth": -1}, ["depth", "-1"]),
        ("mlp", {"width": 0}, ["width", "0"]),
        *[(name, {"dropout": 1.0}, ["dropout", "1.0"]) for name in ("unet", "dit", "mlp")],
    ],
)
def test_bad_fields_are_named(name, changes, words):
    with pytest.raises(ValueError, match=r"must|but|missing") as error:
        _build(NETWORKS[name], **changes)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        (UNet, {"out_channels": 0}, "out_channels must be positive or None, got 0"),
        (SongUNet, {"out_channels": 0}, "out_channels must be positive or None, got 0"),
        (SuA, {"out_channels": -1}, "out_channels must be positive or None, got -1"),
        (SuB, {"multipliers": (1, 1.5)}, "multipliers must be whole numbers"),
        (DhariwalUNet, {"multipliers": (1, 1.5)}, "multipliers must be whole numbers"),
        (UNet, {"num_classes": -2}, "num_classes must not be negative, got -2"),
        (SongUNet, {"cond_dim": -1}, "cond_dim must not be negative, got -1"),
    ],
)
def test_fields_out_of_range(kind, fields, words):
    net = kind(channels=32, **{"multipliers": (1, 1), **fields})
    with pytest.raises(ValueError, match=words):
        net.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), jnp.zeros(1))
