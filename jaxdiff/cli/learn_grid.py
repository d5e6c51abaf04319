"""`jaxdiff learn-grid`: where a few steps of a sampler should be, for the model in a run."""

import dataclasses
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import tyro
from rich.console import Console

from jaxdiff import config as configs
from jaxdiff import training
from jaxdiff.arrays import check_range
from jaxdiff.cli import guiding, runs
from jaxdiff.cli.sample import spread_labels
from jaxdiff.cli.say import say
from jaxdiff.config import build
from jaxdiff.config.fields import GridName, SamplerName
from jaxdiff.config.grid_file import GridFile, write_grid
from jaxdiff.samplers import base, dpmpp_2m
from jaxdiff.training import Learned, interrupt, rundir
from jaxdiff.training.progress import Bar
from jaxdiff.typing import Denoise, Grid

__all__ = ["main"]

_FREE = {"eta": (0.0, 1.0), "guidance": (0.0, 10.0)}


@dataclasses.dataclass(frozen=True)
class LearnGrid:
    """Learn where the steps of a sampler should be, for the model in a run directory.

    Writes a small file for `jaxdiff sample RUN --grid FILE`. The levels are moved by gradient
    through the whole sampler, until its few steps end where many steps end from the same noise
    (--against reference), or until its samples are near to the training data in energy distance
    (--against data); then eta and the scale of guidance can be learned as well. Ctrl-C and SIGTERM
    write what is learned so far.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run directory."""
    out: Path
    """The .json file to write."""
    steps: int
    """The number of steps to learn for."""
    sampler: SamplerName = "dpmpp_2m"
    """The sampler to learn for."""
    grid: GridName | None = None
    """Where to begin; the run's configuration says which unless given."""
    against: Literal["reference", "data"] = "reference"
    """What is made small: the distance to a many-step run, or that to the training data."""
    learn: tuple[Literal["eta", "guidance"], ...] = ()
    """Numbers to learn beside the grid; they begin at --eta and --guidance."""
    eta: float | None = None
    """As in jaxdiff sample."""
    guidance: float | None = None
    """As in jaxdiff sample."""
    iterations: int = 200
    """How many gradients."""
    lr: float = 0.03
    """The peak learning rate of Adam, on the logarithms of gaps in log SNR."""
    batch: int = 32
    """Samples a gradient."""
    batches: int = 16
    """How many batches of noise the reference is worked out for."""
    reference_steps: int = 100
    """The steps of the reference, dpmpp_2m."""
    seed: int = 0
    """Of all noise."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command; see `jaxdiff.cli.main`."""
    args = tyro.cli(LearnGrid, prog="jaxdiff learn-grid", args=arguments)
    _check(args)
    run = runs.model_of_data(args.run, "which draws nothing")
    options = {"eta": args.eta}
    if "eta" in args.learn and args.eta is None:
        options["eta"] = 0.5
    sampler = build.build_sampler(args.sampler, **options)
    if args.against == "reference" and sampler.noises and getattr(sampler, "eta", 1.0) != 0:
        raise ValueError(
            f"--against reference is for deterministic samplers, {args.sampler} draws noise;"
            " take --against data"
        )
    begin = build.build_grid(run.config, args.grid or run.config.sampling.grid, args.steps)
    guide = guiding.guide(guiding.GuidanceFlags(guidance=args.guidance), run)
    weights = build.averaged(run.config, run.restore())
    denoise = build.build_denoise(run.config, weights, _labels(run.config, args.batch), guide)
    shape = (args.batch, *run.config.data.shape)
    base.check(denoise, begin, shape, sampler)
    numbers = _numbers(args, sampler, denoise)
    console = Console(stderr=True)
    with console.status("the reference" if args.against == "reference" else "the data"):
        objective, fresh = (_objective(args, run, denoise, shape, part) for part in range(2))
    key = jax.random.fold_in(jax.random.key(args.seed), 2)
    with interrupt.catch() as caught, Bar(0, args.iterations, console=console) as bar:

        def on_step(i: int, loss: float) -> bool:
            bar.update(i + 1, args.iterations, loss)
            return caught.signal is not None

        learned = training.learn_grid(
            key, denoise, begin, shape, objective,
            sampler=sampler, also=numbers, iterations=args.iterations,
            lr=args.lr, on_step=on_step,
        )  # fmt: skip
    write_grid(args.out, _file(args, run, learned))
    if caught.signal is not None:
        name, count = signal.Signals(caught.signal).name, len(learned.losses)
        say(console, f"{name}: {args.out} holds what {count} iterations learned")
        return 130 if caught.signal == signal.SIGINT else 0
    key = jax.random.fold_in(jax.random.key(args.seed), 3)
    before = training.mean_objective(key, denoise, begin, shape, fresh, sampler=sampler)
    after = training.mean_objective(
        key, learned.denoise, learned.grid, shape, fresh, sampler=learned.sampler
    )
    found = ", ".join(f"{_short(name)} {float(v):.3f}" for name, v in learned.numbers.items())
    what = "squared distance to the reference" if args.against == "reference" else "distance"
    say(
        console,
        f"{what} on fresh noise: {before:.5f} before, {after:.5f} after"
        + (f"; {found}" if found else ""),
        f"next: jaxdiff sample {args.run} --grid {args.out} --out samples.npz --plot samples.png",
    )
    return 0


