"""Do trained heads reach what NPR and SN should learn, and which survives a mean that errs?

    python experiments/moment_heads.py [--budgets 300 1000 3000 10000] [--bias 0.0 0.1 0.3]

A mixture of two Gaussians on a line, DDPM's linear chain, an exact mean plus a constant bias of
eps. An MLP learns E[(eps - eps_hat)**2 | x_t] and E[eps**2 | x_t]; the truth is in closed form.

1. Error of each head by training budget: root mean square over times and x_t, of a target whose
   own spread is printed beside it.
2. Bits: the bound on the mixture at K = 10 by trained and by exact heads, for each bias. NPR's
   optimum holds the square of the bias; SN takes the mean for exact and loses by it.

Expected: errors fall with the budget like its root and more slowly; NPR and SN agree without bias,
and NPR is ahead with it.

Hardware: 2 CPU cores, three minutes.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from timing import table

from jaxdiff import exact, losses, models, schedules, training
from jaxdiff.denoiser import Denoiser, make_denoiser
from jaxdiff.grids import from_steps
from jaxdiff.likelihood import elbo
from jaxdiff.typing import Denoised, NoiseLevel

__all__ = ["CHAIN", "Truth", "errors", "main", "trained"]

CHAIN = schedules.from_betas(schedules.linear_betas())
NET = models.MLP(width=64, depth=2, out_channels=2)
NAMES = ("residual2", "eps2")


def mixture() -> exact.GaussianMixture:
    """.5 N(-.7, .01) + .5 N(.7, .01)."""
    return exact.gaussian_mixture([0.5, 0.5], [[-0.7], [0.7]], np.full((2, 1, 1), 0.01))


class Truth(NamedTuple):
    """The exact model, its eps shifted by `bias`, with the heads that are optimal for it."""

    bias: float

    def __call__(self, x_t: Any, level: NoiseLevel) -> Denoised:
        """The shifted mean, the exact second moment, and the residual about the shifted mean."""
        d = exact.with_heads(mixture())(x_t, level)
        eps = d.eps + self.bias
        alpha, sigma = (jnp.reshape(a, (-1, 1)) for a in (level.alpha, level.sigma))
        heads = {**d.heads, "residual2": d.heads["residual2"] + self.bias**2}
        return Denoised((x_t - sigma * eps) / alpha, eps, heads)


def denoiser(params: Any, bias: float) -> Denoiser:
    """The shifted mean with an MLP's heads on it."""

    def apply(params: Any, x: Any, t: Any) -> Any:
        mean = Truth(bias)(x, CHAIN(t)).eps
        return jnp.concatenate([jax.lax.stop_gradient(mean), NET.apply(params, x, t)], axis=-1)

    return make_denoiser(apply, params, parametrization="eps", time_feature="clock", heads=NAMES)


def trained(bias: float, steps: int, batch: int = 512) -> Denoiser:
    """After so many steps of the loss of the heads."""
    key = jax.random.key(0)
    model = denoiser(None, bias)

    def loss_fn(params: Any, batch: Any, key: Any, hyper: Any, aux: Any) -> Any:
        found = losses.second_moment(
            key, model.with_params(params), batch["x"], CHAIN, times=losses.stratified
        )
        return found[0], ({}, aux)

    step = training.make_train_step(loss_fn, training.adam(), decay=training.optim.cosine)
    params = NET.init(key, jnp.zeros((1, 1)), jnp.zeros(1))
    hyper = {"lr": 3e-3, "ema_decay": 0.99, "warmup": 50, "steps": steps}
    state = training.init_state(key, params, training.adam(), hyper=hyper)

    def body(state: Any, key: Any) -> Any:
        return step(state, {"x": mixture().sample(key, batch)})

    state, _ = jax.jit(lambda s, keys: jax.lax.scan(body, s, keys))(
        state, jax.random.split(jax.random.key(1), steps)
    )
    return model.with_params(state.ema)


def errors(model: Denoiser, bias: float, n: int = 20_000) -> dict[str, tuple[float, float]]:
    """Root mean square error of each head, and the deviation of what it should say."""
    key_t, key_x, key_noise = jax.random.split(jax.random.key(2), 3)
    level = CHAIN(jax.random.randint(key_t, (n,), 1, 1001).astype(float))
    x = mixture().sample(key_x, n)
    noise = jax.random.normal(key_noise, x.shape)
    x_t = level.alpha[:, None] * x + level.sigma[:, None] * noise
    heads = jax.jit(lambda m: m(x_t, level).heads)
    ours, truth = heads(model), heads(Truth(bias))
    size = lambda a: float(jnp.sqrt(jnp.mean(a**2)))  # noqa: E731
    return {k: (size(ours[k] - truth[k]), float(jnp.std(truth[k]))) for k in NAMES}


def bounds(model: Any, steps: int = 10, n: int = 4000) -> dict[str, tuple[float, float]]:
    """-elbo of each variance, with its standard error, on equal points and noise."""
    grid = from_steps(CHAIN, np.round(np.linspace(1, 1000, steps))[::-1])
    x, found = mixture().sample(jax.random.key(3), n), {}
    for name in ("npr", "sn"):
        estimate = elbo(jax.random.key(4), model, x, grid, variance=name, last_std=0.05)
        found[name] = -float(estimate.mean), float(estimate.errors.total)
    return found


def main(
    budgets: tuple[int, ...] = (300, 1000, 3000, 10_000), bias: tuple[float, ...] = (0.0, 0.1, 0.3)
) -> None:
    """Prints both tables.

    Args:
        budgets: numbers of training steps; the largest is that of the second table.
        bias: what is added to eps.
    """
    console, rows = Console(), []
    for steps in budgets:
        for name, (error, spread) in errors(trained(bias[0], steps), bias[0]).items():
            rows.append([name, str(steps), f"{error:.4f}", f"{spread:.4f}"])
    console.print(table("error of the heads", ["head", "steps", "error", "spread"], rows))
    rows = []
    for b in bias:
        for who, model in (("trained", trained(b, budgets[-1])), ("exact", Truth(b))):
            for name, (value, error) in bounds(model).items():
                rows.append([f"{name}, {who}", f"{b:g}", f"{value:.4f} ± {error:.4f}"])
    console.print(table("-elbo in nats, K = 10", ["heads", "bias", "nats"], rows))


if __name__ == "__main__":
    tyro.cli(main)
