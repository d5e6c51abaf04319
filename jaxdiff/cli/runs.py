"""Opening a run directory to read from it."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxdiff import config as configs
from jaxdiff import training
from jaxdiff.config import Config, build
from jaxdiff.config.fields import DataConfig
from jaxdiff.data import readers
from jaxdiff.training import rundir

__all__ = ["Run", "check_average", "open_run", "other_data", "read_config", "weights"]


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


def read_config(path: Path) -> tuple[Config, int | None]:
    """A run's configuration, and the number of steps it goes to, None while unknown.

    Raises:
        FileNotFoundError: it is no run directory.
        ValueError: its configuration is damaged or of another version.
    """
    values, total = rundir.read_config(path)
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


def check_average(*, raw: bool, ema: float | None) -> None:
    """Raises ValueError where flags ask for an average and for none."""
    if raw and ema is not None:
        raise ValueError(f"--raw is without an average, got --ema {ema:g} as well")


def weights(config: Config, state: training.TrainState, *, raw: bool, ema: float | None) -> Any:
    """The parameters that flags ask for: themselves, or an average of theirs."""
    check_average(raw=raw, ema=ema)
    return state.params if raw else build.averaged(config, state, ema)
