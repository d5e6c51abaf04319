"""Training a GAN and a VAE by the library's own step.

critic       mean softplus(c(G(z))) + softplus(-c(x)) + penalty / 2 |grad_x c(x)|^2
generator    mean softplus(-c(G(z)))
VAE          mean |x - D(z)|^2 / (2 std^2) + KL(N(mean, var) || N(0, I)),   z ~ N(mean, var)
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxdiff import arrays, hubness
from jaxdiff.gaussian import normal_kl
from jaxdiff.training.state import TrainState, init_state
from jaxdiff.training.step import LossFn, make_train_step
from jaxdiff.typing import Normal

__all__ = ["GANStates", "gan_states", "make_gan_step", "vae_loss"]


class GANStates(NamedTuple):
    """Both networks; each carries the other's parameters as they were before its step."""

    generator: TrainState
    critic: TrainState


def gan_states(
    key: Array, generator: Any, critic: Any, optimizer: Any, *, latent: int, hyper: dict[str, Any]
) -> GANStates:
    """Both states before the first step.

    Args:
        key: a PRNG key.
        generator, critic: modules [B, latent] -> images, images -> [B].
        optimizer: of unit learning rate, see `optim`; beta1 = 0 or .5 is usual.
        latent: the length of latents.
        hyper: "lr" and "ema_decay", see `init_state`.
    """
    keys = jax.random.split(key, 4)
    z = jnp.zeros((1, latent))
    made = generator.init(keys[0], z)
    judged = critic.init(keys[1], generator.apply(made, z))
    return GANStates(
        init_state(keys[2], made, optimizer, hyper=hyper, aux=judged),
        init_state(keys[3], judged, optimizer, hyper=hyper, aux=made),
    )


def make_gan_step(
    generator: Any,
    critic: Any,
    optimizer: Any,
    *,
    latent: int,
    prior: str = "normal",
    penalty: float = 1.0,
) -> Callable[[GANStates, Any], tuple[GANStates, dict[str, Array]]]:
    """The pure step: the critic's, then the generator's against the new critic.

    Args:
        generator, critic, optimizer, latent: as `gan_states` has them.
        prior: of latents, a name of `hubness.PRIORS`.
        penalty: gamma of the gradient penalty on real images, >= 0.

    Returns:
        step(states, {"x": [B, H, W, C]}) -> (states, {"critic", "generator", "penalty"}).

    Raises:
        ValueError: a negative penalty.

    Source: Goodfellow et al. 2014, arXiv:1406.2661, section 3 (the non-saturating loss); Mescheder
    et al. 2018, arXiv:1801.04406, eq. 9 (R1).
    """
    arrays.check_range("penalty", penalty, 0, float("inf"), "[)")

    def drawn(params: Any, key: Array, n: int) -> Array:
        return generator.apply(params, hubness.draw(key, n, latent, prior))

    def of_critic(params: Any, batch: Any, key: Array, hyper: Any, made: Any) -> Any:
        real = batch["x"]
        fake = drawn(made, key, real.shape[0])
        slope = jax.grad(lambda x: jnp.sum(critic.apply(params, x)))(real)
        squares = jnp.mean(arrays.event_sum(slope**2))
        told = jax.nn.softplus(critic.apply(params, fake))
        told = told + jax.nn.softplus(-critic.apply(params, real))
        return jnp.mean(told) + penalty / 2 * squares, ({"penalty": squares}, made)

    def of_generator(params: Any, batch: Any, key: Array, hyper: Any, judged: Any) -> Any:
        fake = drawn(params, key, batch["x"].shape[0])
        return jnp.mean(jax.nn.softplus(-critic.apply(judged, fake))), ({}, judged)

    judge, make = (make_train_step(loss, optimizer) for loss in (of_critic, of_generator))

    def step(states: GANStates, batch: Any) -> tuple[GANStates, dict[str, Array]]:
        made, judged = states
        judged, found = judge(_with(judged, made.params), batch)
        made, other = make(_with(made, judged.params), batch)
        told = {"critic": found["loss"], "generator": other["loss"], "penalty": found["penalty"]}
        return GANStates(made, judged), told

    return step


def _with(state: TrainState, aux: Any) -> TrainState:
    return dataclasses.replace(state, aux=aux)


def vae_loss(
    encode: Callable[[Any, Array], tuple[Array, Array]],
    decode: Callable[[Any, Array], Array],
    *,
    std: float = 0.3,
) -> LossFn:
    """The negative bound of images by a normal of deviation `std`, less its constant, in nats.

    Args:
        encode: `encode(params, x)`, images to means and log variances of latents, [B, ...] each.
        decode: `decode(params, z)`, latents to images.
        std: of a pixel around the decoder's, > 0; 2 std^2 is the weight of the divergence beside
            the sum of squared errors.

    Returns:
        loss_fn for `make_train_step`; metrics "kl" and "error" (squared, a pixel).

    Raises:
        ValueError: a std that is not positive.

    Source: Kingma and Welling 2014, arXiv:1312.6114, eq. 10.
    """
    arrays.check_range("std", std, 0, float("inf"), "()")

    def loss_fn(params: Any, batch: Any, key: Array, hyper: Any, aux: Any) -> Any:
        x = batch["x"]
        mean, log_var = encode(params, x)
        z = mean + jnp.exp(0.5 * log_var) * jax.random.normal(key, mean.shape, mean.dtype)
        square = arrays.event_sum((x - decode(params, z)) ** 2)
        kl = arrays.event_sum(normal_kl(Normal(mean, jnp.exp(log_var)), Normal(0.0, 1.0)))
        told = {"kl": jnp.mean(kl), "error": jnp.mean(square) / x[0].size}
        return jnp.mean(square) / (2 * std**2) + jnp.mean(kl), (told, aux)

    return loss_fn
