"""Truth: the closed form of the recursion, a weighted sum of all parameters so far."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.training import ema


def test_is_the_weighted_sum_of_all_parameters():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 3))
    decay = 0.95
    decays = np.array([min(decay, (1 + t) / (10 + t)) for t in range(1, 200)])
    # ema_n = prod(d) x_0 + sum_i (1 - d_i) prod_{j > i} d_j x_i.
    tails = np.append(np.cumprod(decays[::-1])[::-1][1:], 1.0)
    expected = np.prod(decays) * values[0] + ((1 - decays) * tails) @ values[1:]
    average = ema.init({"w": jnp.asarray(values[0], jnp.float32)})
    for t in range(1, 200):
        params = {"w": jnp.asarray(values[t], jnp.float32)}
        average = ema.update(average, params, step=t, decay=decay)
    # 200 float32 blends of numbers of order 1: some 1e-7 each, which decay forgets.
    np.testing.assert_allclose(average["w"], expected, atol=1e-6)


@pytest.mark.parametrize(("step", "expected"), [(0, 0.1), (8, 0.5), (80, 0.9), (10**6, 0.999)])
def test_decay_warms_up(step, expected):
    np.testing.assert_allclose(ema.decay_at(step, 0.999), expected, rtol=1e-6)


def test_half_precision_parameters_have_a_float32_average():
    params = {"w": jnp.ones((2,), jnp.bfloat16)}
    average = ema.update(ema.init(params), {"w": 2 * params["w"]}, step=10**6, decay=0.9999)
    assert average["w"].dtype == jnp.float32
    # The increment 1e-4 is far below the spacing of bfloat16 at 1 (2**-7), which would lose it.
    np.testing.assert_allclose(average["w"], 1.0001, rtol=1e-6)


@pytest.mark.usefixtures("strict", "x64")
def test_wide_and_plain_numbers_keep_their_width():
    """Also where JAX refuses to mix dtypes, as it does float32 and float64 there."""
    params = {"wide": jnp.ones(2, jnp.float64), "half": jnp.ones(2, jnp.float16), "plain": 1.5}
    average = ema.init(params)
    dtypes = {name: str(leaf.dtype) for name, leaf in average.items()}
    assert dtypes == {"wide": "float64", "half": "float32", "plain": "float64"}


def test_a_tree_of_decays_is_a_tree_of_averages():
    params = {"w": jnp.arange(3.0)}
    decays = {"short": 0.5, "long": 0.9}
    averages = ema.update(ema.init(params, decays), {"w": -params["w"]}, step=100, decay=decays)
    # ema + (1 - decay)(-w - w)
    np.testing.assert_allclose(averages["short"]["w"], 0 * params["w"], atol=1e-7)
    np.testing.assert_allclose(averages["long"]["w"], 0.8 * params["w"], rtol=1e-6)
