"""`jaxdiff train`: from data to a run directory."""

import dataclasses
import functools
import itertools
import json
import math
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import tyro
from rich.console import Console

from jaxdiff import config as configs
from jaxdiff import data, training
from jaxdiff.cli import monitor, runs, stages
from jaxdiff.cli.say import say
from jaxdiff.cli.together import TogetherFlags, use_cores
from jaxdiff.config import Config, build
from jaxdiff.config.latents import read_shape
from jaxdiff.training import distributed, interrupt, rundir, speed

__all__ = ["Train", "main", "resumed", "train"]

# What may be changed on a resume: the rest fixes the numbers of a run.
_FREE = ("training.steps", "training.seconds", "training.log_every", "training.save_every")
_FREE += ("training.keep", "training.evaluate", "training.heldout", "training.samples")
_FREE += ("training.best", "training.tensorboard", "training.explode", "training.devices")
_FREE += ("training.fully_sharded", "training.model_devices")
_FREE += ("data.source", "sampling.")
_FREE += ("data.bins",)  # follows from the data; older runs do not say it
_FREE += ("data.latents",)  # where they lie; data.codec says whether they are the same


@dataclasses.dataclass(frozen=True)
class Train:
    """Train a diffusion model on DATA, into a run directory.

    DATA is "digits" (8x8 images that come along); or the path of an .npz file with x: [N,H,W,C],
    [N,H,W] or [N,D], uint8 or floats in [-1, 1], and if wanted labels y: [N]; of an .npy file with
    such an x; of a directory or file of MNIST's format (idx) or CIFAR's (binary); of a folder of
    pictures, whose own folders are classes. A preset is a recipe, chosen by the data unless named;
    every value of it can be set by its dotted name, as listed below. The presets npr and sn are
    second stages: they put a head for the variance on the model of another run, --from RUN. With
    --from RUN --method lst (a ladder beside it) or another, the model of a run is tuned to DATA.
    With --data.latents AE it learns in the latents of AE, a run of `jaxdiff autoencoder`.
    Ctrl-C and SIGTERM save a checkpoint and end; the same command with --resume goes on.
    """

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """"digits" or a path; comes first."""
    out: Path | None = None
    """The run directory to write: config.json, log.csv, checkpoints/."""
    preset: Literal[(*configs.PRESETS, *configs.STAGES)] | None = None  # type: ignore[valid-type]
    """The recipe to begin from."""
    begins: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """The run whose model a second stage is put on, or that is tuned."""
    method: configs.MethodName | None = None
    """How it is tuned: by a narrow network beside it, wholly, or by few parameters within it."""
    steps: int | None = None
    """How many steps to train."""
    seconds: float | None = None
    """How long to train instead, compilation included."""
    seed: int | None = None
    """Of parameters, noise and the order of the data."""
    resume: bool = False
    """Go on with the run in --out, or begin if there is none."""
    overwrite: bool = False
    """Begin anew in --out, whose run is removed."""
    dry_run: bool = False
    """Print the resolved configuration, train nothing."""
    together: Annotated[TogetherFlags, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=TogetherFlags
    )
    config: Annotated[Config, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Config)


def main(arguments: Sequence[str]) -> int:
    """Runs the command; see `jaxdiff.cli.main`."""
    base, stored = _base(list(arguments))
    args = tyro.cli(
        tyro.conf.AvoidSubcommands[Train],
        prog="jaxdiff train",
        args=arguments,
        default=Train(data=tyro.MISSING, config=base),
    )
    use_cores(args.config, args.together.processes)
    args.together.join(args)
    return train(args, base, stored)


def train(args: Train, base: Config, stored: Config | None) -> int:
    """Trains as the flags say, or shows what they resolve to.

    Args:
        args: the flags.
        base: the configuration that they changed.
        stored: that of the run, where one is resumed.

    Returns:
        The exit status.
    """
    config, dataset = build.build_data(_resolved(args, base))
    if stored is not None:
        _check_unchanged(stored, config)
    if args.out is None and not args.dry_run:
        raise ValueError("--out RUN is needed: the directory to write the run to")
    replaced = {"out": None} if args.overwrite else {}
    training.check(**{**_call(args, config), **replaced})
    _check_watching(config)
    if config.tuning.method is None and config.tuning != configs.TuningConfig():
        raise ValueError("--tuning.* are of a trained network: give --from RUN and --method")
    build.build_step(config, build.build_mesh(config))
    if args.out is not None:
        rundir.check_writable(args.out)
    abstract = build.check(config, dataset.batch_at(0))
    first = stages.source(args.out, config, abstract, resume=args.resume)
    if args.dry_run:
        sys.stdout.write(f"{json.dumps(configs.to_json(config), indent=2)}\n")
        return 0
    if args.overwrite:
        distributed.by_first(lambda: rundir.clear(args.out))
    console = Console(stderr=True, quiet=not distributed.is_first())
    size = build.count_parameters(abstract.params)
    trained = build.count_trained(config, abstract.params)
    parameters = (
        f"{size:,} parameters" if trained == size else f"{trained:,} of {size:,} parameters"
    )
    what = "examples" if config.data.latents is None else "latents"
    say(
        console,
        f"{len(dataset)} {what} {list(config.data.shape)} of {args.data}, preset "
        f"{config.preset}, {parameters}, {jax.device_count()} x {jax.default_backend()}",
    )
    return _run(args, config, dataset, first, console)


