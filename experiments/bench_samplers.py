"""What does a sampler cost beyond its network?

    python experiments/bench_samplers.py [--steps 20] [--rounds 7] [--samplers ddim] [--no-peers]

Each sampler of the registry draws a batch in `steps` steps; the limit is a `lax.scan` of the
network alone, called as many times. Both are timed in turn, round by round, so that a busy machine
burdens them alike: printed are the medians and quartiles of the ratio of the two in a round. The
networks are the UNet of the digits preset (32 images of 8x8) and the MLP (256 points of the plane).

With the extra "parity" installed the same is done for diffusers: `scheduler.step` alone; its loop
around the jitted JAX network by way of numpy; and its loop around the same network in torch, over
that network alone. With hackable-diffusion (Python 3.12 or later) its DDIM, compiled whole.

A call of `sample` checks its arguments and makes the examples' keys before its program starts; that
is within its time, and is also printed for itself, as against a `jax.jit` around the call.

Expected: ratios of at most 1.05 for samplers of one call a step around the UNet on an otherwise
idle machine. The MLP takes some tenths of a millisecond, so there a ratio tells what a step's own
arithmetic and noise cost. Compiling is not timed: the first call of each is thrown away.

Hardware: 2 CPU cores, under 3 minutes.
"""

import dataclasses
import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
import weights
from rich.console import Console
from timing import interleaved, ratios, spread, table

from jaxdiff import grids, models, schedules
from jaxdiff.config import preset
from jaxdiff.denoiser import Denoiser, make_denoiser
from jaxdiff.samplers import SAMPLERS, make_sampler, sample

__all__ = ["GOAL", "Bench", "alone", "build", "count_calls", "main"]

