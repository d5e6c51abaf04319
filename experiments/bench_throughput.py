"""How many images a second do the published networks train on and draw, and what bounds them?

    python experiments/bench_throughput.py --out FOLDER [--networks ddpm-cifar10 dit-b2-latent]
        [--batch 128] [--rounds 9] [--quick]

The UNet of DDPM on CIFAR-10 and DiT-B/2 in latents of 32x32x4, as their presets have them, computed
in bfloat16: the training step, jitted, its state donated; and DDIM in 50 steps, one program. Two
programs a network, run in turn; medians over rounds.

The share is of what `training.speed.matmul_rate` measures for matrices of bfloat16 on this device.
Its operations are counted before XLA optimises (`training.speed.flops`), of a sampler those of one
call of the network times the calls; beside it what XLA says of the compiled program, in which
libraries' kernels count nothing and a loop once. Goal on a GPU: .5.

Left in FOLDER after each network, so that a run that is cut off keeps what it has: throughput.csv;
operations.csv, the time of each kind of operation by the profiler, of which the first are printed.

Hardware: a GPU with 40 GiB or more (smaller ones by --batch). It has NOT run on one yet: some 6
minutes are expected on an H100, most of them to compile. --quick takes a minute or two on a CPU.
"""

import csv
import dataclasses
import gzip
import json
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from timing import interleaved, table

from jaxdiff import samplers
from jaxdiff.config import Config, build, preset
from jaxdiff.training import speed

__all__ = ["NETWORKS", "Work", "configured", "main", "network_flops", "operations", "works"]

NETWORKS = {
    "ddpm-cifar10": ((32, 32, 3), 0),
    "dit-b2-latent": ((32, 32, 4), 1000),
}
"""By preset: the shape of an example, how many classes."""

Name = Literal[tuple(NETWORKS)]

SMALL = {
    "ddpm-cifar10": {"channels": 8, "multipliers": (1, 2), "blocks": 1, "groups": 4},
    "dit-b2-latent": {"width": 16, "depth": 2, "heads": 2},
}
BATCH = 128  # Ho et al.'s; half of Peebles and Xie's, whose 256 may not fit into 40 GiB
STEPS = 50
CALLS = {"training": 10, "sampling": 1}  # in a timed round; one step alone is not much to time
SHOWN = 15
PATIENCE = 25.0  # seconds of rounds, a network, beyond 3


class Work(NamedTuple):
    """What is timed.

    Attributes:
        run: one call, to be waited for.
        compiled: its program.
        flops: operations of a call, before XLA optimises.
        seconds: how long it took to compile.
    """

    run: Callable[[], Any]
    compiled: Any
    flops: float
    seconds: float


def main(
    out: Path,
    networks: tuple[Name, ...] = tuple(NETWORKS),  # type: ignore[valid-type]
    batch: int = BATCH,
    rounds: int = 9,
    quick: bool = False,
) -> list[dict[str, Any]]:
    """Measures, prints and writes.

    Args:
        out: the directory of the tables.
        networks: presets of NETWORKS.
        batch: examples at once.
        rounds: how often each program is timed.
        quick: everything as small as it can be.
    """
    console, steps = Console(width=150), STEPS
    if quick:
        batch, rounds, steps = 4, 3, 3
    out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    kinds: list[dict[str, Any]] = []
    for name in networks:
        config = configured(name, small=quick)
        made = works(config, batch, steps)
        rate = speed.matmul_rate(jnp.bfloat16)
        runs = {what: repeated(work.run, CALLS[what]) for what, work in made.items()}
        for what, taken in interleaved(runs, rounds, PATIENCE).items():
            seconds = float(np.median(taken)) / CALLS[what]
            rows.append({"network": name, "work": what} | row(made[what], seconds, batch, rate))
            write(out / "throughput.csv", rows)
            console.log(f"{name}, {what}: {rows[-1]['images_per_second']:.4g} images/s")
            found = profile(made[what].run)
            kinds += [{"network": name, "work": what, **kind} for kind in found]
            if kinds:
                write(out / "operations.csv", kinds)
            console.print(longest(f"{name}, {what}", found))
    console.print(shown(rows))
    return rows


def configured(name: str, *, small: bool = False) -> Config:
    """A preset in bfloat16 that knows its data's shape; small, a network of few numbers."""
    shape, classes = NETWORKS[name]
    config = preset(name)
    fields = SMALL[name] if small else {}
    counts = (1,) * classes
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, dtype="bfloat16", **fields),
        data=dataclasses.replace(config.data, shape=shape, label_counts=counts),
    )


