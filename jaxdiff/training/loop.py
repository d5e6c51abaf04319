"""The loop around the step: batches, log, checkpoints, signals, and an end in time.

The step is compiled once and called from Python, its state donated; the host looks at numbers at
log intervals only. Everything that decides a run's numbers is in its state, so a run that was
interrupted and resumed ends bit for bit where it would have ended.
"""

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxdiff.training import checkpoint, distributed, interrupt, parallel, progress, rundir
from jaxdiff.training.artifacts import Artifacts, Evaluate
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
    evaluate: Evaluate | None = None,
    best: str | None = None,
    tensorboard: bool = False,
    explode: float = 100.0,
    mesh: Mesh | None = None,
    layout: Callable[[Any], Any] | None = None,
    caught: interrupt.Interrupt | None = None,
    show: bool = True,
) -> Fit:
    """Trains one member for a number of steps, or for a time.

    The state's hyper["steps"], over which the learning rate decays, becomes the number of steps.
    Given seconds, that number is measured (see `budget`); config.json and checkpoints hold it.

    Args:
        train_step: pure `(state, batch) -> (state, metrics)`, metrics scalars,
            "loss" among them and "step" and "seconds" not; it is jitted here.
        state: where to begin; not consumed.
        dataset: `batch_at(step)` gives the batch of a step; to each of several processes its own
            part (see `Dataset.with_share`).
        steps: the total number of steps, counted from the run's very beginning; not fewer than
            a resumed run has made.
        seconds: instead of `steps`, how long to train, compilation included, in one process. A
            resumed run goes on to the number of steps that was measured before.
        out: the run directory; None writes nothing.
        config: JSON values that are written beside the checkpoints.
        resume: go on from the newest checkpoint in `out`, or begin if there is none.
        log_every: steps between rows of the log, each the mean over its steps.
        save_every: steps between checkpoints; one more is saved at the end and on a signal.
        keep: how many of the newest checkpoints stay.
        evaluate: `state -> {name: number}`, asked at each checkpoint; rows of evaluation.csv.
        best: the entry of it whose lowest value so far names a checkpoint that stays as well.
        tensorboard: whether to write log and evaluation for TensorBoard, too.
        explode: a row of the log whose loss is this many times that of the run's first, where
            that is positive, is a failure; infinity for never.
        mesh: the devices that batches are split over (see `parallel`); the first one if None.
        layout: from a state to the sharding of each leaf on `mesh` (see `sharding`); a copy on each
            device if None.
        caught: signals caught since before; SIGTERM and Ctrl-C are caught here if None. Of
            several processes all stop at the next row of the log, whichever was told to.
        show: whether to draw a progress bar on stderr.

    Returns:
        A Fit: the last state, the log, the signal that ended it if one did.

    Raises:
        ValueError: arguments contradict each other, `out` holds a run that is not to be resumed,
            or its checkpoint does not fit `state`.
        FloatingPointError: the loss or the gradient stopped being finite, or the loss exploded;
            the message names the step, and the last good checkpoint, which stays.
        OSError: something could not be written.
        ConnectionError: another process was lost.
    """
    check(
        steps=steps,
        seconds=seconds,
        out=out,
        resume=resume,
        log_every=log_every,
        save_every=save_every,
        keep=keep,
        explode=explode,
        best=best if evaluate is None else None,
    )
    if out is None and (evaluate is not None or tensorboard):
        raise ValueError("evaluate and tensorboard need out, the directory to write to, got None")
    budget = Budget(seconds, time.monotonic()) if seconds is not None else None
    with contextlib.ExitStack() as stack, distributed.noticed():
        # The step donates its state; the caller's stays whole.
        where = None if layout is None else layout(state)
        state = jax.tree.map(jnp.copy, state)
        state = parallel.replicate(state, mesh) if where is None else distributed.laid(state, where)
        files = stack.enter_context(
            Artifacts.opened(out, config, keep=keep, best=best, tensorboard=tensorboard)
        )
        state = files.restored(state)
        step, total = int(state.step), steps or math.inf
        if budget is not None and files.resumed and math.isfinite(state.hyper["steps"]):
            budget, total = None, int(state.hyper["steps"])
        state = files.plan(state, total)
        record = Record(step, files.seconds, first_loss=files.first_loss, explode=explode)
        shown = show and distributed.is_first()
        bar = stack.enter_context(progress.Bar(step, total)) if shown else None
        caught = caught or stack.enter_context(interrupt.catch())
        stop = _told(caught, step, log_every)
        jitted = parallel.jit_step(train_step, mesh, where)
        while step < total and stop is None:
            state, metrics = jitted(state, parallel.split(dataset.batch_at(step), mesh))
            step += 1
            record.add(metrics)
            if budget is not None and budget.is_due(time.monotonic()):
                jax.block_until_ready(metrics)
                total = budget.measure(step, time.monotonic())
                state = files.plan(state, total)
            if step % log_every == 0:
                files.write(record)
            if step % save_every == 0 and step < total:
                files.save(record, state, step, evaluate)
            if bar is not None:
                bar.update(step, total, record.loss)
            stop = _told(caught, step, log_every)
        files.save(record, state, step, evaluate if stop is None else None)
    return Fit(state, record.history, stop)


def _told(caught: interrupt.Interrupt, step: int, every: int) -> int | None:
    """The signal to stop by, if one came; of several processes all must agree on it."""
    if jax.process_count() == 1:
        return caught.signal
    return None if step % every else distributed.largest(caught.signal or 0) or None


def check(
    *,
    steps: int | None = None,
    seconds: float | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    log_every: int = 50,
    save_every: int = 1000,
    keep: int = 3,
    explode: float = 100.0,
    best: str | None = None,
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
    if seconds is not None and jax.process_count() > 1:
        raise ValueError(
            "seconds are for one process: clocks and paces of several differ; give steps"
        )
    if not explode > 1:
        raise ValueError(f"explode must be above 1, got {explode}")
    if best is not None:
        raise ValueError(f"best={best!r} needs evaluate, which gives an entry of that name")
    if resume and out is None:
        raise ValueError("resume=True needs out, the run directory to go on with, got None")
    if out is None:
        return
    rundir.check_writable(out)
    newest = checkpoint.latest_step(rundir.checkpoints(out))
    if newest is None and (Path(out) / "config.json").is_file():
        rundir.read_config(out)  # of something else it would be written over
    if newest is not None and not resume:
        raise ValueError(
            f"out={out} holds a run of {newest} steps: resume it, or name another directory"
        )
    if None not in (newest, steps) and steps < newest:
        raise ValueError(f"the run in {out} has made {newest} steps already, got steps={steps}")
