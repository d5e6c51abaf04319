"""LoRA: its formula, and what it becomes when it is merged.

Truth: the formula in float64 numpy, with the change as one matrix; the network itself.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.models import SongUNet, tuning
from tests.models.tuning.networks import NETWORKS, T, X, abstract, filled


class Pair(nn.Module):
    @nn.compact
    def __call__(self, x, *, train=False):
        h = jnp.tanh(nn.Dense(5, name="one", param_dtype=x.dtype)(x))
        return nn.Dense(3, name="two", param_dtype=x.dtype)(h)


def test_the_formula_in_numpy(x64):
    method = tuning.LoRA(Pair(), ("one", "two"), rank=2, alpha=6.0)
    x = np.random.default_rng(3).normal(size=(4, 7))
    variables = filled(abstract(method, (x,)))
    backbone, lora = (
        jax.tree.map(np.asarray, variables["params"][n]) for n in ("backbone", "lora")
    )
    assert lora["one"]["down"].shape == (7, 2)
    assert lora["two"]["up"].shape == (2, 3)
    kernels = {
        name: backbone[name]["kernel"] + 6 / 2 * lora[name]["down"] @ lora[name]["up"]
        for name in ("one", "two")
    }
    h = np.tanh(x @ kernels["one"] + backbone["one"]["bias"])
    wanted = h @ kernels["two"] + backbone["two"]["bias"]
    np.testing.assert_allclose(method.apply(variables, x), wanted, rtol=1e-12)
    merged = method.merge(variables)["params"]
    for name, kernel in kernels.items():
        np.testing.assert_allclose(merged[name]["kernel"], kernel, rtol=1e-12)


@pytest.mark.parametrize("network", ["transformer", pytest.param("unet", marks=pytest.mark.slow)])
def test_merged_it_is_a_plain_network(network):
    net, args = NETWORKS[network]
    method = tuning.LoRA(net, rank=2)
    variables = filled(abstract(method, args))
    merged = method.merge(variables)
    assert jax.tree.structure(merged["params"]) == jax.tree.structure(
        variables["params"]["backbone"]
    )
    alone = net.apply(merged, *args)
    # float32; x (kernel + change) and x kernel + x change are rounded otherwise
    np.testing.assert_allclose(method.apply(variables, *args), alone, atol=1e-4)
    plain = net.apply({"params": variables["params"]["backbone"]}, *args)
    assert jnp.abs(alone - plain).max() > 0.01


def test_convolutions_of_one_pixel_are_linear_layers():
    """As in the attention of EDM's networks; others are none."""
    net = SongUNet(channels=8, multipliers=(1,), blocks=1, attention=(4,))
    method = tuning.LoRA(net, rank=2)
    lora = abstract(method, (X, T))["params"]["lora"]
    assert {name for name in lora if "qkv" in lora[name]} == set(lora)
    with pytest.raises(ValueError, match=r"layers must name some of .*got 'in'"):
        abstract(tuning.LoRA(NETWORKS["unet"][0], ("in",)), (X, T))


def test_down_starts_uniform_between_the_roots_of_the_inputs(key):
    """The released code: variance 1 / (3 inputs), none beyond 1 / sqrt(inputs)."""
    method = tuning.LoRA(Pair(), ("one",), rank=64)
    x = jnp.zeros((1, 400))
    lora = method.init(key, x)["params"]["lora"]["one"]
    assert jnp.abs(lora["down"]).max() <= 1 / 20
    # 25,600 draws: the standard error of the mean square is sqrt(4/45) / 400 / 160
    error = jnp.mean(lora["down"] ** 2) - 1 / (3 * 400)
    assert abs(error) < 4 * (4 / 45) ** 0.5 / 400 / 160
    np.testing.assert_array_equal(lora["up"], 0)
