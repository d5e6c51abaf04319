"""What a population saves: members at once, in turn, and as processes of their own.

    python experiments/bench_study.py [--count 16] [--steps 200] [--processes 4] [--quick]

For small MLPs on points in the plane, the same at width 128, and the 8x8 UNet of the digits, each
with K members that differ in learning rate and seed:

1. steps of all members a second by each layout (`study.population`): "vmap" and "each", and as a
   limit "one": a single member's step, jitted and called in a loop, K times. Layouts take turns,
   medians over turns; `prefer` says which one a study would take;
2. K trainings by `jaxdiff study`, start-up and compilation included, beside K processes of
   `jaxdiff train`, of which --processes are run and the time is scaled to K.

Found on two quiet cores, each of them a device, K = 16, in steps a second over one member in a
loop: width 32 vmap 2.2, each .75; width 128 vmap 1.4, each 1.2; UNet vmap .19, each 1.6. A study of
200 steps takes 23 and 27 s for the two MLPs, K processes (by 3 of them) 218 and 214 s. At K = 64:
the MLP of width 32, 200 steps, 24 s beside 765, 32 times as fast; the UNet, 60 steps, 603 s beside
2,901, 4.8 times: 9 s a member beside 45, which is all that the steps can be of them. No GPU was
timed.

Hardware: 2 CPU cores, nothing else running, a quarter of an hour; or a GPU.
"""

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from rich.console import Console
from timing import interleaved, table

from jaxdiff.config import build, members, preset
from jaxdiff.study import population

__all__ = ["main"]

NETWORKS = {
    "MLP, width 32, batch 32": (
        "mlp",
        {"model.width": 32, "model.depth": 2, "training.batch_size": 32},
    ),
    "MLP, width 128, batch 128": ("mlp", {"training.batch_size": 128}),
    "UNet of the digits, batch 128": ("digits", {"training.batch_size": 128}),
}


def main(
    count: int = 16, steps: int = 200, processes: int = 4, rounds: int = 25, quick: bool = False
) -> None:
    """Prints the tables.

    Args:
        count: members, K.
        steps: of each training in the second table.
        processes: how many of K processes are run.
        rounds: how often each layout is timed, at most.
        quick: everything as small as it can be.
    """
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)  # as the command has it
    if quick:
        count, steps, processes, rounds = 2, 4, 1, 3
    console, rows = Console(width=120), []
    names = dict(list(NETWORKS.items())[:1]) if quick else NETWORKS
    with tempfile.TemporaryDirectory() as folder:
        data = points(Path(folder))
        for name, (base, values) in names.items():
            source = "digits" if base == "digits" else str(data)
            rows.append([name, *layouts(base, values, source, count, rounds)])
            console.log(*rows[-1])
        title = f"member steps a second, {count} members, and the ratio to one in a loop"
        console.print(table(title, ["network", "one", "vmap", "each", "taken"], rows))
        rows = []
        for name, (base, values) in names.items():
            source = "digits" if base == "digits" else str(data)
            rows.append([name, *commands(values, source, count, steps, processes, Path(folder))])
            console.log(*rows[-1])
        title = f"seconds of {count} trainings of {steps} steps, all included"
        console.print(table(title, ["network", "processes", "study", "ratio"], rows))


def points(folder: Path) -> Path:
    """Two clusters in the plane, as a file."""
    rng = np.random.default_rng(0)
    y = np.arange(2000) % 2
    x = np.where(y[:, None] == 0, -0.5, 0.5) + 0.1 * rng.normal(size=(2000, 2))
    np.savez(folder / "points.npz", x=x.astype(np.float32))
    return folder / "points.npz"


def layouts(base: str, values: dict[str, Any], source: str, count: int, rounds: int) -> list[str]:
    """The cells of a row of the first table."""
    config = members.member(preset(base), values)
    config, dataset = build.build_data(with_source(config, source))
    batch = dataset.batch_at(0)
    traits = [{"optimizer.lr": 1e-3 * (1 + i / count), "training.seed": i} for i in range(count)]
    state_of = lambda t: build.build_state(members.with_values(config, t))  # noqa: E731
    step_of = lambda t: build.build_step(members.with_values(config, t))  # noqa: E731
    made = {name: population.begin(name, state_of, step_of, traits) for name in population.LAYOUTS}
    one = population.begin("each", state_of, step_of, traits[:1])
    ways: dict[str, Callable[[], Any]] = {
        "one": lambda: [one.advance([batch]) for _ in range(count)],
        **{name: (lambda p=p: p.advance([batch] * count)) for name, p in made.items()},
    }
    taken = interleaved(ways, rounds)
    median = {name: count / float(np.median(found)) for name, found in taken.items()}
    chosen = population.prefer(step_of, state_of, traits[0], batch)
    cells = [f"{median[n]:,.0f} ({median[n] / median['one']:.2f})" for n in ("vmap", "each")]
    return [f"{median['one']:,.0f}", *cells, chosen]


def with_source(config: Any, source: str) -> Any:
    """The configuration with data."""
    return dataclasses.replace(config, data=dataclasses.replace(config.data, source=source))


def commands(
    values: dict[str, Any], source: str, count: int, steps: int, processes: int, folder: Path
) -> list[str]:
    """The cells of a row of the second table."""
    flags = ["--training.log-every", str(steps), "--training.save-every", str(steps)]
    for name, value in values.items():
        flags += [f"--{name.replace('_', '-')}", str(value)]
    program = [sys.executable, "-m", "jaxdiff"]
    began = time.perf_counter()
    for i in range(processes):
        out = tempfile.mkdtemp(dir=folder)
        lr = ["--optimizer.lr", str(1e-3 * (1 + i / count)), "--training.seed", str(i)]
        command = ["train", source, "--out", out, "--steps", str(steps), *lr, *flags]
        subprocess.run([*program, *command], check=True, capture_output=True)
    alone = (time.perf_counter() - began) * count / processes
    space = folder / "space.toml"
    space.write_text(
        f'"optimizer.lr" = {{ log = [1e-3, 2e-3] }}\n"training.seed" = {list(range(count))}\n'
    )
    began = time.perf_counter()
    out = f"{tempfile.mkdtemp(dir=folder)}/study"
    given = ["--space", str(space), "--members", str(count), "--steps", str(steps), "--out", out]
    subprocess.run([*program, "study", source, *given, *flags], check=True, capture_output=True)
    together = time.perf_counter() - began
    return [f"{alone:.0f}", f"{together:.0f}", f"{alone / together:.1f}"]


if __name__ == "__main__":
    tyro.cli(main)
