"""Diffrax behind one object: which solver, which steps, which adjoint; and how it ended.

    integrator("tsit5", rtol=1e-5, atol=1e-5)      adaptive
    integrator("euler", steps=1000)                K equal steps in the schedule's clock
    integrator("heun", steps=grid.levels.t)        the steps of a grid

States are batches. All examples share the steps, which the worst of them chooses: the error norm
is the greatest over the batch of an example's own root mean square, so that each is held to the
tolerance; within it a sample depends on its batch.
"""

from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import check_range, event_mean, safe_sqrt
from jaxdiff.samplers.solution import Path, Solution, Status

__all__ = [
    "ADJOINTS",
    "ODE_SOLVERS",
    "SDE_SOLVERS",
    "Integrator",
    "check_solver",
    "integrator",
    "run",
]

ODE_SOLVERS: dict[str, Callable[[], diffrax.AbstractSolver]] = {
    "euler": diffrax.Euler,
    "heun": diffrax.Heun,
    "midpoint": diffrax.Midpoint,
    "bosh3": diffrax.Bosh3,
    "tsit5": diffrax.Tsit5,
    "dopri5": diffrax.Dopri5,
    "dopri8": diffrax.Dopri8,
    "kvaerno3": diffrax.Kvaerno3,
    "kvaerno5": diffrax.Kvaerno5,
}
"""Explicit, and for stiff ends implicit (kvaerno, which solves for the whole batch at once: small
states only)."""

SDE_SOLVERS: dict[str, Callable[[], diffrax.AbstractSolver]] = {
    "euler": diffrax.Euler,
    "euler_heun": diffrax.EulerHeun,
    "heun": diffrax.Heun,
    "sra1": diffrax.SRA1,
    "shark": diffrax.ShARK,
    "sea": diffrax.SEA,
}
"""For additive noise, where Ito and Stratonovich agree. Ito-Milstein is Euler there."""

_WITHOUT_ERROR = (
    diffrax.Euler,
    diffrax.EulerHeun,
    diffrax.SEA,
    diffrax.ItoMilstein,
    diffrax.StratonovichMilstein,
)
_SPLIT = (diffrax.KenCarp3, diffrax.KenCarp4, diffrax.KenCarp5, diffrax.Sil3)

ADJOINTS: dict[str, Callable[[], diffrax.AbstractAdjoint]] = {
    "checkpoint": diffrax.RecursiveCheckpointAdjoint,
    "direct": diffrax.DirectAdjoint,
    "backsolve": diffrax.BacksolveAdjoint,
    "forward": diffrax.ForwardMode,
}
"""How gradients go through a solve: reverse mode by checkpoints; both modes, fixed steps only; by
the adjoint equation (constant memory, gradient with an error of its own); forward mode alone."""


_RESULTS = {
    Status.SUCCESSFUL: diffrax.RESULTS.successful,
    Status.MAX_STEPS_REACHED: diffrax.RESULTS.max_steps_reached,
    Status.STEP_UNDERFLOW: diffrax.RESULTS.dt_min_reached,
    Status.NONLINEAR_DIVERGENCE: diffrax.RESULTS.nonlinear_divergence,
}


@arrays.pytree
class Integrator:
    """See `integrator`."""

    rtol: Any
    atol: Any
    times: Array | None
    solver: Any = arrays.static()
    steps: int | None = arrays.static()
    max_steps: int = arrays.static()
    adjoint: Any = arrays.static()

    @property
    def fixed(self) -> bool:
        """Whether its steps are known beforehand."""
        return self.steps is not None or self.times is not None