def _check_watching(config: Config) -> None:
    """Raises what could only be seen at the first checkpoint."""
    part = config.training
    for name in ("heldout", "samples"):
        if getattr(part, name) < 1:
            raise ValueError(f"--training.{name} must be at least 1, got {getattr(part, name)}")
    if part.best is not None and not part.evaluate:
        raise ValueError(f"--training.best {part.best} needs --training.evaluate")
    if part.best == "frechet" and part.samples < monitor.ENOUGH:
        raise ValueError(
            f"--training.best frechet needs --training.samples of {monitor.ENOUGH} or more, got"
            f" {part.samples}"
        )


def _base(arguments: list[str]) -> tuple[Config, Config | None]:
    """The configuration that flags override; and the run's own, where one is resumed.

    The flags there are depend on it (networks have different fields), so it is found out before
    they are parsed.
    """
    named, stored = value_of("--preset", arguments), resumed(arguments)
    begins, method = value_of("--from", arguments), value_of("--method", arguments)
    if stored is not None:
        held = configs.holds(stored.model)
        if held != configs.A_MODEL:
            raise ValueError(f"--out holds {held}: jaxdiff {stored.preset} resumes it")
        if named not in (None, stored.preset):
            raise ValueError(f"--preset {named}: the run was begun with preset {stored.preset}")
        stages.check_same(stored, begins, method)
        return stored, stored
    if method is not None:
        return stages.tuned(method, named, begins), None
    if begins is not None or named in configs.STAGES:
        return stages.base(named, begins), None
    if named is not None:
        return configs.preset(named), None
    if not arguments or arguments[0].startswith("-"):
        if "--help" in arguments or "-h" in arguments:
            return configs.preset("digits"), None
        raise ValueError("DATA comes first: jaxdiff train DATA --out RUN ...; or see --help")
    size = value_of("--data.size", arguments)
    shape = data.example_shape(arguments[0], size=int(size) if (size or "").isdecimal() else None)
    latents = value_of("--data.latents", arguments)
    if latents is not None:
        return configs.preset(configs.preset_for_latents(read_shape(Path(latents)))), None
    return configs.preset(configs.preset_for(shape)), None


def resumed(arguments: list[str]) -> Config | None:
    """The configuration of the run in --out, where --resume finds one."""
    out = value_of("--out", arguments)
    if "--resume" not in arguments or not out:
        return None
    if (Path(out) / "config.json").is_file():
        return runs.read_config(Path(out))[0]
    step = training.latest_step(rundir.checkpoints(out))
    if step is None:
        return None
    # Each checkpoint has it, too.
    return configs.from_json(training.checkpoint.read_meta(rundir.checkpoints(out), step)["config"])


def value_of(flag: str, arguments: list[str]) -> str | None:
    """What follows a flag, before the flags are parsed."""
    for here, there in itertools.pairwise([*arguments, None]):
        if here == flag:
            return there
        if here.startswith(f"{flag}="):
            return here.removeprefix(f"{flag}=")
    return None


def _resolved(args: Train, base: Config) -> Config:
    """The configuration with the short flags in it."""
    if args.steps is not None and args.seconds is not None:
        raise ValueError(f"give --steps or --seconds, got both: {args.steps} and {args.seconds}")
    changed: dict[str, Any] = {} if args.seed is None else {"seed": args.seed}
    changed |= _length(args, base)
    if args.resume and args.overwrite:
        raise ValueError("--resume goes on with a run, --overwrite removes it: give one of them")
    config, coder = args.config, args.config.data.latents
    if None not in (args.out, coder) and args.out.resolve() == Path(coder).resolve():
        raise ValueError(f"--out must be another directory than --data.latents, got {coder}")
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, source=args.data),
        training=dataclasses.replace(config.training, **changed),
    )


