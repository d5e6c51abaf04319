"""Runs schedulers of diffusers in float64, and puts our samplers on their levels with their noise.

Not a test: what `test_diffusers.py` and `test_diffusers_defects.py` share. Their code casts states
and tables to float32 by name; `wide` lets the same lines run in float64.
"""

import importlib
from typing import Any

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxdiff import arrays, schedules
from jaxdiff.denoiser import make_denoiser
from jaxdiff.samplers import draw_noise, sample
from jaxdiff.typing import Grid, NoiseLevel

# their names of our tables; some of their classes have other ends by default
BETAS = {
    "linear": ({"beta_schedule": "linear"}, schedules.linear_betas()),
    "cosine": ({"beta_schedule": "squaredcos_cap_v2"}, schedules.cosine_betas()),
}
SHAPE = (3, 2, 4)
# schedulers whose state is x / alpha, and those that call the model twice a step
SCALED = {"Euler", "EulerAncestral", "Heun", "KDPM2", "KDPM2Ancestral", "LMS"}
TWICE = {"Heun", "KDPM2", "KDPM2Ancestral"}


@pytest.fixture
def double():
    """torch's bare numbers in float64, too; test modules take it by name."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Wide:
    """A module whose float32 is float64."""

    def __init__(self, module: Any):
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, "float64" if name == "float32" else name)


class Noise:
    """Stands in for their `randn_tensor`: gives `now`, whatever the generator."""

    now: Any = None

    def __call__(self, shape: Any, **_: Any) -> torch.Tensor:
        return self.now


def wide(monkeypatch: Any, name: str) -> Noise:
    """Lets the scheduler `name` run in float64; returns the source of its noise."""
    module = importlib.import_module(scheduler_class(name).__module__)
    noise = Noise()
    monkeypatch.setattr(module, "torch", Wide(torch))
    monkeypatch.setattr(module, "np", Wide(np), raising=False)
    monkeypatch.setattr(module, "randn_tensor", noise, raising=False)
    return noise


def scheduler_class(name: str) -> type:
    """`DDIM` is DDIMScheduler, `Heun` HeunDiscreteScheduler, and so on."""
    for ending in ("Scheduler", "DiscreteScheduler", "MultistepScheduler"):
        if found := getattr(diffusers, name + ending, None):
            return found
    raise AttributeError(name)


def make(name: str, num_steps: int | None = None, **config: Any) -> Any:
    """Their scheduler, on Ho et al.'s linear betas unless told otherwise."""
    if not name.startswith("EDM"):
        config = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, **config}
    if name in ("DDPM", "DDIM"):
        config = {"clip_sample": False, **config}
    scheduler = scheduler_class(name)(**config)
    if num_steps is not None:
        scheduler.set_timesteps(num_steps)
    return scheduler


def short(scheduler: Any) -> str:
    """The name that `make` took."""
    name = type(scheduler).__name__.removesuffix("Scheduler")
    return name.removesuffix("Discrete").removesuffix("Multistep")


def evaluations(scheduler: Any) -> int:
    """Model calls a step."""
    return 2 if short(scheduler) in TWICE else 1


@arrays.pytree
class LogSigma:
    """Their continuation of a chain between whole steps: log(sigma / alpha) is linear in t.

    Below step 1 it goes on to ever less noise, where they hold the timestep at 0.
    """

    clock: Any
    log_rho: Any
    t_min = 0.0
    prior_std = 1.0

    def __call__(self, t: Any) -> NoiseLevel:
        return _vp(t, jnp.exp(jnp.interp(t, self.clock, self.log_rho)))

    def time(self, log_snr: Any) -> Any:
        return jnp.interp(-0.5 * log_snr, self.log_rho, self.clock)


def log_sigma(alpha_bar: np.ndarray) -> LogSigma:
    """From their table of alpha-bar at steps 1..N."""
    log_rho = 0.5 * np.log((1 - alpha_bar) / alpha_bar)
    clock = np.arange(len(alpha_bar)) + 1.0
    nodes = np.append(clock[0] - 99, clock), np.append(log_rho[0] - 99, log_rho)
    return LogSigma(*(jnp.asarray(a) for a in nodes))


def index(level: NoiseLevel) -> Any:
    """The timestep that they give their network."""
    return jnp.maximum(level.t - 1, 0)


def _vp(t: Any, rho: Any) -> NoiseLevel:
    alpha = 1 / jnp.sqrt(1 + rho**2)
    return NoiseLevel(t, alpha, rho * alpha)


def levels_of(scheduler: Any) -> tuple[np.ndarray, np.ndarray]:
    """(t, rho): their timesteps + 1 and sigma / alpha, each level once, their end included."""
    rho = np.unique(np.asarray(scheduler.sigmas, np.float64))[::-1]
    t = np.asarray(scheduler.timesteps, np.float64)[:: evaluations(scheduler)] + 1
    end = 0.0 if rho[-1] == 0 else 1.0
    return np.append(t, end)[: len(rho)], rho


