"""What do jaxdiff's sampler, training step and import cost, beside the least they could?

    python experiments/bench_core.py [--parts sample training startup forms] [--rounds 9]

sample: `jaxdiff.sample` against a `lax.scan` of DDIM written by hand around the same network; the
compiled programs hold as many convolutions and matrix products.
training: a step of Adam with an average of the parameters, and a step of sampling, of a UNet with
added skips, one with concatenated skips, and a DiT, on images of 8x8: ours on one CPU device, ours
with the batch split over one virtual CPU device a core, and torch's, eager, with as many threads.
For the concatenated UNet torch's is diffusers' UNet2DModel in the nearest configuration, else the
same function written in torch. Without torch (the extra "parity") its rows say so, and rates are
relative to ours on one device.
startup: `import jaxdiff` against `import jax`, and the first sample of a process with an empty and
with a filled compilation cache.
forms: convolutions of the shapes of that UNet in five forms, alone and within its training step.

What is compared runs in turn, round by round, so that a busy machine burdens all alike: printed are
medians and quartiles of the ratio within a round. The first call of each is thrown away. Torch's
threads wait for each other at every operation: where other work holds a core, its rows are void.

Goals on an otherwise idle machine: at most 1.05 times the scan's time, torch's rate for the UNets,
1.2 times its rate for the DiT.

Hardware: 2 CPU cores, under 6 minutes.
"""

import contextlib
import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Literal

import bench_samplers
import convolutions
import core_runs
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from bench_samplers import Bench
from jax import Array
from rich.console import Console
from timing import interleaved, spread, table

from jaxdiff import grids, schedules
from jaxdiff.samplers import ddim, sample
from jaxdiff.training import speed
from jaxdiff.typing import Grid

__all__ = [
    "by_hand",
    "count_operations",
    "form_rows",
    "main",
    "sample_row",
    "shapes_of",
    "startup_rows",
    "training_rows",
]

COUNTED = ("convolution", "dot")
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
ONE, SPLIT, TORCH = "ours", f"ours over {CORES} devices", "torch"
PATIENCE = 8.0  # seconds that a comparison of steps may take beyond 3 rounds

IMPORT = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
FIRST = """
import sys, time
began = time.perf_counter()
import jax
folder, width, images, steps = sys.argv[1], *map(int, sys.argv[2:])
jax.config.update("jax_compilation_cache_dir", folder)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
import core_runs
run = core_runs.our_draw("unet", width, images, steps)
for _ in range(2):
    start = time.perf_counter()
    run().block_until_ready()
    print(time.perf_counter() - start)
print(time.perf_counter() - began)
"""


def by_hand(bench: Bench, x: Array, params: Any, grid: Grid) -> Array:
    """DDIM from x_T as one writes it without a library, for a network that predicts eps."""

    def step(x: Array, levels: tuple) -> tuple[Array, None]:
        (t, alpha, sigma), (_, alpha_s, sigma_s) = levels
        eps = bench.module.apply(params, x, jnp.full(x.shape[0], 1000 * t))
        return alpha_s * (x - sigma * eps) / alpha + sigma_s * eps, None

    levels = tuple(grid.levels)
    return jax.lax.scan(step, x, ([a[:-1] for a in levels], [a[1:] for a in levels]))[0]


def count_operations(program: str) -> dict[str, int]:
    """How many convolutions and matrix products an optimised HLO text holds."""
    found = Counter(re.findall(r"= \S+ (convolution|dot)\(", program))
    return {name: found[name] for name in COUNTED}


def _pair(bench: Bench, steps: int) -> tuple[dict[str, Callable], dict[str, dict[str, int]]]:
    """Calls of ours and of the scan, and what their programs hold."""
    grid, key = grids.uniform_log_snr(schedules.linear_vp(), steps), jax.random.key(0)
    denoiser = bench.denoiser

    def ours(key: Array, denoise: Any, grid: Grid) -> Array:
        return sample(key, denoise, grid, bench.shape, sampler=ddim())

    @jax.jit
    def scan(key: Array, params: Any, grid: Grid) -> Array:
        return by_hand(bench, jax.random.normal(key, bench.shape), params, grid)

    programs = {
        "ours": jax.jit(ours).lower(key, denoiser, grid),
        "scan": scan.lower(key, bench.params, grid),
    }
    held = {name: count_operations(p.compile().as_text()) for name, p in programs.items()}
    runs = {
        "ours": lambda: ours(key, denoiser, grid),
        "scan": lambda: scan(key, bench.params, grid),
    }
    return runs, held