def _length(args: Train, base: Config) -> dict[str, Any]:
    """Steps or seconds, where a flag says so, whichever its name: the one takes the other's place.

    Given both by their dotted names, both stay, and are refused later.
    """
    given = {"steps": args.steps, "seconds": args.seconds}
    if given == {"steps": None, "seconds": None}:
        now, before = args.config.training, base.training
        for name in given:
            value = getattr(now, name)
            given[name] = value if value != getattr(before, name) else None
    return given if any(value is not None for value in given.values()) else {}


def _check_unchanged(stored: Config, config: Config) -> None:
    seconds = config.training.seconds
    if seconds not in (None, stored.training.seconds):
        raise ValueError(
            f"a resumed run keeps its number of steps, --steps moves it; got --seconds {seconds:g}"
        )
    changed = configs.changes(stored, config).items()
    fixed = [f"{name} {old} -> {new}" for name, (old, new) in changed if not name.startswith(_FREE)]
    if fixed:
        raise ValueError(f"a resumed run keeps its configuration, got {'; '.join(fixed)}")


def _call(args: Train, config: Config) -> dict[str, Any]:
    """The arguments of `training.fit` that say how long and where to."""
    part = config.training
    return {
        "steps": part.steps,
        "seconds": part.seconds,
        "out": args.out,
        "resume": args.resume,
        "log_every": part.log_every,
        "save_every": part.save_every,
        "keep": part.keep,
        "explode": part.explode,
    }


def _run(
    args: Train, config: Config, dataset: Any, first: runs.Run | None, console: Console
) -> int:
    """Trains, and says what came of it."""
    part = config.training
    mesh = build.build_mesh(config)
    layout = build.build_layout(config, mesh)
    own = dataset
    if jax.process_count() > 1:
        own = dataset.with_share(jax.process_index(), jax.process_count())
    with interrupt.catch() as caught, data.prefetch(own, ahead=_ahead(own)) as batches:
        step = build.build_step(config, mesh)
        make = functools.partial(build.build_state, config)
        straight = layout is not None and first is None  # no device ever holds all of it
        state = jax.jit(make, out_shardings=layout(jax.eval_shape(make)) if straight else None)()
        if first is not None:
            state = stages.begun(state, first)
        done = training.fit(
            step,
            state,
            batches,
            **_call(args, config),
            config=configs.to_json(config),
            evaluate=monitor.Monitor(config, args.out) if part.evaluate else None,
            best=part.best,
            tensorboard=part.tensorboard,
            mesh=mesh,
            layout=layout,
            caught=caught,
        )
        if done.signal is None and distributed.is_first():
            dtype = getattr(config.model, "dtype", None) or "float32"
            _say_pace(console, done, step, state, dataset.batch_at(0), mesh, dtype)
    return _say_end(args, config, done, console)


def _ahead(dataset: Any) -> int:
    """How many batches are made in the background: those of data in memory take no time."""
    return 0 if dataset.in_memory else 2


def _say_pace(
    console: Console, done: Any, step: Any, state: Any, batch: Any, mesh: Any, dtype: str
) -> None:
    """How fast it went, where enough steps were made to know."""
    pace = speed.of(done.history, len(batch["x"]))
    if pace is None:
        return
    flops = speed.flops(step, state, batch)
    shared = mesh is None or jax.default_backend() == "cpu"  # whose devices share the cores
    rate = speed.matmul_rate(dtype) * (1 if shared else mesh.size)
    share = flops / pace.step_seconds / rate
    say(
        console,
        f"{1e3 * pace.step_seconds:.3g} ms a step, {pace.examples_per_second:,.0f} examples/s,"
        f" {100 * share:.0f} % of the rate of matrix products here ({rate / 1e9:,.0f} GFLOP/s)",
    )


def _say_end(args: Train, config: Config, done: Any, console: Console) -> int:
    number = int(done.state.step)
    if done.signal is not None:
        name = signal.Signals(done.signal).name
        say(console, f"{name}: saved at step {number}; --resume goes on")
        return 130 if done.signal == signal.SIGINT else 0
    rows = rundir.read_log(args.out)
    last = rows[-1] if rows else {"seconds": math.nan, "loss": math.nan}
    say(
        console,
        f"{number} steps in {last['seconds']:.0f} s, loss {last['loss']:.4f}, in {args.out}",
        f"next: jaxdiff {runs.next_command(args.out, config)}",
    )
    return 0
