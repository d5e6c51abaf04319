"""From metrics on the device to rows of a log."""

import math
import time
from typing import Any

import jax
import numpy as np

from jaxdiff.training import rundir

__all__ = ["Record"]

# Steps that may be under way: enough to keep a device busy, few enough that a signal is obeyed
# within them and that the bar tells the truth.
_AHEAD = 2


class Record:
    """Collects the metrics of steps; a row is their mean since the last row.

    Attributes:
        history: the rows so far.
        loss: the last row's, None before the first.
    """

    def __init__(
        self,
        step: int,
        seconds: float = 0.0,
        *,
        first_loss: float | None = None,
        explode: float = math.inf,
    ):
        """Begins after `step` steps and `seconds` of training.

        A row whose loss is above `explode` times first_loss, where that is positive, is a
        failure; the first row's own loss takes its place where it is not known.
        """
        self._first_loss, self._explode = first_loss, explode
        self._step, self._began = step, time.monotonic() - seconds
        self._pending: list[dict[str, Any]] = []
        self.history: list[dict[str, float]] = []
        self.loss: float | None = None

    def add(self, metrics: dict[str, Any]) -> None:
        """Takes the metrics of one more step; waits for those of the one before the last."""
        if "loss" not in metrics:
            raise ValueError(f"metrics must hold loss, got {', '.join(metrics) or 'none'}")
        rundir.check_names(metrics)
        shaped = {name: np.shape(value) for name, value in metrics.items() if np.shape(value)}
        if shaped:
            raise ValueError(f"metrics must be scalars, got shapes {shaped}")
        self._pending.append(metrics)
        if len(self._pending) > _AHEAD:
            jax.block_until_ready(self._pending[-1 - _AHEAD])

    def seconds(self) -> float:
        """How long the run has trained."""
        return round(time.monotonic() - self._began, 3)

    def row(self) -> dict[str, float] | None:
        """The mean over the steps since the last row, None if there were none.

        Raises:
            FloatingPointError: the loss or the gradient of one of them is not finite, or their
                mean loss has exploded.
        """
        if not self._pending:
            return None
        steps, self._pending = jax.device_get(self._pending), []
        for number, metrics in enumerate(steps, self._step + 1):
            for name in ("loss", "grad_norm"):
                if not np.isfinite(metrics.get(name, 0)):
                    raise FloatingPointError(f"{name} is {metrics[name]} at step {number}")
        self._step += len(steps)
        means = {name: float(np.mean([m[name] for m in steps])) for name in sorted(steps[0])}
        if self._first_loss is None:
            self._first_loss = means["loss"]
        if means["loss"] > self._explode * self._first_loss > 0:
            raise FloatingPointError(
                f"loss is {means['loss']:.4g} at step {self._step}, above {self._explode:g} times"
                f" the {self._first_loss:.4g} that it began with"
            )
        row = {"step": self._step, "seconds": self.seconds(), "loss": means["loss"], **means}
        self.history.append(row)
        self.loss = row["loss"]
        return row