def sample_row(bench: Bench, steps: int, rounds: int) -> list[str]:
    """Milliseconds of both, their ratio, and the operations in their programs."""
    runs, held = _pair(bench, steps)
    times = interleaved(runs, rounds)
    milliseconds = [f"{1e3 * np.median(times[name]):.2f}" for name in runs]
    counts = [f"{held['ours'][name]} / {held['scan'][name]}" for name in COUNTED]
    return [bench.name, *milliseconds, *spread(times["ours"], times["scan"]), *counts]


def _rate_rows(
    runs: dict[str, Callable], sizes: dict[str, int], rounds: int, per: int = 1
) -> list[list[str]]:
    """One row a run: parameters, milliseconds, rate over torch's or else over ours."""
    times = interleaved(runs, rounds, PATIENCE)
    limit = times.get(TORCH, times[ONE])
    rows = []
    for name, taken in times.items():
        cells = [f"{1e3 * np.median(taken) / per:.1f}", *spread(limit, taken)]
        rows.append([name, f"{sizes[name]:,}", *cells])
    return rows


def training_rows(
    name: str, width: int, batch: int, images: int, steps: int, rounds: int
) -> dict[str, list[list[str]]]:
    """Rows of a training step, and of a step of sampling, by network."""
    images += -images % CORES
    size = core_runs.count(core_runs.build(name, width)[1])
    sizes, found = {ONE: size, SPLIT: size}, {}
    works = {
        "training": (core_runs.our_training, (name, width, batch), 1),
        "sampling": (core_runs.our_draw, (name, width, images, steps), steps),
    }
    peer = core_runs.twin(name, width, threads=CORES) if _has_peer(name) else None
    if peer:
        sizes[TORCH] = core_runs.count(peer[1])
    for work, (make, arguments, per) in works.items():
        with contextlib.ExitStack() as stack:
            runs = {ONE: make(*arguments)}
            if jax.default_backend() == "cpu" and CORES > 1:
                runs[SPLIT] = stack.enter_context(core_runs.elsewhere(CORES, make, *arguments))
            if peer:
                train, draw = core_runs.torch_training, core_runs.torch_draw
                call = train(*peer, batch) if work == "training" else draw(peer[0], images, steps)
                runs[TORCH] = call
            found[work] = _rate_rows(runs, sizes, rounds, per)
        if peer is None:
            found[work].append([TORCH, "not installed", "", "", ""])
    return found


def _has_peer(name: str) -> bool:
    wanted = ("torch", "diffusers") if name == "concat" else ("torch",)
    return all(importlib.util.find_spec(package) for package in wanted)


def _python(program: str, *arguments: Any) -> list[float]:
    """The numbers that a Python process prints."""
    here = str(pathlib.Path(__file__).parent)
    paths = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"a process of its own failed:\n{done.stderr}")
    return [float(line) for line in done.stdout.split()]


def startup_rows(width: int, images: int, steps: int, rounds: int) -> list[list[str]]:
    """Seconds of imports, and of the first sample without and with compiled programs on disk."""
    imports: dict[str, list[float]] = {"import jax": [], "import jaxdiff": []}
    first: dict[str, list[list[float]]] = {"cold": [], "warm": []}
    for _ in range(rounds + 1):  # the first reads files from disk
        for name, seconds in imports.items():
            seconds.extend(_python(IMPORT.format(name.split()[1])))
    for _ in range(min(rounds, 3)):
        with tempfile.TemporaryDirectory() as folder:
            for seconds in first.values():
                seconds.append(_python(FIRST, folder, width, images, steps))
    jax_alone = np.array(imports["import jax"][1:])
    rows = [_seconds(name, np.array(taken[1:]), jax_alone) for name, taken in imports.items()]
    cold, warm = (np.array(seconds) for seconds in first.values())
    for name, column in (("first sample", 0), ("whole process", 2)):
        rows.append(_seconds(f"{name}, cold cache", cold[:, column], cold[:, column]))
        rows.append(_seconds(f"{name}, warm cache", warm[:, column], cold[:, column]))
    return [*rows, _seconds("second sample of a process", cold[:, 1], cold[:, 0])]


def _seconds(name: str, taken: np.ndarray, limit: np.ndarray) -> list[str]:
    return [name, f"{np.median(taken):.3f}", *spread(taken, limit)]


def shapes_of(name: str, width: int, batch: int) -> Counter[tuple[int, ...]]:
    """The (B, H, C, F) of a network's 3x3 convolutions of stride 1 between several channels."""
    module, params = core_runs.build(name, width)
    inputs = jnp.zeros((batch, 8, 8, 1)), jnp.zeros(batch), jnp.zeros(batch, jnp.int32)
    text = jax.jit(module.apply).lower(params, *inputs).as_text()
    found: Counter[tuple[int, ...]] = Counter()
    for line in text.splitlines():
        types = r"\(tensor<(\d+)x(\d+)x\d+x\d+xf32>, tensor<3x3x(\d+)x(\d+)xf32>\)"
        match = re.search(types, line)
        if match and "stride = [1, 1]" in line:
            found[tuple(map(int, match.groups()))] += 1
    return Counter({shape: n for shape, n in found.items() if 1 not in shape[2:]})


