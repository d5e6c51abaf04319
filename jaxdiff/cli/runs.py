"""Opening a run directory to read from it."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from jaxdiff import config as configs
from jaxdiff import training
from jaxdiff.cli.say import say
from jaxdiff.config import Config, build
from jaxdiff.config.fields import DataConfig
from jaxdiff.data import Dataset, readers
from jaxdiff.training import rundir
from jaxdiff.training.latents import Encoded

__all__ = [
    "AverageFlags",
    "Run",
    "load",
    "model_of_data",
    "next_command",
    "no_labels",
    "open_run",
    "other_data",
    "own_labels",
    "read_config",
    "single_precision",
    "weights",
]


@dataclasses.dataclass(frozen=True)
class AverageFlags:
    """Which parameters are used."""

    raw: bool = False
    """Use the parameters themselves instead of their average."""
    ema: float | None = None
    """The decay of the average to use, of those that the run keeps."""
    ema_width: float | None = None
    """The relative width of an average by a power of time to rebuild from the run's snapshots, such
    as 0.08; the run was trained with --optimizer.power-widths."""

    def check(self) -> None:
        """Raises ValueError where they contradict each other."""
        given = {"--ema": self.ema, "--ema-width": self.ema_width, "--raw": self.raw or None}
        flags = [name for name, value in given.items() if value is not None]
        if len(flags) > 1:
            raise ValueError(f"{' and '.join(flags)} say different parameters: give one of them")
        if self.ema_width is not None:
            training.ema.power(self.ema_width)

    def describe(self, config: Config) -> str:
        """In words."""
        if self.raw:
            return "raw"
        if self.ema_width is not None:
            return f"averaged, width {self.ema_width:g}"
        return f"averaged {config.optimizer.ema_decay if self.ema is None else self.ema:g}"


class Run(NamedTuple):
    """A run directory.

    Attributes:
        path: where it is.
        config: its configuration.
        total: the number of steps it goes to, None while unknown.
        abstract: shapes and dtypes of its state.
    """

    path: Path
    config: Config
    total: int | None
    abstract: Any

    def restore(self, step: int | str | None = None) -> training.TrainState:
        """The state of a checkpoint, the newest sound one unless a step, or "best", is given."""
        if step == "best":
            step = training.checkpoint.best_step(rundir.checkpoints(self.path))
            if step is None:
                raise ValueError(
                    f"no checkpoint of {self.path} has a score: train with --training.evaluate and"
                    " --training.best"
                )
        return training.restore(rundir.checkpoints(self.path), self.abstract, step)


def open_run(path: Path) -> Run:
    """Reads a run's configuration.

    Raises:
        FileNotFoundError: it is no run directory.
        ValueError: its configuration is damaged or of another version.
    """
    config, total = read_config(path)
    try:
        abstract = jax.eval_shape(lambda: build.build_state(config))
    except (ValueError, TypeError, ArithmeticError) as error:
        raise ValueError(f"{path / 'config.json'} is damaged: {error}") from error
    return Run(path, config, total, abstract)


def model_of_data(path: Path, why: str) -> Run:
    """Reads a run that must hold a model of the data, as `open_run` does.

    Args:
        path: the run directory.
        why: what another network lacks, for the message, such as "which draws nothing".

    Raises:
        ValueError: it holds another network.
    """
    run = open_run(path)
    held = configs.holds(run.config.model)
    if held != configs.A_MODEL:
        raise ValueError(f"{path} holds {held}, {why}")
    return run


def next_command(path: Path, config: Config) -> str:
    """The command that a trained run is for."""
    if isinstance(config.model, configs.AutoencoderConfig):
        return f"train {config.data.source} --data.latents {path} --out RUN"
    by = "".join(f" --sampler ddpm --variance {name}" for name in config.variance.heads[:1])
    what = f"{path}{by}"
    if isinstance(config.model, configs.ClassifierConfig):
        what = f"RUN --classifier {path} --guidance 1 --label 0"
    return f"sample {what} --out samples.npz --plot samples.png"


def read_config(path: Path) -> tuple[Config, int | None]:
    """A run's configuration, and the number of steps it goes to, None while unknown.

    Raises:
        FileNotFoundError: it is no run directory.
        ValueError: its configuration is damaged or of another version.
    """
    values, total = rundir.read_config(path)
    if "backbone" in values:
        raise ValueError(f"{path} holds a tuned classifier of texts: see jaxdiff classify")
    try:
        return configs.from_json(values), total
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path / 'config.json'} is damaged: {error}") from error


def other_data(
    part: DataConfig, source: str | None, value_range: tuple[float, float] | None
) -> DataConfig:
    """The data of a run, or those of `source` read with what options of the run's fit them.

    Args:
        part: the run's.
        source: what --data says, None for the run's own.
        value_range: what --value-range says, None for the run's own.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: a source of no known kind, or a range without a source.
    """
    if source is None:
        if value_range is not None:
            raise ValueError("--value-range is of --data, which is not given")
        return part
    known = readers.options(source)
    foreign = {"value_range": None, "size": None, "strict": False, "coarse": False}
    unfit = {name: nothing for name, nothing in foreign.items() if name not in known}
    part = dataclasses.replace(part, source=source, **unfit)
    return part if value_range is None else dataclasses.replace(part, value_range=value_range)


def weights(run: Run, state: training.TrainState, flags: AverageFlags, console: Console) -> Any:
    """The parameters that flags ask for: themselves, or an average of theirs.

    Raises:
        ValueError: flags that contradict each other, or an average that the run does not have.
    """
    flags.check()
    if flags.raw:
        return state.params
    if flags.ema_width is None:
        return build.averaged(run.config, state, flags.ema)
    gamma, step = float(training.ema.power(flags.ema_width).gamma), int(state.step)
    like = build.averaged(run.config, run.abstract)
    found, off = training.snapshots.rebuild(rundir.averages(run.path), like, gamma, step)
    say(console, f"an average of width {flags.ema_width:g}, its profile off by {off:.1%}")
    return found


def load(
    config: Config, source: str | None, value_range: tuple[float, float] | None, split: str
) -> Dataset | Encoded:
    """A part of the run's data or of others, as `other_data` has it, as the model sees them.

    Raises:
        ValueError: examples of another shape.
    """
    dataset = build.load_seen(other_data(config.data, source, value_range), split)
    if dataset.example_shape != tuple(config.data.shape):
        raise ValueError(
            f"{dataset.name} holds examples {list(dataset.example_shape)}, the model is of"
            f" {list(config.data.shape)}"
        )
    return dataset


def own_labels(config: Config, dataset: Dataset | Encoded, n: int | None) -> np.ndarray | None:
    """The labels of `dataset.images(n)`, None without any.

    Raises:
        ValueError: a label that the model does not know.
    """
    labels, classes = dataset.labels(n), len(config.data.label_counts)
    if labels is not None and labels.max() >= classes:
        raise ValueError(f"--labels must be in 0..{classes - 1}, got {labels.max()} in the data")
    return labels


def no_labels(config: Config, dataset: Dataset | Encoded, n: int | None) -> np.ndarray:
    """-1, by which a conditional model is asked without a label, for each of `dataset.images(n)`.

    Raises:
        ValueError: the model knows nothing without a label.
    """
    if config.loss.cond_dropout == 0:
        raise ValueError(
            "the model was trained with loss.cond_dropout 0, so that it knows nothing without"
            " a label: give --labels"
        )
    return np.full(len(dataset) if n is None else min(n, len(dataset)), -1, np.int32)


def single_precision(config: Config, console: Console) -> Config:
    """The configuration with a network that computes in float32."""
    dtype = getattr(config.model, "dtype", None)
    if dtype not in ("bfloat16", "float16"):
        return config
    say(console, f"the network was trained in {dtype} and is evaluated in float32")
    model = dataclasses.replace(config.model, dtype="float32")
    return dataclasses.replace(config, model=model)
