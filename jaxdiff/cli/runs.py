"""Opening a run directory to read from it."""

from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxdiff import config as configs
from jaxdiff import training
from jaxdiff.config import Config, build
from jaxdiff.training import rundir

__all__ = ["Run", "open_run", "read_config"]


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
