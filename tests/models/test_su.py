"""Su's networks: norm and block in numpy, steps that there are not, what is refused.

Truth: the formulas of the recipe written in numpy.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.models import SuA, SuB, su

SMALL = {"channels": 4, "multipliers": (1, 2), "blocks": 1, "groups": 2}
QUICK = {"xla_backend_optimization_level": 0}
X = np.random.default_rng(0).normal(size=(3, 4, 4, 2)).astype(np.float32)
T = np.array([0.0, 5.0, 999.0], np.float32)


def filled(shapes, seed=1):
    generator = np.random.default_rng(seed)
    draw = lambda a: jnp.asarray(0.3 * generator.normal(size=a.shape), a.dtype)  # noqa: E731
    return jax.tree.map(draw, shapes)


def test_norm_groups_channels_by_remainder(x64):
    x = 1 + np.random.default_rng(2).normal(size=(2, 3, 3, 6))
    norm = su._Norm(2)
    variables = filled(jax.eval_shape(norm.init, jax.random.key(0), x))
    wanted = np.empty_like(x)
    for remainder in (0, 1):
        part = x[..., remainder::2]
        mean, var = part.mean((1, 2, 3), keepdims=True), part.var((1, 2, 3), keepdims=True)
        wanted[..., remainder::2] = (part - mean) / np.sqrt(var + 1e-6)
    params = variables["params"]
    wanted = wanted * np.asarray(params["scale"]) + np.asarray(params["bias"])
    np.testing.assert_allclose(norm.apply(variables, x), wanted, atol=1e-12)


def test_steps_have_rows_and_no_others(key):
    """Steps are rounded; beyond the table is NaN, and only for that example."""
    net = SuA(**SMALL, num_steps=10)
    variables = filled(jax.eval_shape(net.init, key, X, T))
    apply = jax.jit(net.apply, compiler_options=QUICK)
    whole = apply(variables, X, np.array([0.0, 5.0, 9.0], np.float32))
    near = apply(variables, X, np.array([0.4, 4.6, 9.2], np.float32))
    np.testing.assert_array_equal(whole, near)
    beyond = apply(variables, X, np.array([-1.0, 5.0, 10.0], np.float32))
    assert np.isnan(beyond).all((1, 2, 3)).tolist() == [True, False, True]
    np.testing.assert_array_equal(beyond[1], whole[1])


@pytest.mark.parametrize(
    ("size", "halvings"), [((16, 16), 2), ((8, 8), 1), ((4, 4), 0), ((8, 16), 1)]
)
def test_halving_ends_at_the_least_size(size, halvings):
    net = SuA(**SMALL)
    x = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    found = jax.make_jaxpr(net.init_with_output)(jax.random.key(0), x, T[:1])
    smallest = min(
        v.aval.shape[1]
        for e in found.jaxpr.eqns
        for v in e.outvars
        if e.primitive.name == "conv_general_dilated"
    )
    assert smallest == size[0] >> halvings
    assert found.out_avals[0].shape == (1, *size, 3)


def test_kernels_start_at_the_published_scale(key):
    block = su._BlockA(8, 2, scale=5**-0.5)  # of a network of two levels
    x = jnp.zeros((1, 4, 4, 8))
    params = jax.jit(block.init, compiler_options=QUICK)(key, x, jnp.zeros((1, 4)))["params"]
    bound = np.sqrt(6 / (9 * 16))  # Glorot's, of 8 to 8 channels
    # the variance is 1 / sqrt(5) of that; 576 numbers come within 2 % of the bound
    largest = float(jnp.abs(params["conv_in"]["kernel"]).max())
    assert 0.98 * bound < largest * 5**0.25 <= bound * 1.000001


LABEL = np.zeros(3, np.int32)


@pytest.mark.parametrize(
    ("kind", "changes", "cond", "words"),
    [
        (SuA, {"groups": 3}, None, ["groups=3", "channels=4"]),
        (SuA, {"num_steps": 0}, None, ["num_steps", "0"]),
        (SuA, {"multipliers": ()}, None, ["multipliers=()"]),
        (SuA, {"dtype": "complex64"}, None, ["dtype", "complex64"]),
        (SuA, {}, LABEL, ["cond must be None"]),
        (SuB, {"blocks": 0}, None, ["blocks=0"]),
        (SuB, {"multipliers": (1, 1, 1, 1)}, None, ["divide by", "8", "4 x 4"]),
        (SuB, {"num_classes": 2}, None, ["cond is missing", "num_classes=2"]),
    ],
)
def test_bad_fields_are_named(kind, changes, cond, words):
    net = kind(**{**SMALL, **changes})
    with pytest.raises(ValueError, match=r"must|missing") as error:
        jax.eval_shape(net.init, jax.random.key(0), X, T, cond)
    for word in words:
        assert word in str(error.value)