GOAL = 1.05
# what of theirs is timed: class, configuration
DIFFUSERS = {
    "DDIM": ("DDIMScheduler", {"clip_sample": False}),
    "DPM-Solver++(2M)": ("DPMSolverMultistepScheduler", {}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "Euler": ("EulerDiscreteScheduler", {}),
    "Heun": ("HeunDiscreteScheduler", {}),
}


class Bench(NamedTuple):
    """A network with random parameters, and the shape of a batch."""

    name: str
    module: Any
    params: Any
    shape: tuple[int, ...]

    @property
    def denoiser(self) -> Denoiser:
        """As a model that predicts eps."""
        return make_denoiser(
            self.module.apply, self.params, parametrization="eps", time_feature="thousandths"
        )


def build(name: str) -> Bench:
    """The network "unet" or "mlp", with random parameters.

    Raises:
        ValueError: another name.
    """
    if name not in ("unet", "mlp"):
        raise ValueError(f"networks must be unet or mlp, got {name!r}")
    recipe = preset("digits" if name == "unet" else "mlp").model
    module = (models.UNet if name == "unet" else models.MLP)(**dataclasses.asdict(recipe))
    shape = (32, 8, 8, 1) if name == "unet" else (256, 2)
    params = weights.drawn(module, jnp.zeros(shape), jnp.zeros(shape[0]))
    return Bench(name, module, params, shape)


def count_calls(bench: Bench, run: Callable[[Callable], Any]) -> int:
    """How often `run(apply)` calls the network, on whole batches."""
    sizes: list[int] = []

    def apply(params: Any, x: Any, t: Any) -> Any:
        jax.debug.callback(lambda: sizes.append(x.shape[0]))
        return jnp.zeros_like(x)

    jax.block_until_ready(run(apply))
    jax.effects_barrier()
    return sum(sizes) // bench.shape[0]


def alone(bench: Bench, calls: int) -> Callable[[], Any]:
    """The limit: the network on its own answer, `calls` times in one scan."""

    @jax.jit
    def run(params: Any, x: Any, times: Any) -> Any:
        step = lambda x, t: (bench.module.apply(params, x, jnp.full(x.shape[0], t)), None)  # noqa: E731
        return jax.lax.scan(step, x, times)[0]

    x, times = jnp.ones(bench.shape), jnp.linspace(1000, 1, calls)
    return lambda: run(bench.params, x, times)


def _cells(taken: np.ndarray, limit: np.ndarray, steps: int) -> list[str]:
    per_step = [f"{1e3 * np.median(a) / steps:.3f}" for a in (taken, limit)]
    return [*per_step, *spread(taken, limit)]


def ours(bench: Bench, names: tuple[str, ...], steps: int, rounds: int) -> list[list[str]]:
    """One line a sampler of the registry."""
    grid = grids.uniform_log_snr(schedules.linear_vp(), steps)
    key, rows, limits = jax.random.key(0), [], {}
    for name in names:
        sampler = make_sampler(name)

        def draw(denoise: Any, sampler: Any = sampler) -> Any:
            return sample(key, denoise, grid, bench.shape, sampler=sampler)

        def counted(apply: Callable, draw: Callable = draw) -> Any:
            return draw(make_denoiser(apply, {}, parametrization="eps", time_feature="thousandths"))

        calls = count_calls(bench, counted)
        limit = limits.setdefault(calls, alone(bench, calls))
        denoiser = bench.denoiser
        times = interleaved({"own": lambda: draw(denoiser), "limit": limit}, rounds)  # noqa: B023
        middle = ratios(times["own"], times["limit"])[0]
        goal = "" if calls > steps else ("met" if middle <= GOAL else "missed")
        rows.append([name, str(calls), *_cells(times["own"], times["limit"], steps), goal])
    return rows


def call_overhead(rounds: int) -> float:
    """Seconds of a call of `sample` beyond those of the same call under one more jit.

    Of one step on two numbers, so that there is little else.
    """
    bench, grid = build("mlp"), grids.uniform_log_snr(schedules.linear_vp(), 1)
    sampler, key = make_sampler("ddim"), jax.random.key(0)

    def draw(key: Any, denoise: Any, grid: Any, sampler: Any) -> Any:
        return sample(key, denoise, grid, (1, 2), sampler=sampler)

    compiled, arguments = jax.jit(draw), (key, bench.denoiser, grid, sampler)
    runs = {"eager": lambda: draw(*arguments), "compiled": lambda: compiled(*arguments)}
    times = interleaved(runs, 5 * rounds)
    return float(np.median(times["eager"] - times["compiled"]))


def diffusers_rows(bench: Bench, steps: int, rounds: int) -> tuple[list[list[str]], float]:
    """One line a scheduler of diffusers; and how far its torch network is from ours."""
    import diffusers
    import torch

    torch.set_grad_enabled(False)
    network, gap, x = _torch_network(bench)
    apply, rows = jax.jit(bench.module.apply), []

    def bridge(y: Any, t: Any) -> Any:
        y = jnp.asarray(_channels_last(y.numpy()))
        answer = apply(bench.params, y, jnp.full(len(y), float(t)))
        return torch.from_numpy(_channels_first(np.array(answer)))

    def native(y: Any, t: Any) -> Any:
        return network(y, torch.full((len(y),), float(t)))

    for name, (kind, config) in DIFFUSERS.items():
        scheduler = getattr(diffusers, kind)(**config)

        def loop(model: Callable, scheduler: Any = scheduler) -> Any:
            scheduler.set_timesteps(steps)
            y = x
            for t in scheduler.timesteps:
                y = scheduler.step(model(scheduler.scale_model_input(y, t), t), t, y).prev_sample
            return y

        def alone_in_a_loop(model: Callable, scheduler: Any = scheduler) -> Any:
            y = x
            for t in scheduler.timesteps:
                y = model(y, t)
            return y

        loop(native)  # sets the timesteps
        runs = {
            "step": lambda loop=loop: loop(lambda y, t: y).numpy(),
            "bridge": lambda loop=loop: loop(bridge).numpy(),
            "jax": lambda f=alone_in_a_loop: f(bridge).numpy(),
            "torch": lambda loop=loop: loop(native).numpy(),
            "torch alone": lambda f=alone_in_a_loop: f(native).numpy(),
        }
        times = interleaved(runs, rounds)
        calls = len(scheduler.timesteps)
        rows.append(
            [
                name,
                str(calls),
                f"{1e3 * np.median(times['step']) / steps:.3f}",
                *_cells(times["bridge"], times["jax"], steps)[::2],
                *_cells(times["torch"], times["torch alone"], steps)[::2],
            ]
        )
    return rows, gap


def _channels_first(a: np.ndarray) -> np.ndarray:
    return np.array(np.moveaxis(a, -1, 1), order="C")


def _channels_last(a: np.ndarray) -> np.ndarray:
    return np.moveaxis(a, 1, -1)


def _torch_network(bench: Bench) -> tuple[Callable, float, Any]:
    """The network in torch, the largest difference of its answer from ours, and a batch."""
    import torch
    import torch_networks

    x = np.asarray(jax.random.normal(jax.random.key(2), bench.shape))
    if bench.name == "mlp":
        network = torch_networks.mlp(torch_networks.tensors(bench.params))
    else:
        fields = bench.module
        network = torch_networks.unet(
            torch_networks.tensors(bench.params),
            levels=len(fields.multipliers),
            blocks=fields.blocks,
            groups=fields.groups,
        )
    first = torch.from_numpy(_channels_first(x))
    answer = network(first, torch.full((len(x),), 500.0)).numpy()
    wanted = np.asarray(bench.module.apply(bench.params, x, jnp.full(len(x), 500.0)))
    return network, float(np.max(np.abs(_channels_last(answer) - wanted))), first


def hackable_row(bench: Bench, steps: int, rounds: int) -> list[str]:
    """DDIM of hackable-diffusion, compiled whole, over the network alone."""
    from hackable_diffusion.lib import corruption, sampling

    process = corruption.GaussianProcess(schedule=corruption.CosineSchedule())
    sampler = sampling.DiffusionSampler(
        time_schedule=sampling.UniformTimeSchedule(),
        stepper=sampling.DDIMStep(corruption_process=process, stoch_coeff=0.0),
        num_steps=steps + 1,  # of times, its first among them
        store_trajectory=False,
    )
    key, x = jax.random.key(0), jnp.ones(bench.shape)

    def draw(apply: Callable) -> Callable:
        def run(params: Any, key: Any, x: Any) -> Any:
            def infer(*, xt: Any, time: Any, conditioning: Any) -> dict:
                return {"epsilon": apply(params, xt, 1000 * time.reshape(len(xt)))}

            return sampler(infer, key, x)[0].xt

        return jax.jit(run)

    calls = count_calls(bench, lambda apply: draw(apply)(bench.params, key, x))
    run = draw(bench.module.apply)
    runs = {"own": lambda: run(bench.params, key, x), "limit": alone(bench, calls)}
    times = interleaved(runs, rounds)
    return ["hackable-diffusion DDIM", str(calls), *_cells(times["own"], times["limit"], steps), ""]


def main(
    steps: int = 20,
    rounds: int = 7,
    networks: tuple[str, ...] = ("unet", "mlp"),
    samplers: tuple[str, ...] = (),
    peers: bool = True,
) -> None:
    """Prints the tables.

    Args:
        steps: of each run.
        rounds: timed calls of each.
        networks: "unet", "mlp" or both.
        samplers: names of the registry, all if none.
        peers: whether diffusers and hackable-diffusion are timed, where they are installed.
    """
    console = Console(width=120)
    console.print(
        f"a call of sample, before its program starts: {1e3 * call_overhead(rounds):.2f} ms"
    )
    names = samplers or tuple(SAMPLERS)
    columns = ["sampler", "calls", "ms a step", "network alone", "ratio", "quartiles", "goal 1.05"]
    for bench in map(build, networks):
        rows = ours(bench, names, steps, rounds)
        if peers and importlib.util.find_spec("hackable_diffusion"):
            rows.append(hackable_row(bench, steps, rounds))
        console.print(table(f"{bench.name}: {bench.shape}, {steps} steps", columns, rows))
        if not (peers and importlib.util.find_spec("diffusers")):
            continue
        found, gap = diffusers_rows(bench, steps, rounds)
        heads = ["diffusers", "calls", "step alone, ms"]
        heads += ["around JAX, ms", "over JAX alone", "around torch, ms", "over torch alone"]
        console.print(table(f"{bench.name}: a step of diffusers' loops", heads, found))
        console.print(f"largest difference of the torch network from ours: {gap:.1e}")


if __name__ == "__main__":
    tyro.cli(main)
