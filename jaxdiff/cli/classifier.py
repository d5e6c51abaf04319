"""`jaxdiff classifier`: from labelled data to a classifier of noisy images, for guidance."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from jaxdiff import config as configs
from jaxdiff.cli import recipes, train
from jaxdiff.cli.together import TogetherFlags, use_cores

__all__ = ["main"]


@dataclasses.dataclass(frozen=True)
class Parts:
    """What of a configuration a classifier has."""

    data: configs.DataConfig
    model: configs.ClassifierConfig
    schedule: configs.ScheduleConfig
    optimizer: configs.OptimizerConfig
    training: configs.TrainingConfig


@dataclasses.dataclass(frozen=True)
class Train:
    """Train a classifier of noisy images on DATA, into a run directory.

    DATA is as in `jaxdiff train`, with labels. What it learns is told the ratio of signal to
    noise alone: `jaxdiff sample RUN --classifier` guides a model of any schedule with it.
    """

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """"digits" or a path."""
    out: Path | None = None
    """The run directory to write: config.json, log.csv, checkpoints/."""
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
    parts: Annotated[Parts, tyro.conf.arg(name="")] = tyro.MISSING


def main(arguments: Sequence[str]) -> int:
    """Runs the command; see `jaxdiff.cli.main`."""
    stored = train.resumed(list(arguments))
    base = stored or configs.CLASSIFIER
    if not isinstance(base.model, configs.ClassifierConfig):
        raise ValueError(f"--out holds {configs.holds(base.model)}: jaxdiff train resumes it")
    flags, config = recipes.parse(Train, Parts, base, "jaxdiff classifier", arguments)
    whole = train.Train(**flags, config=config)
    use_cores(config, whole.together.processes)
    whole.together.join(whole)
    return train.train(whole, base, stored)
