"""Pytrees: what JAX must tell apart, and what a frozen dataclass must keep."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import arrays, parametrization, reverse, samplers, schedules
from jaxdiff.typing import CLEAN


@arrays.pytree
class One:
    a: float
    b: tuple
    name: str = arrays.static(default="x")


@arrays.pytree
class Other:
    a: float
    b: tuple
    name: str = arrays.static(default="x")


def test_classes_of_equal_fields_have_unequal_structures():
    """Or jit, whose cache compares structures, would run one class's program for another."""
    schedule = [schedules.linear_vp(), schedules.sub_vp(), schedules.ve(), schedules.edm()]
    networks = [make() for make in parametrization.PARAMETRIZATIONS.values()]
    variances = [reverse.small(), reverse.large()]
    steps = [samplers.ddim(), samplers.dpm2_ancestral(), samplers.heun()]
    for group in (schedule, networks, variances, steps, [One(1.0, ()), Other(1.0, ())]):
        for a, b in itertools.combinations(group, 2):
            assert jax.tree.structure(a) != jax.tree.structure(b)
        for a in group:
            same = jax.tree.map(lambda leaf: 2 * leaf, a)
            assert jax.tree.structure(a) == jax.tree.structure(same)


def test_a_pytree_keeps_its_fields_and_its_paths():
    node = One(1.0, (2.0, 3.0), "name")
    doubled = jax.tree.map(lambda leaf: 2 * leaf, node)
    assert (doubled.a, doubled.b, doubled.name) == (2.0, (4.0, 6.0), "name")
    assert jax.tree.leaves(node) == [1.0, 2.0, 3.0]
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(node)]
    assert paths == [".a", ".b[0]", ".b[1]"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        node.a = 2.0
    assert dataclasses.replace(node, a=5.0).a == 5.0


def test_static_fields_are_structure():
    assert jax.tree.structure(One(1.0, (), "a")) != jax.tree.structure(One(1.0, (), "b"))


def test_safe_square_root_and_quotient_have_finite_gradients():
    for f in (arrays.safe_sqrt, lambda x: arrays.safe_divide(1.0, x)):
        assert f(jnp.asarray(0.0)) == 0
        assert jax.grad(f)(0.0) == 0
    np.testing.assert_allclose(jax.grad(arrays.safe_sqrt)(4.0), 0.25)
    assert np.isnan(arrays.safe_sqrt(jnp.asarray(np.nan)))  # a fault must not pass for nothing


def test_expand_to_never_narrows():
    x = jnp.zeros((2, 3, 4), jnp.bfloat16)
    assert arrays.expand_to(jnp.ones(2), x).shape == (2, 1, 1)
    assert arrays.expand_to(jnp.ones(2), x).dtype == jnp.float32
    assert arrays.expand_to(0.5, x).shape == ()


def test_the_clean_level_has_infinite_snr():
    assert CLEAN.snr == np.inf
    assert CLEAN.log_snr == np.inf
