"""What the classifier owes: nothing known at the start, float32 out, each example by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.models import Classifier

SMALL = {"channels": 4, "multipliers": (1, 2), "attention": (2,), "groups": 2}
X = np.random.default_rng(0).normal(size=(3, 4, 4, 2)).astype(np.float32)
T = np.array([-1.0, 0.0, 2.0], np.float32)


def test_starts_knowing_nothing_and_takes_examples_one_by_one(key):
    """Logits are exactly 0; with other parameters, an example alone is that of the batch."""
    net = Classifier(5, **SMALL, dtype="bfloat16")
    logits, variables = jax.jit(net.init_with_output)(key, X, T)
    assert logits.dtype == jnp.float32
    np.testing.assert_array_equal(logits, np.zeros((3, 5)))
    assert list(variables) == ["params"]
    net, generator = net.clone(dtype=None), np.random.default_rng(1)
    other = jax.tree.map(lambda a: 0.3 * generator.normal(size=a.shape).astype(a.dtype), variables)
    ask = jax.jit(net.apply)
    found = ask(other, X, T)
    assert np.abs(found).max() > 0.1
    # float32 through some ten layers, summed in other orders
    np.testing.assert_allclose(ask(other, X[:1], T[:1]), found[:1], atol=1e-4)
    assert np.abs(ask(other, X, T + 1) - found).max() > 1e-3  # it is told the time
    last = jax.jit(lambda v: net.apply(v, X, T, method="features"))(other)
    assert last.shape == (3, 8)
    out = other["params"]["out"]
    np.testing.assert_allclose(last @ out["kernel"] + out["bias"][None], found, atol=1e-4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_classes": 1}, "num_classes must be at least 2, got 1"),
        ({"groups": 3}, "groups=3 must divide"),
        ({"multipliers": (1, 1, 1, 1)}, "must divide by"),
        ({"embedding": "time"}, "embedding must be one of"),
    ],
)
def test_bad_fields(fields, message, key):
    net = Classifier(**{"num_classes": 5, **SMALL, **fields})
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(net.init, key, X, T)