def grid_of(scheduler: Any) -> Grid:
    """Our grid on their very levels: timesteps are the clock less 1, as in `steps`."""
    if not hasattr(scheduler, "sigmas"):  # DDPM and DDIM keep alpha-bar alone
        table = np.asarray(scheduler.alphas_cumprod)
        bar = np.append(table[np.asarray(scheduler.timesteps)], 1.0)
        t = np.append(np.asarray(scheduler.timesteps) + 1.0, 0.0)
        return Grid(NoiseLevel(*(jnp.asarray(a) for a in (t, np.sqrt(bar), np.sqrt(1 - bar)))))
    t, rho = (jnp.asarray(a) for a in levels_of(scheduler))
    if short(scheduler).startswith("EDM"):
        return Grid(NoiseLevel(t, jnp.ones_like(rho), rho))
    return Grid(_vp(t, rho), log_sigma(np.asarray(scheduler.alphas_cumprod)))


# a smooth model of x and the timestep that is nearly the noise where there is little else
_draw = np.random.default_rng(0)
NETWORK = {
    "in": _draw.normal(size=(4, 4)) / 2,
    "shift": _draw.normal(size=(1, 1, 4)),
    "middle": np.asarray(500.0),
    "rate": np.asarray(0.01),
}
NETWORK_EDM = {**NETWORK, "middle": np.asarray(0.0), "rate": np.asarray(1.0)}


def network(params: Any, x: Any, feature: Any, xp: Any = jnp) -> Any:
    """[B, C, D] from [B, C, D] and [B], in jax.numpy or numpy."""
    share = 1 / (1 + xp.exp(-params["rate"] * (feature - params["middle"])))
    share = share[:, None, None]
    return share * x + (1 - share) * xp.tanh(x @ params["in"] + share * params["shift"])


def apply(params: Any, x: Any, feature: Any) -> Any:
    """What `make_denoiser` takes."""
    return network(params, x, feature)


def denoiser_for(scheduler: Any) -> Any:
    """Our model around the network, with the parametrization that they are told of."""
    if short(scheduler).startswith("EDM"):
        return make_denoiser(
            apply, NETWORK_EDM, parametrization="edm", time_feature="quarter_log_sigma"
        )
    kinds = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
    kind = kinds[scheduler.config.prediction_type]
    return make_denoiser(apply, NETWORK, parametrization=kind, time_feature=index)


def their_network(scheduler: Any) -> Any:
    """The same network for their loop: (x, timestep) -> answer."""
    params = NETWORK_EDM if short(scheduler).startswith("EDM") else NETWORK

    def call(x: torch.Tensor, t: Any) -> torch.Tensor:
        feature = np.full(len(x), float(t))
        return torch.from_numpy(network(params, x.numpy(), feature, np))

    return call


def step_through(
    scheduler: Any, source: Noise, x: Any, noise: Any, *, model: Any = None, **options: Any
) -> list:
    """Their loop from x: all states, one after each whole step.

    `noise` [K, ...] is what each step draws; `model(x, timestep)` is the network if None.
    """
    model = their_network(scheduler) if model is None else model
    x = torch.from_numpy(np.array(x))
    path = [x]
    for i, t in enumerate(scheduler.timesteps):
        source.now = torch.from_numpy(np.array(noise[len(path) - 1]))
        answer = model(scheduler.scale_model_input(x, t), t)
        x = scheduler.step(answer, t, x, **options).prev_sample
        last = i == len(scheduler.timesteps) - 1  # into a clean end one call is a whole step
        if evaluations(scheduler) == 1 or scheduler.state_in_first_order or last:
            path.append(x)
    return [state.numpy() for state in path]


def begin(scheduler: Any) -> None:
    """At the first level: left alone they search for its timestep, and may find the second's."""
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)


def scale_of(scheduler: Any, grid: Grid) -> np.ndarray:
    """What their state has to be multiplied by to be ours, [K+1, 1, 1, 1]."""
    alpha = np.asarray(grid.levels.alpha)[:, None, None, None]
    return alpha if short(scheduler) in SCALED else np.ones_like(alpha)


def theirs(scheduler: Any, source: Noise, grid: Grid, x_T: Any, noise: Any, **options) -> Any:
    """Their path as ours would be, [K+1, B, C, D]: from x_T, in x rather than x / alpha."""
    scale = scale_of(scheduler, grid)
    begin(scheduler)
    path = step_through(scheduler, source, np.asarray(x_T) / scale[0], noise, **options)
    # Karras spacing without a clean end repeats its last level: that step moves nothing
    for state in path[len(scale) :]:
        np.testing.assert_allclose(state, path[len(scale) - 1], rtol=1e-12)
    return np.stack(path[: len(scale)]) * scale


def ours(scheduler: Any, sampler: Any, grid: Grid, wrap: Any = None) -> tuple:
    """(path [K+1, B, C, D], x_T, noise [K+1, B, C, D]) of our sampler on their levels."""
    denoise = denoiser_for(scheduler)
    denoise = denoise if wrap is None else wrap(denoise)
    x_T = grid.levels.sigma[0] * jax.random.normal(jax.random.key(1), SHAPE)
    noise = draw_noise(jax.random.key(2), grid, sampler, SHAPE)
    path = sample(None, denoise, grid, SHAPE, sampler=sampler, x_T=x_T, noise=noise, keep_path=True)
    spare = np.zeros((grid.num_steps + 1, *SHAPE))  # they draw where ours has no use for noise
    for k in range(sampler.noises * grid.num_steps):
        spare[k] = noise[k, 0]
    return np.asarray(path), x_T, spare
