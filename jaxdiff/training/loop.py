"""The loop around the step: batches, log, checkpoints, signals, and an end in time.

The step is compiled once and called from Python, its state donated; the host looks at numbers at
log intervals only. Everything that decides a run's numbers is in its state, so a run that was
interrupted and resumed ends bit for bit where it would have ended.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxdiff.training import checkpoint, interrupt, progress, rundir
from jaxdiff.training.budget import Budget
from jaxdiff.training.record import Record
from jaxdiff.training.state import TrainState

__all__ = ["Batches", "Fit", "check", "fit"]


class Batches(Protocol):
    """What `fit` needs of a data set."""

    def batch_at(self, step: int) -> Any:
        """The batch of a step: a pure function of it (and of the data set's seed)."""
        ...


class Fit(NamedTuple):
    """What a training ended with.

    Attributes:
        state: the last state.
        history: the rows of the log since the start or the resume: "step", "seconds", metrics.
        signal: the signal that stopped it early, None if it went to its end.
    """

    state: TrainState
    history: list[dict[str, float]]
    signal: int | None


def fit(
    train_step: Callable[[TrainState, Any], tuple[TrainState, dict[str, Any]]],
    state: TrainState,
    dataset: Batches,
    *,
    steps: int | None = None,
    seconds: float | None = None,
    out: str | Path | None = None,
    config: Mapping[str, Any] | None = None,
    resume: bool = False,
    log_every: int = 50,
    save_every: int = 1000,
    keep: int = 3,
    place: Callable[[Any], Any] = lambda batch: batch,
    show: bool = True,
) -> Fit:
    """Trains one member for a number of steps, or for a time.

    The state's hyper["steps"], over which the learning rate decays, becomes the number of steps.
    Given seconds, that number is measured (see `budget`); config.json and checkpoints hold it.

    Args:
        train_step: pure `(state, batch) -> (state, metrics)`, metrics scalars; it is jitted here.
        state: where to begin; not consumed.
        dataset: `batch_at(step)` gives the batch of a step.
        steps: the total number of steps, counted from the run's very beginning; not fewer than
            a resumed run has made.
        seconds: instead of `steps`, how long to train, compilation included. A resumed run goes
            on to the number of steps that was measured before.
        out: the run directory; None writes nothing.
        config: JSON values that are written beside the checkpoints.
        resume: go on from the newest checkpoint in `out`, or begin if there is none.
        log_every: steps between rows of the log, each the mean over its steps.
        save_every: steps between checkpoints; one more is saved at the end and on a signal.
        keep: how many of the newest checkpoints stay.
        place: puts a batch on its devices, where jit's own way will not do.
        show: whether to draw a progress bar on stderr.

    Returns:
        A Fit: the last state, the log, the signal that ended it if one did.

    Raises:
        ValueError: arguments contradict each other, `out` holds a run that is not to be resumed,
            or its checkpoint does not fit `state`.
        FloatingPointError: the loss or the gradient stopped being finite.
    """
    check(
        steps=steps,
        seconds=seconds,
        out=out,
        resume=resume,
        log_every=log_every,
        save_every=save_every,
        keep=keep,
    )
    budget = Budget(seconds, time.monotonic()) if seconds is not None else None
    with contextlib.ExitStack() as stack:
        files = stack.enter_context(_Files.opened(out, config, keep))
        # The step donates its state; the caller's stays whole.
        state = files.restored(jax.tree.map(jnp.copy, state))
        step, total = int(state.step), steps or math.inf
        if budget is not None and files.resumed and math.isfinite(state.hyper["steps"]):
            budget, total = None, int(state.hyper["steps"])
        state = files.plan(state, total)
        record = Record(step, files.seconds)
        bar = stack.enter_context(progress.Bar(step, total)) if show else None
        caught = stack.enter_context(interrupt.catch())
        jitted = jax.jit(train_step, donate_argnums=0)
        while step < total and caught.signal is None:
            state, metrics = jitted(state, place(dataset.batch_at(step)))
            step += 1
            record.add(metrics)
            if budget is not None and budget.is_due(time.monotonic()):
                jax.block_until_ready(metrics)
                total = budget.measure(step, time.monotonic())
                state = files.plan(state, total)
            if step % log_every == 0:
                files.write(record)
            if step % save_every == 0:
                files.save(record, state, step)
            if bar is not None:
                bar.update(step, total, record.loss)
        files.save(record, state, step)
    return Fit(state, record.history, caught.signal)


def check(
    *,
    steps: int | None = None,
    seconds: float | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    log_every: int = 50,
    save_every: int = 1000,
    keep: int = 3,
) -> None:
    """Raises what `fit` raises of these arguments, before a state is built or compiled."""
    if (steps is None) == (seconds is None):
        raise ValueError(f"give either steps or seconds, got steps={steps}, seconds={seconds}")
    counts = {"steps": steps, "log_every": log_every, "save_every": save_every, "keep": keep}
    for name, value in counts.items():
        if value is not None and (value < 1 or value != int(value)):
            raise ValueError(f"{name} must be a positive whole number, got {value}")
    if seconds is not None and not 0 < seconds < math.inf:
        raise ValueError(f"seconds must be positive and finite, got {seconds}")
    if resume and out is None:
        raise ValueError("resume=True needs out, the run directory to go on with, got None")
    if out is None:
        return
    rundir.check_writable(out)
    newest = checkpoint.latest_step(rundir.checkpoints(out))
    if newest is not None and not resume:
        raise ValueError(
            f"out={out} holds a run of {newest} steps: resume it, or name another directory"
        )
    if None not in (newest, steps) and steps < newest:
        raise ValueError(f"the run in {out} has made {newest} steps already, got steps={steps}")


class _Files:
    """What a run writes: config, log and checkpoints; nothing where there is no directory."""

    def __init__(self, out: Path | None, config: Mapping[str, Any]):
        self._out, self._config = out, config
        self._checkpoints: checkpoint.Checkpoints | None = None
        self._log: rundir.CsvLog | None = None
        self._newest: int | None = None
        self.seconds = 0.0

    @classmethod
    @contextlib.contextmanager
    def opened(cls, out, config, keep: int) -> Iterator["_Files"]:
        """Opens them; closing waits for the checkpoints under way."""
        files = cls(None if out is None else Path(out), dict(config or {}))
        if files._out is None:
            yield files
            return
        folder = rundir.checkpoints(files._out)
        files._newest = newest = checkpoint.latest_step(folder)
        with (
            checkpoint.Checkpoints(folder, keep=keep) as files._checkpoints,
            rundir.CsvLog(files._out, step=newest or 0) as files._log,
        ):
            files.seconds = files._log.seconds
            yield files

    @property
    def resumed(self) -> bool:
        """Whether there is a checkpoint."""
        return self._newest is not None

    def restored(self, state: TrainState) -> TrainState:
        """The newest checkpoint's state, `state` itself if there is none."""
        if self._checkpoints is None or self._newest is None:
            return state
        return checkpoint.restore(self._checkpoints.directory, state, self._newest)

    def plan(self, state: TrainState, total: float) -> TrainState:
        """Fixes the number of steps, in config.json and in the state that is returned."""
        if self._out is not None:
            rundir.write_config(self._out, self._config, int(total) if total < math.inf else None)
        # full_like keeps the leaf where it lies, so that the step is not compiled again.
        hyper = {**state.hyper, "steps": jnp.full_like(state.hyper["steps"], total)}
        return TrainState(**{**vars(state), "hyper": hyper})

    def write(self, record: Record) -> None:
        """Appends a row to the log."""
        try:
            row = record.row()
        except FloatingPointError as error:
            kept = f"that of step {self._newest}" if self.resumed else "none"
            raise FloatingPointError(f"{error}; the last good checkpoint is {kept}") from error
        if self._log is not None and row is not None:
            self._log.write(row)

    def save(self, record: Record, state: TrainState, step: int) -> None:
        """Saves a checkpoint, once it is known that all steps up to it were finite."""
        self.write(record)
        if self._checkpoints is not None and step != self._newest:
            self._checkpoints.save(step, state, self._config)
            self._newest = step
