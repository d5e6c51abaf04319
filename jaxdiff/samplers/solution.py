"""What a solve returns, and how it ended: a status by name, never NaN alone."""

import enum
from typing import Any, NamedTuple

import diffrax
import numpy as np
from jax import Array

from jaxdiff import arrays

__all__ = ["Path", "Solution", "Status"]


class Status(enum.IntEnum):
    """How a solve ended."""

    SUCCESSFUL = 0
    MAX_STEPS_REACHED = 1
    STEP_UNDERFLOW = 2
    NONLINEAR_DIVERGENCE = 3
    NOT_FINITE = 4
    FAILED = 5


_ADVICE = {
    Status.MAX_STEPS_REACHED: "the solver took all of its max_steps before the end; loosen rtol and"
    " atol, or raise max_steps",
    Status.STEP_UNDERFLOW: "no step was small enough for the tolerance, or the model's answer was"
    " not finite; loosen rtol and atol, use float64, or begin at a noisier time",
    Status.NONLINEAR_DIVERGENCE: "the implicit solver's equation did not converge; take an explicit"
    " solver or smaller steps",
    Status.NOT_FINITE: "the solve ended with NaN or infinity",
    Status.FAILED: "the solver gave up",
}


@arrays.pytree
class Path:
    """A solution as a function of time."""

    interpolation: diffrax.DenseInterpolation

    def __call__(self, t: Any) -> Any:
        """The state at a time within the solve, []."""
        return self.interpolation.evaluate(t)


class Solution(NamedTuple):
    """What a solve returns; see `solve_ode`.

    Attributes:
        x: the state at the end, [B, ...]; where times were asked for [T, B, ...]. NaN unless
            successful.
        status: [] int, a `Status`.
        steps: [] int, steps tried.
        rejected: [] int, of those, how many were too long.
        calls: [] int, calls of the model; -1 where the solver does not say how many a step takes.
        path: where it was asked for, the state as a function of a time within the solve.
    """

    x: Any
    status: Array
    steps: Array
    rejected: Array
    calls: Array
    path: Any = None

    def check(self) -> "Solution":
        """Itself.

        Raises:
            FloatingPointError: the solve failed; the message names the status and what helps.
                Not where it is being traced: ask `status` there.
        """
        code = arrays.concrete(self.status)
        if code is None or not np.any(code):
            return self
        status = Status(int(np.max(code)))
        raise FloatingPointError(
            f"solver status {status.name.lower()} after {int(np.max(self.steps))} steps:"
            f" {_ADVICE[status]}"
        )