def form_rows(shapes: Iterable[tuple[int, ...]], rounds: int) -> list[list[str]]:
    """Forward, and forward and backward, of each form of each shape."""
    rows = []
    for batch, height, channels, features in shapes:
        x = jax.random.normal(jax.random.key(0), (batch, height, height, channels))
        k = jax.random.normal(jax.random.key(1), (3, 3, channels, features))
        operations = 2 * 9 * x.size * features
        cells: dict[str, list[str]] = {name: [] for name in convolutions.FORMS}
        for calls, wrap in ((1, lambda f: f), (3, _with_gradients)):
            compiled = {name: jax.jit(wrap(f)) for name, f in convolutions.FORMS.items()}
            runs = {name: (lambda f=f: f(x, k)) for name, f in compiled.items()}  # noqa: B023
            times = interleaved(runs, 3 * rounds)
            for name, taken in times.items():
                rate = calls * operations / np.median(taken) / 1e9
                cells[name] += [f"{rate:.0f}", *spread(times["plain"], taken)]
        shape = f"{batch}x{height}x{height} {channels} -> {features}"
        rows += [[f"{shape}, {name}", *cells[name]] for name in cells]
    return rows


def _with_gradients(form: Callable) -> Callable:
    """The gradients of a form by the input and the kernel."""
    return jax.grad(lambda x, k: jnp.sum(form(x, k) ** 2), argnums=(0, 1))


def _print_training(console: Console, name: str, found: dict[str, list[list[str]]]) -> None:
    for work, rows in found.items():
        limit = "torch's" if rows[-1][2] else "ours"
        columns = ["", "parameters", "ms", f"rate over {limit}", "quartiles"]
        console.print(table(f"{core_runs.NETWORKS[name]}: a step of {work}", columns, rows))


def _print_forms(console: Console, width: int, batch: int, rounds: int) -> None:
    shapes = shapes_of("unet", width, batch)
    console.print(f"a product of matrices: {speed.matmul_rate() / 1e9:.0f} GFLOP/s")
    console.print(f"shapes (B, H, C, F) and how often the UNet has them: {dict(shapes)}")
    columns = ["form", "GFLOP/s", "over plain", "quartiles"]
    columns += ["and backward", "over plain", "quartiles"]
    console.print(
        table(
            "3x3 convolutions: forward, then forward and backward",
            columns,
            form_rows(shapes, rounds),
        )
    )
    runs = {name: core_runs.our_training("unet", width, batch, name) for name in convolutions.FORMS}
    times, rows = interleaved(runs, rounds, PATIENCE), []
    for name, taken in times.items():
        rows.append([name, f"{1e3 * np.median(taken):.1f}", *spread(times["plain"], taken)])
    columns = ["form", "ms", "rate over plain's", "quartiles"]
    console.print(table("the UNet's training step with them", columns, rows))


Part = Literal["sample", "training", "startup", "forms"]


def main(
    parts: tuple[Part, ...] = ("sample", "training", "startup", "forms"),
    networks: tuple[str, ...] = tuple(core_runs.NETWORKS),
    width: int = 32,
    batch: int = 128,
    images: int = 1797,
    steps: int = 20,
    rounds: int = 9,
) -> None:
    """Prints the tables.

    Args:
        parts: which of them.
        networks: those that train and sample.
        width: the channels of a UNet's first level, an eighth of the DiT's width.
        batch: of a training step.
        images: drawn at once; rounded up to a multiple of the cores.
        steps: of sampling against a scan, and of the first sample.
        rounds: timed calls of each, fewer where they take long.
    """
    console = Console(width=120)
    console.print(f"JAX {jax.__version__}, {jax.default_backend()}, {CORES} cores")
    if "sample" in parts:
        columns = ["network", "sample, ms", "scan, ms", "ratio", "quartiles", *COUNTED]
        rows = [sample_row(bench_samplers.build(n), steps, 3 * rounds) for n in ("unet", "mlp")]
        console.print(table(f"sample / scan by hand, {steps} steps of DDIM", columns, rows))
    if "training" in parts:
        for name in networks:
            _print_training(console, name, training_rows(name, width, batch, images, 2, rounds))
    if "startup" in parts:
        columns = ["", "seconds", "over import jax, or the first, cold", "quartiles"]
        console.print(table("startup", columns, startup_rows(width, 16, steps, rounds)))
    if "forms" in parts:
        _print_forms(console, width, batch, rounds)


if __name__ == "__main__":
    tyro.cli(main)
