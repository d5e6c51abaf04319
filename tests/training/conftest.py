"""A tiny regression that the tests of this folder train: pure functions, no network of ours."""

import types

import jax
import jax.numpy as jnp
import optax
import pytest

from jaxdiff import training

HYPER = {"lr": 0.05, "ema_decay": 0.9}


def mlp_params(key, width=8):
    first, second = jax.random.split(key)
    return {
        "w1": jax.random.normal(first, (3, width)) / 2,
        "b1": jnp.zeros((width,)),
        "w2": jax.random.normal(second, (width, 1)) / 2,
    }


def mlp(params, x):
    return (jnp.tanh(x @ params["w1"] + params["b1"][None]) @ params["w2"])[:, 0]


def noisy_loss(params, batch, key, hyper, aux):
    """With noise on the inputs, so that keys matter, and a statistic that is carried."""
    x = batch["x"] + 0.1 * jax.random.normal(key, batch["x"].shape)
    error = jnp.mean((mlp(params, x) - batch["y"]) ** 2)
    return error, ({"rmse": jnp.sqrt(error)}, 0.5 * aux + error)


def quiet_loss(params, batch, key, hyper, aux):
    """Without noise: a mean over the batch, which splits."""
    return jnp.mean((mlp(params, batch["x"]) - batch["y"]) ** 2), ({}, aux)


class Regression:
    """Batches of y = x_0 x_1, a pure function of the step; the same at each if `fixed`."""

    def __init__(self, size=16, fixed=False):
        self.size, self.fixed = size, fixed

    def batch_at(self, step):
        key = jax.random.fold_in(jax.random.key(0), 0 if self.fixed else step)
        x = jax.random.normal(key, (self.size, 3))
        return {"x": x, "y": x[:, 0] * x[:, 1]}


def start(key, optimizer=None, **hyper):
    """A fresh state."""
    params = mlp_params(jax.random.fold_in(key, 1))
    hyper = {**HYPER, **hyper}
    aux = jnp.zeros(())
    return training.init_state(key, params, optimizer or training.adam(), hyper=hyper, aux=aux)


def bits(tree):
    """Leaves as numpy, keys as their data: for comparisons bit for bit."""

    def plain(a):
        is_key = jnp.issubdtype(a.dtype, jax.dtypes.prng_key)
        return jax.random.key_data(a) if is_key else a

    return jax.device_get(jax.tree.map(plain, tree))


@pytest.fixture
def toy():
    """The pieces above by name, and plain gradient descent, which hides no factor."""
    return types.SimpleNamespace(
        mlp_params=mlp_params,
        noisy_loss=noisy_loss,
        quiet_loss=quiet_loss,
        Regression=Regression,
        start=start,
        bits=bits,
        sgd=optax.scale(-1.0),
    )