def _check(args: LearnGrid) -> None:
    for name in ("iterations", "batch", "batches", "reference_steps"):
        if getattr(args, name) < 1:
            raise ValueError(
                f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}"
            )
    if args.steps < 2:
        raise ValueError(f"--steps must be at least 2, got {args.steps}: one step has no choice")
    if args.out.suffix != ".json":
        raise ValueError(f"--out must end in .json, got {args.out}")
    if not args.out.absolute().parent.is_dir():
        raise FileNotFoundError(f"there is no directory {args.out.parent} to write the grid in")
    rundir.check_writable(args.out.absolute().parent)
    if args.out.is_dir():
        raise IsADirectoryError(f"--out must be a file, {args.out} is a directory")
    if not 0 <= args.seed < 2**63:
        raise ValueError(f"--seed must lie in 0 <= seed < 2**63, got {args.seed}")
    for name in args.learn:
        check_range(f"--{name} to learn from", getattr(args, name) or 0.0, *_FREE[name])
    if args.learn and args.against == "reference":
        raise ValueError("--learn needs --against data: a reference fixes eta and guidance")
    if "guidance" in args.learn and args.guidance is None:
        raise ValueError("--learn guidance needs --guidance, the scale to begin from")


def _labels(config: configs.Config, count: int) -> Any:
    """Labels [count] in the proportions of the data, None for an unconditional model."""
    counts = config.data.label_counts
    return jnp.asarray(spread_labels(counts, count)) if counts else None


def _objective(
    args: LearnGrid, run: runs.Run, denoise: Denoise, shape: tuple[int, ...], part: int
) -> Any:
    """The objective; part 1 is of fresh noise."""
    if args.against == "data":
        return training.to_data(build.load_seen(run.config.data, "train").images())
    grid = build.build_grid(run.config, run.config.sampling.grid, args.reference_steps)
    key = jax.random.fold_in(jax.random.key(args.seed), part)
    return training.to_reference(
        key, denoise, grid, shape, sampler=dpmpp_2m(), batches=args.batches
    )


def _numbers(args: LearnGrid, sampler: Any, denoise: Denoise) -> dict[str, tuple[float, float]]:
    """The numbers to learn, by their paths in sampler and model."""
    paths = training.numbers_of(sampler, denoise)
    found = {}
    for name in args.learn:
        wanted = "sampler.eta" if name == "eta" else ".scale"
        path = next((p for p in paths if p.endswith(wanted)), None)
        if path is None:
            raise ValueError(f"--learn {name}: {args.sampler} has none")
        found[path] = _FREE[name]
    return found


def _short(path: str) -> str:
    return "eta" if path.endswith("eta") else "guidance"


def _file(args: LearnGrid, run: runs.Run, learned: Learned) -> GridFile:
    numbers = {_short(name): float(v) for name, v in learned.numbers.items()}
    return GridFile(
        schedule=configs.to_json(run.config)["schedule"],
        t=_noisy_times(learned.grid),
        sampler=args.sampler,
        eta=numbers.get("eta", args.eta),
        guidance=numbers.get("guidance", args.guidance),
    )


def _noisy_times(grid: Grid) -> tuple[float, ...]:
    levels = grid.levels
    return tuple(float(t) for t, s in zip(levels.t, levels.sigma, strict=True) if s > 0)
