"""`jaxdiff study`: many trainings that differ in hyperparameters, as few programs."""

import csv
import dataclasses
import io
import json
import math
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from jaxdiff import config as configs
from jaxdiff import data, plots, study, training
from jaxdiff.cli import monitor, trials
from jaxdiff.cli.plan import SCORES, Plan
from jaxdiff.cli.say import say, show
from jaxdiff.cli.together import use_cores
from jaxdiff.cli.train import value_of
from jaxdiff.config import Config, build, members
from jaxdiff.config.codec import from_json
from jaxdiff.data import files
from jaxdiff.study import halving
from jaxdiff.training import checkpoint, interrupt, rundir

__all__ = ["main"]

_OTHER_LOSSES = ("loss.", "schedule.", "parametrization.", "variance.", "sampling.")
_SHOWN = 20


@dataclasses.dataclass(frozen=True)
class Study:
    """Train many members on DATA that differ in hyperparameters, and compare them.

    The space is a TOML file of axes by dotted name, such as "optimizer.lr" = { log = [1e-4, 0.1] },
    "optimizer.weight_decay" = { uniform = [0, 0.1] }, "schedule.name" = ["cosine", "linear_vp"].
    Members that differ in numbers and formulas alone are one program, in "sampling." alone one
    training. Ctrl-C and SIGTERM save and end; the same command with --resume goes on. What is left:
    results.csv, parallel.png, and best/, the best member as an ordinary run.
    """

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """"digits" or a path, as for jaxdiff train; comes first."""
    space: Path
    """The TOML file of the space."""
    out: Path
    """The directory to write."""
    preset: Literal[tuple(configs.PRESETS)] | None = None  # type: ignore[valid-type]
    """The recipe that members begin from, chosen by the data unless named."""
    members: int | None = None
    """How many; 16 unless given, of a grid all its points."""
    design: Literal[tuple(study.space.DESIGNS)] = "sobol"  # type: ignore[valid-type]
    """Which points of the space: a Sobol sequence, independent ones, or a grid."""
    steps: int = 1000
    """How many steps each is trained, the last ones where some are dropped."""
    halving: bool = False
    """Drop the worse members on the way: successive halving."""
    factor: int = 4
    """Which part stays each time, one in so many."""
    score: Literal[SCORES] | None = None  # type: ignore[valid-type]
    """By what members are compared, lower is better: the loss on held-out data, or the Frechet
    distance of samples to them; the latter where members differ in their losses, unless given."""
    seed: int = 0
    """Of the design; that of trainings is --training.seed, or an axis."""
    layout: Literal[tuple(study.population.LAYOUTS)] | None = None  # type: ignore[valid-type]
    """How members of one program are computed: at once, or each in turn; the one that is expected
    to be faster unless given."""
    resume: bool = False
    """Go on with the study in --out, or begin if there is none."""
    config: Annotated[Config, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Config)


def main(arguments: Sequence[str]) -> int:
    """Runs the command; see `jaxdiff.cli.main`."""
    args = tyro.cli(
        tyro.conf.AvoidSubcommands[Study],
        prog="jaxdiff study",
        args=arguments,
        default=Study(
            data=tyro.MISSING, space=tyro.MISSING, out=tyro.MISSING, config=_base(list(arguments))
        ),
    )
    _check(args)
    use_cores(args.config)
    console = Console(stderr=True)
    plan, dataset = _plan(args)
    rundir.check_writable(args.out)
    _claim(args, plan)
    with rundir.locked(args.out), interrupt.catch() as caught:
        began = time.monotonic()
        under_way = trials.Trials(plan, dataset, args.out, layout=args.layout)
        count, programs = len(plan.points), len(plan.groups)
        trainings = sum(len(group.served) for group in plan.groups)
        fewer = f", {trainings} training{'s' * (trainings > 1)}" if trainings < count else ""
        say(
            console,
            f"{count} members{fewer} in {programs} program{'s' * (programs > 1)},"
            f" {plan.steps} steps, compared by {plan.score}",
            *(f"after {r.step} steps {r.members} stay" for r in plan.rungs),
        )
        done = under_way.run(caught, console)
        if not done:
            under_way.close()
            say(console, f"{signal.Signals(caught.signal).name}: saved; --resume goes on")
            return 130 if caught.signal == signal.SIGINT else 0
        rows = _rows(plan, under_way.compared)
        _write(args.out / "results.csv", rows)
        best = under_way.best()
        if best is not None:
            _write_best(args.out, plan, under_way, best)
        under_way.close()
    show(_table(rows, plan))
    if best is None:
        raise FloatingPointError("every member failed: no loss is finite; see results.csv")
    names = list(plan.points[0])
    plots.parallel_coordinates(
        {name: [row[name] for row in rows] for name in names},
        [math.nan if row[plan.score] is None else row[plan.score] for row in rows],
        args.out / "parallel.png",
        name=plan.score,
    )
    say(
        console,
        f"{time.monotonic() - began:.0f} s; results.csv and parallel.png in {args.out}",
        f"next: jaxdiff sample {args.out / 'best'} --out samples.npz --plot samples.png",
    )
    return 0


