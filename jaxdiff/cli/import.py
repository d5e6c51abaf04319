"""`jaxdiff import`: weights of others as a run directory."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from jaxdiff import config as configs
from jaxdiff import interop, training
from jaxdiff.cli import train as training_command
from jaxdiff.cli.say import say
from jaxdiff.config import build, foreign
from jaxdiff.training import rundir

__all__ = ["main"]

_PARTS = ("schedule", "parametrization", "sampling")


@dataclasses.dataclass(frozen=True)
class Import:
    """Read the weights of another library into a run directory, to be sampled, tuned or evaluated.

    FROM is a folder of diffusers (a network's, or a whole pipeline's, whose scheduler says the
    schedule), or a file of weights, .safetensors or torch's. Pickled code is refused. What a file
    of weights does not say, flags do: the schedule, what the network predicts, its heads.
    """

    begins: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FROM")]
    """The folder or the file; comes first."""
    out: Path
    """The run directory to write."""
    format: Literal[foreign.FORMATS] = "diffusers"  # type: ignore[valid-type]
    """Whose names the weights have."""
    size: int | None = None
    """adm and score_sde: the height and width of the images."""
    heads: int | None = None
    """adm: the number of attention heads, or"""
    head_channels: int | None = None
    """adm: the channels of each."""
    order: Literal["legacy", "new"] = "legacy"
    """adm: new, if it was trained with use_new_attention_order."""
    null_label: bool = False
    """adm and diffusers: the last class of a UNet stands for no label."""
    taps: tuple[float, ...] | None = None
    """score_sde: the filter of resampling, such as 1 3 3 1, where it cannot be found."""
    schedule: configs.ScheduleConfig = dataclasses.field(default_factory=configs.ScheduleConfig)
    parametrization: configs.ParametrizationConfig = dataclasses.field(
        default_factory=configs.ParametrizationConfig
    )
    sampling: configs.SamplingConfig = dataclasses.field(default_factory=configs.SamplingConfig)


def main(arguments: Sequence[str]) -> int:
    """Runs the command; see `jaxdiff.cli.main`."""
    given = list(arguments)
    kind = training_command.value_of("--format", given) or "diffusers"
    if not given or (given[0].startswith("-") and not {"--help", "-h"} & set(given)):
        raise ValueError("FROM comes first: jaxdiff import FROM --out RUN ...; or see --help")
    stated = training_command.value_of("--schedule.name", given) is not None
    base = foreign.base(kind, Path(given[0]), stated=stated)
    parts = {name: getattr(base, name) for name in _PARTS}
    default = Import(begins=tyro.MISSING, out=tyro.MISSING, **parts)
    args = tyro.cli(Import, prog="jaxdiff import", args=arguments, default=default)
    base = dataclasses.replace(base, **{name: getattr(args, name) for name in _PARTS})
    training.check(steps=1, out=args.out)
    found = _read(args)
    config, params = foreign.adopted(base, found, args.begins)
    state = foreign.state(config, params)
    values = configs.to_json(config)
    args.out.mkdir(parents=True, exist_ok=True)
    with rundir.locked(args.out):
        rundir.write_config(args.out, values)
        with training.Checkpoints(rundir.checkpoints(args.out)) as store:
            store.save(0, state, values)
    say(
        Console(stderr=True),
        f"{type(found.net).__name__} of {build.count_parameters(params):,} parameters on images "
        f"{list(found.shape)}, {config.parametrization.name} over {config.schedule.name}, in "
        f"{args.out}",
        f"next: jaxdiff sample {args.out} --out samples.npz --plot samples.png",
    )
    return 0


def _read(args: Import) -> interop.Network:
    """The network and its weights."""
    path = args.begins.expanduser()
    _check(args)
    if args.format == "diffusers":
        return interop.read_diffusers(path, null_label=args.null_label)
    read = interop.read_safetensors if path.suffix == ".safetensors" else interop.read_torch
    weights = read(path)
    if args.format == "edm":
        return interop.from_edm(weights)
    if args.format == "score_sde":
        return interop.from_score_sde(weights, size=args.size, taps=args.taps)
    return interop.from_adm(
        weights,
        size=args.size,
        heads=args.heads,
        head_channels=args.head_channels,
        order=args.order,
        null_label=args.null_label,
    )


def _check(args: Import) -> None:
    """Raises ValueError where flags are of another format, or one is lacking."""
    of = {
        "size": ("adm", "score_sde"),
        "heads": ("adm",),
        "head_channels": ("adm",),
        "taps": ("score_sde",),
        "null_label": ("adm", "diffusers"),
    }
    for name, formats in of.items():
        if getattr(args, name) not in (None, False) and args.format not in formats:
            flag = name.replace("_", "-")
            raise ValueError(f"--{flag} is of {' and '.join(formats)}, not of {args.format}")
    if args.order != "legacy" and args.format != "adm":
        raise ValueError(f"--order is of adm, not of {args.format}")
    if args.size is None and args.format in of["size"]:
        raise ValueError(f"--size is needed: the weights of {args.format} do not say it")
