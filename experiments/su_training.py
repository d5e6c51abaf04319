"""The networks of `su_recipe.py`, and their trainings, each made once and compiled once."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import data, gaussian, losses, models, schedules, training
from jaxdiff.denoiser import Denoiser, make_denoiser
from jaxdiff.models.embeddings import sinusoidal

__all__ = [
    "DTYPES",
    "FACES",
    "FACES_BATCH",
    "OPTIMIZERS",
    "SCHEDULE",
    "Normed",
    "Plan",
    "denoiser_of",
    "gradient_of",
    "halves",
    "heldout_loss",
    "network",
    "normed_apply",
    "normed_loss",
    "sampled_model",
    "sum_trained",
    "trained",
]

FACES = (128, 128, 3)
FACES_BATCH = 64
DTYPES = ("float32", "bfloat16", "float16")
OPTIMIZERS = {"adam": training.adam(clip=None), "lamb": training.lamb()}
RATES = {"adam": 2e-3, "lamb": 1e-2}  # above the recipe's 1e-3, for trainings of hundreds of steps
SCHEDULE = schedules.from_betas(schedules.su_betas(1000))


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is done.

    Attributes:
        data: what `jaxdiff.data.load` reads.
        channels: of every network.
        batch: examples a step.
        steps: of the trainings that are sampled from.
        short: steps of the trainings in low precision, of which there are many.
        seeds: trainings of each kind.
        n: samples of each.
        calls: numbers of sampling steps; embeddings are compared at the last.
    """

    data: str = "digits"
    channels: int = 16
    batch: int = 32
    steps: int = 1500
    short: int = 300
    seeds: int = 3
    n: int = 500
    calls: tuple[int, ...] = (10, 20, 50, 100)


class Sines(nn.Module):
    """`SuA` told of time as `SuB` is, by way of its free vector."""

    net: nn.Module

    @nn.compact
    def __call__(self, x: Array, t: Array) -> Array:
        """As of `SuA`."""
        e = sinusoidal(t, self.net.channels, endpoint=False)
        for _ in range(2):
            e = nn.silu(nn.Dense(self.net.cond_dim, use_bias=False)(e))
        return self.net(x, jnp.zeros_like(t), e)


class Rows(nn.Module):
    """`SuB` told of time by learned rows: what a layer makes of a unit vector is a row."""

    net: nn.Module

    @nn.compact
    def __call__(self, x: Array, t: Array) -> Array:
        """As of `SuB`."""
        row = jax.nn.one_hot(t.astype(jnp.int32), self.net.cond_dim)
        return self.net(x, jnp.zeros_like(t), row)


class Normed(nn.Module):
    """Three residual convolutions behind norms of one kind, "batch" or "group"."""

    channels: int
    norm: str

    @nn.compact
    def __call__(self, x: Array, t: Array, batch_statistics: bool = False) -> Array:
        """[B, H, W, C] at steps [B]."""
        e = nn.silu(nn.Dense(4 * self.channels)(sinusoidal(t, self.channels)))
        h = nn.Conv(self.channels, (3, 3))(x)
        for _ in range(3):
            inner = self._normed(h, batch_statistics) + nn.Dense(self.channels)(e)[:, None, None]
            h = h + nn.Conv(self.channels, (3, 3))(nn.silu(inner))
        return nn.Conv(x.shape[-1], (3, 3))(nn.silu(self._normed(h, batch_statistics)))

    def _normed(self, h: Array, batch_statistics: bool) -> Array:
        if self.norm == "group":
            return nn.GroupNorm(4)(h)
        return nn.BatchNorm(use_running_average=not batch_statistics, momentum=0.99)(h)


def network(channels: int, net: str, code: str, dtype: str = "float32") -> nn.Module:
    """Network "A" or "B", told of time by "rows" or "sines"; A's own are rows, B's own sines."""
    fields = {"channels": channels, "multipliers": (1, 2), "blocks": 1, "groups": 8, "dtype": dtype}
    if net == "A":
        own, made = models.SuA(**fields), lambda d: Sines(models.SuA(**fields, cond_dim=d))
        return own if code == "rows" else made(4 * channels)
    own, made = models.SuB(**fields), lambda d: Rows(models.SuB(**fields, cond_dim=d))
    return own if code == "sines" else made(1000)


def denoiser_of(module: nn.Module, shape: tuple[int, ...], seed: int = 0) -> Denoiser:
    """`module` with the parameters of a seed."""
    params = init_of(module, shape)(jax.random.key(seed))
    return make_denoiser(module.apply, params, parametrization="eps", time_feature="rounded_steps")


@functools.cache
def init_of(module: nn.Module, shape: tuple[int, ...]) -> Callable:
    """key -> the variables of `module`."""
    return jax.jit(lambda key: module.init(key, jnp.zeros((1, *shape)), jnp.zeros(1)))