def _base(arguments: list[str]) -> Config:
    """The configuration that flags override."""
    named = value_of("--preset", arguments)
    if named in configs.PRESETS:
        return configs.preset(named)
    if not arguments or arguments[0].startswith("-"):
        return configs.preset("digits")
    return configs.preset(configs.preset_for(data.example_shape(arguments[0])))


def _check(args: Study) -> None:
    for name, least in (("members", 1), ("steps", 1), ("factor", 2)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise ValueError(f"--{name} must be at least {least}, got {value}")
    if args.out.exists() and not args.out.is_dir():
        raise ValueError(f"--out must be a directory, got the file {args.out}")


def _plan(args: Study) -> tuple[Plan, Any]:
    """What is to be done, every member checked."""
    space = study.read_space(args.space)
    wanted = args.members if args.members or args.design == "grid" else 16
    points = study.space.DESIGNS[args.design](space, wanted, args.seed)
    if args.config.training.seconds is not None:
        raise ValueError("--training.seconds is of one training: members make --steps steps each")
    part = dataclasses.replace(args.config.training, steps=args.steps)
    if part.fully_sharded or part.model_devices > 1 or part.ordered is not None:
        raise ValueError(
            "training.fully_sharded, model_devices and ordered are of one training: members are"
            " spread over devices whole"
        )
    if args.config.tuning != configs.TuningConfig():
        raise ValueError("--tuning.* are of a trained network: jaxdiff train --from RUN --method")
    source = dataclasses.replace(args.config.data, source=args.data)
    config = dataclasses.replace(args.config, data=source, training=part)
    config, dataset = build.build_data(config)
    score = args.score
    if score is None:
        other = any(name.startswith(_OTHER_LOSSES) for name in space)
        score = "frechet" if other else "heldout_loss"
    if score == "frechet" and part.samples < monitor.ENOUGH:
        config = dataclasses.replace(
            config, training=dataclasses.replace(part, samples=monitor.ENOUGH)
        )
    rungs = halving.rungs(len(points), args.steps, args.factor) if args.halving else []
    # As JSON has them, so that a study that is resumed compares.
    points = json.loads(json.dumps(points))
    batch = dataset.batch_at(0)
    groups = members.groups(config, points, batch)
    for group in groups:
        try:
            build.check(group.config, batch)
        except ValueError as error:
            raise ValueError(f"member {group.served[0][0]}: {error}") from error
    return Plan(config, points, args.steps, rungs, score, groups), dataset


def _claim(args: Study, plan: Plan) -> None:
    """Makes the directory, or finds that it holds this very study, to go on with."""
    path, mine = args.out / "study.json", plan.to_json()
    if path.is_file():
        if not args.resume:
            raise ValueError(f"--out {args.out} holds a study: --resume, or another directory")
        try:
            theirs = json.loads(path.read_text(encoding="utf-8"))
            from_json(theirs["config"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged: {error!r}") from error
        other = [name for name in mine if json.loads(json.dumps(mine[name])) != theirs.get(name)]
        if other:
            raise ValueError(f"--resume goes on with the same study, got other {', '.join(other)}")
        return
    if args.out.is_dir() and any(args.out.iterdir()):
        raise ValueError(f"--out {args.out} is not empty, and holds no study")
    args.out.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as file:
        file.write(json.dumps(mine, indent=1).encode())


def _rows(plan: Plan, compared: Sequence[trials.Comparison]) -> list[dict[str, Any]]:
    """A row for each member, the best first, those that were dropped earlier last."""
    rows = []
    for member, point in enumerate(plan.points):
        last = [c for c in compared if member in c.scores][-1]
        row = {"member": member, **point, "steps": last.step, plan.score: last.scores[member]}
        rows.append(row)
    place = lambda score: math.inf if score is None else score  # noqa: E731
    return sorted(rows, key=lambda row: (-row["steps"], place(row[plan.score])))


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    with files.replacing(path) as file:
        file.write(text.getvalue().encode())


def _write_best(out: Path, plan: Plan, under_way: trials.Trials, best: int) -> None:
    """The best member as a run of its own; one that is there already may have been gone on with."""
    folder = out / "best"
    newest = checkpoint.sound_step(rundir.checkpoints(folder))
    if newest is not None and newest >= plan.steps:
        return
    with rundir.locked(folder):
        if (folder / "config.json").is_file():
            rundir.clear(folder)
        _fill(folder, plan, under_way.state(best), best)


def _fill(folder: Path, plan: Plan, state: training.TrainState, best: int) -> None:
    config = configs.to_json(members.member(plan.config, plan.points[best]))
    rundir.write_config(folder, config, plan.steps)
    with training.Checkpoints(rundir.checkpoints(folder)) as store:
        store.save(plan.steps, state, config)
    with (folder.parent / "log.csv").open(newline="") as file:
        losses = {
            int(row["step"]): float(row["loss"])
            for row in csv.DictReader(file)
            if int(row["member"]) == best
        }
    with rundir.CsvLog(rundir.log(folder), step=plan.steps) as log:
        for step in sorted(losses):
            log.write({"step": step, "seconds": 0.0, "loss": losses[step]})


def _table(rows: Sequence[dict[str, Any]], plan: Plan) -> Table:
    table = Table(title=f"{len(rows)} members, the best by {plan.score} first")
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows[:_SHOWN]:
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()))
    return table
