"""GAN and VAE: losses against closed forms, and short trainings against the data's moments."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import training
from jaxdiff.training import generators, optim

HYPER = {"lr": 1e-2, "ema_decay": 0.9}


class Shift(nn.Module):
    """Latents [B, 1] to images [B, 1, 1, 1]: scale z + shift."""

    @nn.compact
    def __call__(self, z):
        scale = self.param("scale", nn.initializers.ones, ())
        shift = self.param("shift", nn.initializers.zeros, ())
        return (scale * z + shift)[:, :, None, None]


class Quadratic(nn.Module):
    """A critic that is a polynomial of the second degree."""

    @nn.compact
    def __call__(self, x):
        a, b, c = (self.param(n, nn.initializers.zeros, ()) for n in "abc")
        x = x[:, 0, 0, 0]
        return a * x**2 + b * x + c


@pytest.mark.slow
def test_gan_finds_mean_and_deviation():
    """Data N(1, .5^2), generators N(shift, scale^2): a quadratic critic can tell any two apart."""
    optimizer = optim.adam(b1=0.5)
    hyper = {"lr": 1e-2, "ema_decay": 0.999}
    states = generators.gan_states(
        jax.random.key(0), Shift(), Quadratic(), optimizer, latent=1, hyper=hyper
    )
    step = generators.make_gan_step(Shift(), Quadratic(), optimizer, latent=1, penalty=0.3)

    def one(states, key):
        x = 1 + 0.5 * jax.random.normal(key, (256, 1, 1, 1))
        return step(states, {"x": x})

    states, told = jax.jit(lambda s, k: jax.lax.scan(one, s, k))(
        states, jax.random.split(jax.random.key(1), 6000)
    )
    made = states.generator.ema["params"]
    # The penalty leaves the optimum where it is, which the game circles: averages over 1000 steps.
    np.testing.assert_allclose(made["shift"], 1, atol=0.1)
    np.testing.assert_allclose(abs(made["scale"]), 0.5, atol=0.1)
    # At the optimum the critic knows nothing: each loss is log 2, twice for the critic.
    np.testing.assert_allclose(told["critic"][-1000:].mean(), 2 * np.log(2), atol=0.05)
    np.testing.assert_allclose(told["generator"][-1000:].mean(), np.log(2), atol=0.05)


def test_critic_s_first_loss_and_penalty():
    """Of a linear critic c(x) = b x the slope is b everywhere."""
    optimizer = optim.adam()
    states = generators.gan_states(
        jax.random.key(0), Shift(), Quadratic(), optimizer, latent=1, hyper=HYPER
    )
    params = {"params": {"a": jnp.zeros(()), "b": jnp.full((), 0.7), "c": jnp.zeros(())}}
    critic = training.init_state(jax.random.key(1), params, optimizer, hyper=HYPER, aux=())
    states = generators.GANStates(states.generator, critic)
    step = generators.make_gan_step(Shift(), Quadratic(), optimizer, latent=1, penalty=3.0)
    _, told = step(states, {"x": jnp.zeros((4, 1, 1, 1))})
    np.testing.assert_allclose(told["penalty"], 0.49, rtol=1e-6)


def test_vae_reaches_the_density_of_a_gaussian():
    """Linear VAE on N(0, 2^2) with std = 1: the bound is exact, so the loss is -log N(x; 0, c).

    A linear decoder W z has p(x) = N(0, W^2 + std^2); the best is W^2 = 3, where the loss is the
    entropy .5 (log(2 pi 4) + 1) less the constant .5 log(2 pi) that the loss leaves out.
    """

    class Encode(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = x[:, 0, 0, :]
            slope = self.param("slope", nn.initializers.constant(0.1), ())
            log_var = self.param("log_var", nn.initializers.zeros, ())
            return slope * x, jnp.broadcast_to(log_var, x.shape)

    optimizer = optim.adam()
    loss = generators.vae_loss(
        lambda params, x: Encode().apply(params["encoder"], x),
        lambda params, z: Shift().apply(params["decoder"], z),
        std=1.0,
    )
    step = training.make_train_step(loss, optimizer)
    x = jnp.zeros((1, 1, 1, 1))
    params = {
        "encoder": Encode().init(jax.random.key(0), x),
        "decoder": Shift().init(jax.random.key(0), x[:, 0, 0]),
    }
    hyper = {"lr": 1e-2, "ema_decay": 0.99}
    state = training.init_state(jax.random.key(2), params, optimizer, hyper=hyper)

    def one(state, key):
        return step(state, {"x": 2 * jax.random.normal(key, (512, 1, 1, 1))})

    state, told = jax.jit(lambda s, k: jax.lax.scan(one, s, k))(
        state, jax.random.split(jax.random.key(1), 1500)
    )
    np.testing.assert_allclose(state.ema["decoder"]["params"]["scale"] ** 2, 3, rtol=0.1)
    # 200 batches of 512 know the mean of a loss of deviation near 1 to .003; the steps add theirs.
    np.testing.assert_allclose(told["loss"][-200:].mean(), 0.5 * (np.log(4) + 1), atol=0.02)


def test_bad_input():
    with pytest.raises(ValueError, match="penalty"):
        generators.make_gan_step(Shift(), Quadratic(), optim.adam(), latent=1, penalty=-1.0)
    with pytest.raises(ValueError, match="std"):
        generators.vae_loss(Shift().apply, Shift().apply, std=0.0)
