"""What a training writes: config, logs and checkpoints; nothing where there is no directory.

Of several processes the first one writes; of checkpoints each writes its own part.
"""

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.training import checkpoint, distributed, rundir, snapshots, tensorboard
from jaxdiff.training.comparison import config_differences
from jaxdiff.training.record import Record
from jaxdiff.training.state import TrainState

__all__ = ["Artifacts", "Evaluate"]

Evaluate = Callable[[TrainState], Mapping[str, float]]
"""From a state to numbers by name."""


class Artifacts:
    """The files of one run; `opened` makes it.

    Attributes:
        seconds: how long the run had trained before.
        first_loss: the loss in the first row of its log, None if there is none.
    """

    def __init__(self, out: Path | None, config: Mapping[str, Any], best: str | None):
        """Of a run in `out`, None for none, as yet closed."""
        self._out, self._config, self._best = out, config, best
        self._checkpoints: checkpoint.Checkpoints | None = None
        self._log: rundir.CsvLog | None = None
        self._evaluations: rundir.CsvLog | None = None
        self._board: tensorboard.Board | None = None
        self._newest: int | None = None
        self.seconds = 0.0
        self.first_loss: float | None = None

    @classmethod
    @contextlib.contextmanager
    def opened(
        cls,
        out: str | Path | None,
        config: Mapping[str, Any] | None,
        *,
        keep: int,
        best: str | None,
        tensorboard: bool,
    ) -> Iterator[Self]:
        """Opens them; closing waits for the checkpoints under way."""
        files = cls(None if out is None else Path(out), dict(config or {}), best)
        if files._out is None:
            yield files
            return
        with contextlib.ExitStack() as stack:
            distributed.by_first(lambda: files._begin(stack, tensorboard))
            newest = distributed.from_first(files._newest)
            files._newest = None if newest is None else int(newest)
            files.first_loss = distributed.from_first(files.first_loss)
            store = checkpoint.Checkpoints(
                rundir.checkpoints(files._out), keep=keep, keep_best=int(best is not None)
            )
            files._checkpoints = stack.enter_context(store)
            yield files

    def _begin(self, stack: contextlib.ExitStack, tensorboard: bool) -> None:
        """Finds where to go on, puts aside what is in the way, and opens the tables."""
        folder = rundir.checkpoints(self._out)
        stack.enter_context(rundir.locked(self._out))
        self._newest = newest = checkpoint.sound_step(folder)
        if newest is None and checkpoint.finished_steps(folder):
            raise ValueError(
                f"no checkpoint in {folder} is sound: see the warning; to begin anew, name"
                " another directory or remove the run"
            )
        checkpoint.set_aside(folder, newest)
        step = newest or 0
        snapshots.drop_after(rundir.averages(self._out), step)
        log = rundir.CsvLog(rundir.log(self._out), step=step)
        evaluations = rundir.CsvLog(rundir.evaluations(self._out), step=step)
        self._log, self._evaluations = stack.enter_context(log), stack.enter_context(evaluations)
        if tensorboard:
            self._board = stack.enter_context(_board(self._out, step))
        self.seconds, self.first_loss = self._log.seconds, self._log.first_loss

    @property
    def resumed(self) -> bool:
        """Whether there is a checkpoint."""
        return self._newest is not None

    def restored(self, state: TrainState) -> TrainState:
        """The newest sound checkpoint's state, `state` itself if there is none.

        Where the configuration was another one, a warning lists what differs.
        """
        if self._checkpoints is None or self._newest is None:
            return state
        directory = self._checkpoints.directory
        before = checkpoint.read_meta(directory, self._newest)["config"]
        changed = config_differences(before, self._config)
        if changed and distributed.is_first():
            warnings.warn(f"the run goes on with another config: {changed}", stacklevel=3)
        return checkpoint.restore(directory, state, self._newest)

    def plan(self, state: TrainState, total: float) -> TrainState:
        """Fixes the number of steps, in config.json and in the state that is returned."""
        if self._out is not None and distributed.is_first():
            rundir.write_config(self._out, self._config, int(total) if total < math.inf else None)
        # full_like keeps the leaf where it lies, so that the step is not compiled again.
        hyper = {**state.hyper, "steps": jnp.full_like(state.hyper["steps"], total)}
        return TrainState(**{**vars(state), "hyper": hyper})

    def write(self, record: Record) -> None:
        """Appends a row to the log."""
        try:
            row = record.row()
        except FloatingPointError as error:
            raise FloatingPointError(f"{error}; {self._kept()}") from error
        if row is None:
            return
        if self._log is not None:
            self._log.write(row)
        if self._board is not None:
            self._board.write("train", row)

    def save(self, record: Record, state: TrainState, step: int, evaluate: Evaluate | None) -> None:
        """Saves a checkpoint, once it is known that all up to it was finite."""
        self.write(record)
        if self._checkpoints is None or step == self._newest:
            return
        if not _is_finite(state):
            raise FloatingPointError(f"parameters are not finite at step {step}; {self._kept()}")
        looked_at = evaluate is not None or snapshots.are_of(state)
        alone, score = distributed.local(state) if looked_at else None, None
        try:
            if evaluate is not None and distributed.is_first():
                score = self._evaluated(record, evaluate(alone), step)
        finally:  # the state is sound, whatever came of looking at it
            self._checkpoints.save(step, state, self._config, score=score)
            self._newest = step
            if looked_at and distributed.is_first():
                snapshots.write(rundir.averages(self._out), alone)

    def _evaluated(self, record: Record, values: Mapping[str, float], step: int) -> float | None:
        """Logs an evaluation; its score, if there is one."""
        if self._best is not None and self._best not in values:
            raise ValueError(f"best must be one of {', '.join(values)}, got {self._best!r}")
        rundir.check_names(values)
        numbers = {name: float(value) for name, value in values.items()}
        row = {"step": step, "seconds": record.seconds(), **numbers}
        if self._evaluations is not None:
            self._evaluations.write(row)
        if self._board is not None:
            self._board.write("evaluation", row)
        return None if self._best is None else numbers[self._best]

    def _kept(self) -> str:
        kept = f"that of step {self._newest}" if self.resumed else "none"
        return f"the last good checkpoint is {kept}"


def _board(out: Path, step: int) -> tensorboard.Board:
    return tensorboard.Board(rundir.tensorboard(out), step=step)


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def _is_finite(state: TrainState) -> bool:
    """Whether all parameters are, which a finite loss at the last step does not say."""
    floats = [a for a in jax.tree.leaves(state.params) if jnp.issubdtype(a.dtype, np.inexact)]
    return not floats or bool(_all_finite(floats))
