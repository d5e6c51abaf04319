"""Bits of whole numbers.

Truth: the entropy of a discretised Gaussian by SciPy; the offsets of the literature.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxdiff as jd
from jaxdiff.likelihood import log_prob, quantised
from jaxdiff.likelihood.quantisation import model_units

STD = 0.3


def discrete(count, seed, low, high, bins):
    """Draws of N(0, STD**2) rounded to `bins` values in [-1, 1], and the entropy in bits."""
    edges = np.concatenate([[-np.inf], np.linspace(-1, 1, bins)[:-1] + 1 / (bins - 1), [np.inf]])
    p = np.diff(stats.norm.cdf(edges, scale=STD))
    n = np.random.default_rng(seed).choice(bins, size=(count, 1), p=p)
    return n.astype(np.uint8), -float(np.sum(p[p > 0] * np.log2(p[p > 0])))


@pytest.mark.slow
@pytest.mark.parametrize("scale", [3.0, 1.0])
def test_bits_are_the_entropy_whatever_the_scale(scale, key):
    """The model is right, bins of .03 deviations: a uniform spread costs w**2 / 24 nats, 3e-5."""
    n, entropy = discrete(2000, 0, -1, 1, 256)
    data = jd.exact.gaussian(jnp.zeros(1), jnp.full((1, 1), (scale * STD) ** 2))
    q = quantised(256, -scale, scale)
    found = log_prob(key, data, n, jd.ve(1e-3, 50.0), quantisation=q, draws=2)
    error = found.bits_errors
    assert abs(float(found.bits_per_dim) - entropy) < 4 * float(error.total)
    assert float(error.dequantisation) < 0.1 * float(error.data)
    as_floats = q.low + q.width * jnp.asarray(n, jnp.float32)
    same = log_prob(key, data, as_floats, jd.ve(1e-3, 50.0), quantisation=q, draws=2)
    np.testing.assert_allclose(same.values, found.values, atol=1e-3)


def test_offsets_of_the_literature():
    """log2 of bins a unit: 7 bits where 256 bins fill [-1, 1], log2(127.5) where they end there."""
    fill = quantised(256, -1 + 1 / 256, 1 - 1 / 256)
    np.testing.assert_allclose(-np.log2(fill.width), 7, rtol=1e-12)
    np.testing.assert_allclose(-np.log2(quantised().width), np.log2(127.5), rtol=1e-12)


def test_dequantisation_fills_the_bin(key):
    q = quantised(17)
    x = model_units(jnp.full((4000, 1), 8, jnp.uint8), q)
    np.testing.assert_allclose(x, 0, atol=1e-7)
    spread = q.dequantise(jax.random.split(key, 4000), x)[:, 0]
    assert stats.kstest(np.asarray(spread), "uniform", args=(-q.width / 2, q.width)).pvalue > 0.01
    again = q.dequantise(jax.random.split(key, 4000)[:3], x[:3])[:, 0]
    np.testing.assert_array_equal(again, spread[:3])


REFUSED = {
    "x holds whole numbers": lambda: model_units(jnp.ones((2, 2), jnp.int32), None),
    r"x must lie in \[0, 16\], got 17": lambda: model_units(jnp.full((2, 2), 17), quantised(17)),
    r"x must lie in \[0, 3\]": lambda: model_units(np.array([[2**32 + 1], [0]]), quantised(4)),
    "x must hold the 256 values": lambda: model_units(jnp.full((2, 2), 0.301), quantised(256)),
    "x must hold the 17 values .* got 2": lambda: model_units(jnp.full((2, 2), 2.0), quantised(17)),
    "bins must be a whole number": lambda: quantised(1),
    "low must lie in": lambda: quantised(17, 1.0, -1.0),
    "x must be float32 or float64, got float16": lambda: model_units(
        jnp.ones((2, 2), jnp.float16), None
    ),
    "x must have shape": lambda: model_units(jnp.ones(3), None),
}


@pytest.mark.parametrize("message", REFUSED)
def test_bad_input_is_named(message):
    with pytest.raises(ValueError, match=message):
        REFUSED[message]()


def test_truth_values_are_whole_numbers():
    x = model_units(jnp.array([[True, False]]), quantised(2))
    np.testing.assert_array_equal(x, [[1.0, -1.0]])
