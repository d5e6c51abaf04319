"""`jaxdiff probe positions`: which position methods can count identical tokens."""

import csv
import dataclasses
import io
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import jax
import numpy as np
import tyro
from rich.console import Console

from jaxdiff import arrays, plots
from jaxdiff.cli.say import say, show
from jaxdiff.data import files
from jaxdiff.training import interrupt, probe, rundir
from jaxdiff.training.probe_tasks import METHODS, TASKS, method
from jaxdiff.training.progress import Bar

__all__ = ["main"]


@dataclasses.dataclass(frozen=True)
class Probe:
    """Train small transformers to say where their tokens are, by each position method.

    Tasks: regression and classification of the places of identical tokens, which no softmax over a
    relative bias can tell; pi, places of random tokens; etp, every other token. The seeds of a
    method are one program. Ctrl-C shows and writes what is trained so far.
    """

    what: Annotated[Literal["positions"], tyro.conf.Positional]
    """What is probed."""
    methods: tuple[str, ...] = ("all",)
    """Names such as bias, urpe, exp+bias, boundary+bias, bos+causal; all of them by "all"."""
    tasks: tuple[str, ...] = ("regression", "classification")
    """Of regression, classification, pi, etp; all of them by "all"."""
    steps: int = 1500
    """How many steps of each network."""
    seeds: int = 3
    """How many networks of each method and task."""
    n: int = 32
    """The number of tokens."""
    vocab: int = 50
    """How many different random tokens there are."""
    lr: float = 1e-3
    """The peak learning rate of Adam."""
    seed: int = 0
    """Of all of it."""
    out: Path | None = None
    """A folder for probe.csv, losses_TASK.png and, of methods with a factor, their maps."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command; see `jaxdiff.cli.main`."""
    args = tyro.cli(Probe, prog="jaxdiff probe", args=arguments)
    methods = METHODS if args.methods == ("all",) else args.methods
    tasks = tuple(TASKS) if args.tasks == ("all",) else args.tasks
    _check(args, methods, tasks)
    console = Console(stderr=True)
    total = len(methods) * len(tasks) * args.steps
    with interrupt.catch() as caught, Bar(0, total, console=console) as bar:

        def on_step(task: str, name: str, step: int, loss: float) -> bool:
            before = tasks.index(task) * len(methods) + list(methods).index(name)
            bar.update(before * args.steps + step, total, loss)
            return caught.signal is not None

        sizes = {"n": args.n, "vocab": args.vocab}
        how = {**sizes, "seeds": args.seeds, "steps": args.steps, "lr": args.lr}
        found = probe.compare(jax.random.key(args.seed), methods, tasks, on_step=on_step, **how)
    rows = probe.rows_of(found, **sizes)
    show(plots.probe_table(rows, title=f"n = {args.n}"))
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        written = [_write(rows, args.out / "probe.csv"), *_draw(found, args)]
        say(console, *(str(path) for path in written))
    return 130 if caught.signal == signal.SIGINT else 0


def _check(args: Probe, methods: Sequence[str], tasks: Sequence[str]) -> None:
    for name in ("steps", "seeds", "vocab"):
        arrays.check_count(f"--{name}", getattr(args, name))
    arrays.check_count("--n", args.n, 2)
    arrays.check_range("--lr", args.lr, 0.0, np.inf, "()")
    arrays.check_range("--seed", args.seed, 0, 2**63 - 1)
    for name in methods:
        method(name)
    for names, what in ((methods, "--methods"), (tasks, "--tasks")):
        if not names or len(set(names)) < len(names):
            raise ValueError(f"{what} must be names, each once, got {' '.join(names) or 'none'}")
    unknown = [name for name in tasks if name not in TASKS]
    if unknown:
        raise ValueError(f"--tasks must be of {', '.join(TASKS)}, got {unknown[0]!r}")
    if args.out is not None:
        rundir.check_writable(args.out)


def _write(rows: Sequence[probe.Row], path: Path) -> Path:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([rows[0]._fields, *rows])
    with files.replacing(path) as file:
        file.write(text.getvalue().encode())
    return path


def _draw(found: dict[tuple[str, str], probe.Found], args: Probe) -> list[Path]:
    """Losses of each task, and maps of the first network of each method with a factor."""
    written = []
    for task in dict.fromkeys(task for task, _ in found):
        own = {name: one for (of, name), one in found.items() if of == task}
        lines = {name: (one.steps, np.mean(one.losses, axis=0)) for name, one in own.items()}
        path = args.out / f"losses_{task}.png"
        best = TASKS[task].best(args.n, args.vocab).loss
        plots.curves(lines, path, xlabel="step", ylabel="loss", title=task, floor=best)
        written.append(path)
        tokens = TASKS[task].draw(jax.random.key(args.seed), 1, args.n, args.vocab)[0][0]
        for name, one in own.items():
            maps = {f"factor, {key}": a for key, a in one.factors().items()}
            if maps:
                path = args.out / f"maps_{task}_{name}.png"
                plots.heat_maps({**maps, **one.weights(tokens)}, path, title=f"{name}, {task}")
                written.append(path)
    return written