@functools.cache
def _step(loss_fn: Callable, optimizer: str) -> Callable:
    def scaled(params: Any, batch: Any, key: Array, hyper: Any, aux: Any) -> Any:
        return training.scaled(loss_fn, hyper["factor"])(params, batch, key, hyper, aux)

    return jax.jit(training.make_train_step(scaled, OPTIMIZERS[optimizer]), donate_argnums=0)


@functools.cache
def loss_of(module: nn.Module, shape: tuple[int, ...]) -> Callable:
    """The loss of `module`, a mean, in the form that a training step takes."""
    return training.denoising_loss(denoiser_of(module, shape), SCHEDULE)


def trained(
    plan: Plan,
    loss_fn: Callable,
    params: Any,
    steps: int,
    seed: int,
    *,
    factor: float,
    optimizer: str = "adam",
    aux: Any = (),
) -> training.TrainState:
    """The state after `steps` of `factor` times the loss."""
    hyper = {"lr": RATES[optimizer], "ema_decay": 0.99, "warmup": steps / 10, "factor": factor}
    key, rule = jax.random.key(1000 + seed), OPTIMIZERS[optimizer]
    state = training.init_state(key, params, rule, hyper=hyper, aux=aux)
    batches = halves(plan.data)[0].with_batches(plan.batch, seed=seed)
    for i in range(steps):
        state, _ = _step(loss_fn, optimizer)(state, batches.batch_at(i))
    return state


@functools.cache
def halves(source: str) -> tuple[data.Dataset, data.Dataset]:
    """The part to train on and the part held out."""
    return data.load(source, split="train"), data.load(source, split="heldout")


@functools.cache
def sum_trained(plan: Plan, seed: int) -> Any:
    """Parameters of network A after a short training by the sum in float32."""
    shape = halves(plan.data)[0].example_shape
    module, size = network(plan.channels, "A", "rows"), int(np.prod(shape))
    params = denoiser_of(module, shape, seed).params
    return trained(plan, loss_of(module, shape), params, plan.short, seed, factor=size).params


@functools.cache
def heldout_loss(source: str, module: nn.Module) -> Callable:
    """params -> the loss of held-out images, for a fixed draw of times and noise."""
    x = jnp.asarray(halves(source)[1].images(512))
    denoiser = denoiser_of(module, x.shape[1:])

    def loss(params: Any) -> Array:
        model, key = denoiser.with_params(params), jax.random.key(0)
        return losses.denoising(key, model, x, SCHEDULE, times=losses.stratified, train=False)[0]

    return jax.jit(loss)


@functools.cache
def sampled_model(plan: Plan, net: str, code: str, seed: int) -> Denoiser:
    """A network after the long training by the sum in float32, its average."""
    shape = halves(plan.data)[0].example_shape
    module, size = network(plan.channels, net, code), float(np.prod(shape))
    model = denoiser_of(module, shape, seed)
    state = trained(plan, loss_of(module, shape), model.params, plan.steps, seed, factor=size)
    return model.with_params(state.ema)


@functools.cache
def gradient_of(module: nn.Module, shape: tuple[int, ...]) -> Callable:
    """(params, batch, seed, factor) -> the gradient of factor times the loss."""
    loss_fn = loss_of(module, shape)

    def gradient(params: Any, batch: Any, seed: Any, factor: Any) -> Any:
        scaled = training.scaled(loss_fn, factor)
        return jax.grad(scaled, has_aux=True)(params, batch, jax.random.key(seed), {}, ())[0]

    return jax.jit(gradient)


@functools.cache
def normed_apply(module: Normed, batch_statistics: bool) -> Callable:
    """`apply((params, statistics), x, t)` under a batch's own statistics or the running ones."""

    def apply(weights: Any, x: Array, t: Array) -> Array:
        variables = {"params": weights[0], "batch_stats": weights[1]}
        if not batch_statistics:
            return module.apply(variables, x, t)
        return module.apply(variables, x, t, True, mutable=["batch_stats"])[0]

    return apply


@functools.cache
def normed_loss(module: Normed) -> Callable:
    """The loss of a `Normed`, whose running statistics are the state's aux."""

    def loss_fn(params: Any, batch: Any, key: Array, hyper: Any, aux: Any) -> Any:
        key_t, key_noise = jax.random.split(key)
        x0 = batch["x"]
        t, _ = losses.uniform(key_t, len(x0), SCHEDULE)
        noise = jax.random.normal(key_noise, x0.shape)
        x_t = gaussian.q_sample(x0, noise, SCHEDULE(t))
        variables = {"params": params, "batch_stats": aux}
        y, new = module.apply(variables, x_t, t - 1, True, mutable=["batch_stats"])
        return jnp.mean((y - noise) ** 2), ({}, new.get("batch_stats", aux))

    return loss_fn