def integrator(
    solver: Any = "tsit5",
    *,
    rtol: Any = 1e-5,
    atol: Any = 1e-5,
    steps: Any = None,
    max_steps: int = 4096,
    adjoint: Any = "checkpoint",
) -> Integrator:
    """How a differential equation shall be solved.

    Args:
        solver: static, a name of `ODE_SOLVERS` or `SDE_SOLVERS`, or a solver of diffrax for fields
            in one part.
        rtol, atol: [], > 0, relative and absolute tolerance of an adaptive solve. On devices that
            round the factors of float32 products (TF32, TPUs) tight ones are never reached: set
            `jax.default_matmul_precision("float32")`.
        steps: None for adaptive steps; K for K equal ones in the schedule's clock; or the times
            [K+1] themselves, in the order in which they are walked, such as `grid.levels.t` of a
            grid without clean end.
        max_steps: static, after how many steps an adaptive solve fails.
        adjoint: static, a name of `ADJOINTS`, or any adjoint of diffrax.

    Returns:
        An Integrator, whose tolerances and times are leaves.

    Raises:
        ValueError: an unknown name, a tolerance not positive, steps or max_steps below 1, times
            that are no list of two or more or do not go one way, the direct adjoint with adaptive
            steps.
        TypeError: a solver that is none.

    Source: Kidger 2021, arXiv:2202.02435 (diffrax).
    """
    known = {**ODE_SOLVERS, **SDE_SOLVERS}
    if steps is None and (adjoint == "direct" or isinstance(adjoint, diffrax.DirectAdjoint)):
        raise ValueError(
            "adjoint direct is for fixed steps: with adaptive ones its float32 gradients are off by"
            " some per cent (diffrax 0.7.2); take checkpoint, backsolve or forward, or give steps"
        )
    if isinstance(solver, str) and solver not in known:
        raise ValueError(f"solver must be one of {', '.join(known)}, got {solver!r}")
    if not isinstance(solver, str | diffrax.AbstractSolver):
        raise TypeError(f"solver must be a name or a solver of diffrax, got {solver!r}")
    if isinstance(solver, _SPLIT):
        raise ValueError(
            f"solver {type(solver).__name__} is for fields in two parts, of which the flow has one:"
            " take kvaerno3 or kvaerno5"
        )
    if isinstance(adjoint, str) and adjoint not in ADJOINTS:
        raise ValueError(f"adjoint must be one of {', '.join(ADJOINTS)}, got {adjoint!r}")
    check_range("rtol", rtol, 0, np.inf, "()")
    check_range("atol", atol, 0, np.inf, "()")
    check_range("max_steps", max_steps, 1, np.inf, "[)")
    times, count = None, steps
    if steps is not None and jnp.ndim(steps) == 1:
        times, count = _checked_times(steps), None
    elif steps is not None:
        check_range("steps", steps, 1, np.inf, "[)")
        if steps != int(steps):
            raise ValueError(f"steps must be a whole number or a list of times, got {steps}")
        count = int(steps)
    return Integrator(rtol, atol, times, solver, count, int(max_steps), adjoint)


def _checked_times(times: Any) -> Array:
    times = arrays.wide_float(times)
    numbers = arrays.concrete(times)
    if times.shape[0] < 2:
        raise ValueError(f"steps must hold two times at least, got {times.shape[0]}")
    if numbers is not None:
        gaps = np.diff(numbers)
        if not (np.all(gaps > 0) or np.all(gaps < 0)):
            raise ValueError(f"steps must all rise or all fall, got {numbers}")
    return times


def check_solver(how: Integrator, solvers: dict[str, Callable]) -> diffrax.AbstractSolver:
    """The solver.

    Raises:
        ValueError: a name that is none of `solvers`, or a solver that cannot adapt its steps.
    """
    if not isinstance(how.solver, str):
        solver = how.solver
    elif how.solver in solvers:
        solver = solvers[how.solver]()
    else:
        raise ValueError(f"solver must be one of {', '.join(solvers)} here, got {how.solver!r}")
    if not how.fixed and isinstance(solver, _WITHOUT_ERROR):
        adaptive = ", ".join(n for n, kind in solvers.items() if kind not in _WITHOUT_ERROR)
        name = how.solver if isinstance(how.solver, str) else type(solver).__name__
        raise ValueError(
            f"solver {name} has no error estimate: give steps, or take one of {adaptive}"
        )
    return solver