def works(config: Config, examples: int, steps: int) -> dict[str, Work]:
    """The training step and the sampler of a network, compiled, with a state of their own."""
    batch = drawn(config, examples)
    state = jax.jit(lambda: build.build_state(config))()
    # Of its own, since the training step takes the state's memory.
    params = jax.tree.map(jnp.copy, state.ema)
    step = build.build_step(config)
    train, train_seconds = compiled(jax.jit(step, donate_argnums=0), state, batch)
    grid = build.build_grid(config, "uniform", steps)

    def draw(params: Any, key: jax.Array, labels: jax.Array | None) -> jax.Array:
        denoise = build.build_denoise(config, params, labels)
        return samplers.sample(key, denoise, grid, batch["x"].shape, sampler=samplers.ddim())

    given = (params, jax.random.key(1), batch.get("y"))
    sample, sample_seconds = compiled(jax.jit(draw), *given)
    counted = speed.flops(step, state, batch)
    states = [state]

    def advance() -> Any:
        states[0], metrics = train(states[0], batch)
        return metrics["loss"]

    del state
    return {
        "training": Work(advance, train, counted, train_seconds),
        "sampling": Work(
            lambda: sample(*given),
            sample,
            steps * network_flops(config, params, examples),
            sample_seconds,
        ),
    }


def drawn(config: Config, examples: int) -> dict[str, jax.Array]:
    """A batch of noise, on the device."""
    x = jax.random.uniform(jax.random.key(0), (examples, *config.data.shape), minval=-1, maxval=1)
    classes = len(config.data.label_counts)
    return {"x": x} | ({"y": jnp.arange(examples) % classes} if classes else {})


def compiled(function: Any, *given: Any) -> tuple[Any, float]:
    """The program, and the seconds it took."""
    began = time.perf_counter()
    return function.lower(*given).compile(), time.perf_counter() - began


def network_flops(config: Config, params: Any, examples: int) -> float:
    """Operations of one call of the network, by arrays or their shapes; nothing is compiled."""
    level = jax.tree.map(lambda a: a[0], build.build_grid(config, "uniform", 1).levels)

    def call(params: Any, batch: dict[str, jax.Array]) -> Any:
        return build.build_denoiser(config, params).with_cond(batch.get("y"))(batch["x"], level)

    return speed.flops(call, params, jax.eval_shape(lambda: drawn(config, examples)))


def repeated(run: Callable[[], Any], calls: int) -> Callable[[], Any]:
    """Some calls, of which the last is to be waited for."""
    return lambda: [run() for _ in range(calls)][-1]


def row(work: Work, seconds: float, examples: int, rate: float) -> dict[str, Any]:
    """What is told of a program that takes so many seconds a call."""
    memory, cost = work.compiled.memory_analysis(), work.compiled.cost_analysis() or {}
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    held += memory.output_size_in_bytes - memory.alias_size_in_bytes
    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    return {
        "device": jax.devices()[0].device_kind,
        "batch": examples,
        "ms": 1e3 * seconds,
        "images_per_second": examples / seconds,
        "gflop": work.flops / 1e9,
        "gflop_compiled": float(cost.get("flops", np.nan)) / 1e9,
        "tflop_per_second": work.flops / seconds / 1e12,
        "matmul_tflop_per_second": rate / 1e12,
        "share": work.flops / seconds / rate,
        "mib_planned": held / 2**20,
        "mib_peak": peak / 2**20,  # of the process so far; 0 where a device does not say
        "compile_seconds": work.seconds,
    }


def profile(run: Callable[[], Any]) -> list[dict[str, Any]]:
    """The kinds of operations of one call, the longest first."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            jax.block_until_ready(run())
        return operations(Path(folder))


def operations(folder: Path) -> list[dict[str, Any]]:
    """Kinds of operations in what `jax.profiler.trace` left in a folder, the longest first.

    Names without their numbers are a kind. On a GPU kernels are what its streams ran, elsewhere
    the events that name an operation of XLA, but loops, whose bodies are events of their own.

    Returns:
        Rows of name, count, ms, and share of all operations' time.
    """
    events = []
    for path in folder.rglob("*.trace.json.gz"):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            events += json.load(file)["traceEvents"]
    streams = {
        (e["pid"], e["tid"])
        for e in events
        if e.get("name") == "thread_name" and e["args"]["name"].startswith("Stream")
    }
    spans: dict[str, list[float]] = defaultdict(list)
    for e in events:
        own = (e.get("pid"), e.get("tid")) in streams if streams else "hlo_op" in e.get("args", {})
        if e.get("ph") == "X" and own and not e["name"].startswith("while"):
            spans[re.sub(r"([._]\d+)+$", "", e["name"])].append(e["dur"] / 1e3)
    whole = sum(map(sum, spans.values()))
    rows = [
        {"name": name, "count": len(ms), "ms": sum(ms), "share": sum(ms) / whole}
        for name, ms in spans.items()
    ]
    return sorted(rows, key=lambda row: -row["ms"])


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """All rows so far."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def shown(rows: list[dict[str, Any]]) -> Any:
    """Rows of throughput as a table."""
    cells = [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in r.values()] for r in rows]
    return table("throughput, bfloat16", [name.replace("_", " ") for name in rows[0]], cells)


def longest(title: str, found: list[dict[str, Any]]) -> Any:
    """The longest operations as a table."""
    cells = [
        [r["name"][:80], str(r["count"]), f"{r['ms']:.2f}", f"{r['share']:.1%}"]
        for r in found[:SHOWN]
    ]
    return table(title, ["operation", "count", "ms", "share"], cells)


if __name__ == "__main__":
    tyro.cli(main)