def run(
    terms: Any,
    y: Any,
    args: Any,
    *,
    start: Array,
    end: Array,
    how: Integrator,
    solvers: dict[str, Callable],
    first: Array | None = None,
    times: Array | None = None,
    dense: bool = False,
) -> Solution:
    """Solves from `start` to `end`, in either direction.

    Args:
        terms: diffrax's terms; vector fields take (t, y, args).
        y: the state, a pytree of [B, ...].
        args: what the vector fields are given: through it gradients flow.
        start, end: [].
        how: the integrator.
        solvers: where its name is looked up.
        first: [], the first step of an adaptive solve; chosen by the solver if None.
        times: [T], where the state is wanted; the end if None.
        dense: static, whether the solution is wanted as a function.
    """
    solver = check_solver(how, solvers)
    adjoint = ADJOINTS[how.adjoint]() if isinstance(how.adjoint, str) else how.adjoint
    controller, most = _controller(how, start, end)
    saveat = diffrax.SaveAt(t1=times is None, ts=times, dense=dense)
    found = diffrax.diffeqsolve(
        terms,
        solver,
        start,
        end,
        None if how.fixed else first,
        y,
        args,
        saveat=saveat,
        stepsize_controller=controller,
        adjoint=adjoint,
        max_steps=most,
        throw=False,
    )
    y = found.ys if times is not None else jax.tree.map(lambda a: a[0], found.ys)
    status = _status(found.result, y)
    y = jax.tree.map(lambda a: jnp.where(status == Status.SUCCESSFUL, a, jnp.nan), y)
    steps = found.stats["num_steps"]
    path = Path(found.interpolation) if dense else None
    rejected = found.stats["num_rejected_steps"]
    return Solution(y, status, steps, rejected, _calls(solver, steps), path)


def _controller(how: Integrator, start: Array, end: Array) -> tuple[Any, int]:
    """Diffrax's step size controller, and how many steps it may take."""
    if how.times is not None:
        times = jnp.asarray(how.times, start.dtype).at[0].set(start).at[-1].set(end)
        return diffrax.StepTo(times), how.times.shape[0] - 1
    if how.steps is not None:
        fraction = jnp.arange(how.steps + 1, dtype=start.dtype) / how.steps
        times = (start + fraction * (end - start)).at[-1].set(end)
        return diffrax.StepTo(times), how.steps
    # below this a step no longer moves t
    least = 4 * jnp.finfo(start.dtype).eps * jnp.maximum(jnp.abs(start), jnp.abs(end))
    controller = diffrax.PIDController(
        rtol=how.rtol, atol=how.atol, norm=_worst, dtmin=least, force_dtmin=False
    )
    return controller, how.max_steps


def _worst(errors: Any) -> Array:
    """The greatest root mean square of an example's errors."""
    return jnp.max(jnp.stack([jnp.max(_rms(leaf)) for leaf in jax.tree.leaves(errors)]))


def _rms(leaf: Array) -> Array:
    return safe_sqrt(event_mean(leaf**2))


def _status(result: Any, y: Any) -> Array:
    code = jnp.asarray(int(Status.FAILED), jnp.int32)
    for status, item in _RESULTS.items():
        code = jnp.where(result == item, int(status), code)
    finite = jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(y)]).all()
    return jnp.where((code == Status.SUCCESSFUL) & ~finite, int(Status.NOT_FINITE), code)


def _calls(solver: Any, steps: Array) -> Array:
    """Model calls of an explicit Runge-Kutta method; one that reuses its last stage saves a call
    a step but for the first."""
    if isinstance(solver, diffrax.Euler):
        return steps
    tableau = getattr(solver, "tableau", None)
    if not isinstance(solver, diffrax.AbstractERK) or tableau is None:
        return jnp.full_like(steps, -1)
    reuses = int(tableau.fsal)
    return (tableau.num_stages - reuses) * steps + reuses
