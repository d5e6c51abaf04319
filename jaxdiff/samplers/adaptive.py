"""Flow and SDEs by diffrax: adaptive steps, implicit solvers, paths that refine.

    solve_ode    dx/dt = alpha' x0 + sigma' eps, either way: samples from latents, latents of data
    solve_sde    the reverse family, from noise to data
    simulate     the forward SDE, from data to noise

Times are the schedule's clock. For a fixed number of explicit steps `sample` takes the same
networks: an Euler step of the flow costs 1.01 of its DDIM step, one of the SDE, with its virtual
Brownian tree, 1.5 of its `euler_maruyama` step (an MLP of width 128, 512 points, two cores).
"""

import dataclasses
import functools
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import lineax
from jax import Array

from jaxdiff import arrays, sde
from jaxdiff.denoiser import Checked
from jaxdiff.keys import example_keys
from jaxdiff.samplers import spans
from jaxdiff.samplers.base import checked_shape
from jaxdiff.samplers.brownian import Paths
from jaxdiff.samplers.integrators import (
    ODE_SOLVERS,
    SDE_SOLVERS,
    Integrator,
    check_solver,
    integrator,
    run,
)
from jaxdiff.samplers.solution import Solution, Status
from jaxdiff.typing import Denoise, Schedule

__all__ = [
    "Integrator",
    "Solution",
    "Status",
    "integrate",
    "integrator",
    "simulate",
    "solve_ode",
    "solve_sde",
]

_ODE = integrator("tsit5")
_SDE = integrator("euler", steps=1000)


def solve_ode(
    denoise: Denoise,
    schedule: Schedule,
    x: Array,
    *,
    start: Any = None,
    end: Any = None,
    how: Integrator = _ODE,
    times: Any = None,
    dense: bool = False,
) -> Solution:
    """Follows the probability flow from `start` to `end`, in either direction.

        dx/dt = alpha' x0 + sigma' eps

    By default from pure noise to data: `solve_ode(denoise, schedule, x_T).x`. The other way round
    it encodes: `solve_ode(denoise, schedule, x_0, start=cleanest_time(schedule),
    end=schedule.t_max).x` is the latent of data; of two exact models of the same data on the same
    schedule it is the same latent. The flow ends at `end`, whose noise is then left in x.

    Args:
        denoise: the model.
        schedule: the schedule; `sde.in_sigma_clock` gives model and schedule in another clock.
        x: [B, ...], float32 or float64, the state at start.
        start, end: [], times of the schedule's clock with sigma > 0; the ends of the integrator's
            times where it has such, else t_max and the schedule's `cleanest_time` if None.
        how: the integrator.
        times: [T], in the order of the solve, where states are wanted as well; x is then
            [T, B, ...].
        dense: static, whether the solution is wanted as a function of time, `Solution.path`;
            memory holds max_steps steps then.

    Returns:
        A Solution.

    Raises:
        ValueError: x no float batch or not finite, a time outside the clock or without noise,
            times out of order, a level that the parametrization refuses.
        FloatingPointError: the solve failed, with the status' name; while it is being traced
            there is the status alone, and x is NaN.

    Source: Song et al. 2021, arXiv:2011.13456, eq. 13 and section 4.3.
    """
    x = jnp.asarray(x)
    start, end = spans.check(denoise, schedule, x, *spans.ends(how, start, end), noisy=True)
    flow = sde.probability_flow(Checked(arrays.as_pytree(denoise)), schedule)
    return integrate(flow, x, start=start, end=end, how=how, times=times, dense=dense)


def integrate(
    field: Any,
    y: Any,
    *,
    start: Any,
    end: Any,
    how: Integrator = _ODE,
    times: Any = None,
    dense: bool = False,
) -> Solution:
    """Solves dy/dt = field(t, y) for any field that is a pytree.

    Args:
        field: a frozen pytree, `field(t, y)` with t [] and y like the state; gradients go
            through its leaves.
        y: the state at start, a pytree of [B, ...].
        start, end, how, times, dense: as for `solve_ode`.

    Returns:
        A Solution, whose x is like y.

    Raises:
        ValueError: times out of order.
        FloatingPointError: as for `solve_ode`.
    """
    check_solver(how, ODE_SOLVERS)
    dtype = jax.tree.leaves(y)[0].dtype
    start, end, times = spans.in_dtype(dtype, start, end, times)
    field, how = arrays.strong((field, how), dtype)
    return _ode(field, y, start, end, how, times, dense=dense).check()


@functools.partial(jax.jit, static_argnames="dense")
def _ode(field, y, start, end, how, times, *, dense):
    term = diffrax.ODETerm(lambda t, y, field: field(t, y))
    where = {"start": start, "end": end, "times": times}
    return run(term, y, field, **where, how=how, solvers=ODE_SOLVERS, dense=dense)


def solve_sde(
    key: Array | None,
    denoise: Denoise,
    schedule: Schedule,
    shape: tuple[int, ...],
    *,
    x_T: Array | None = None,
    lam: Any = 1.0,
    start: Any = None,
    end: Any = None,
    how: Integrator = _SDE,
    times: Any = None,
) -> Solution:
    """Follows the reverse SDE, or one of its family, from noise to data.

        dx = (f x - (1 + lam**2) / 2 g**2 score) dt + lam g dW

    Example i's path is a function of (key, i) alone: more steps see the same path.

    Args:
        key: a PRNG key, or [B] keys, one an example.
        denoise: the model.
        schedule: the schedule.
        shape: (B, ...), the shape of the result.
        x_T: [B, ...], where to start; prior_std times Gaussian noise if None.
        lam: [], in [0, 1]: 1 is the reverse SDE, 0 the flow.
        start, end: as for `solve_ode`, with alpha > 0 as well.
        how: the integrator: a solver of `SDE_SOLVERS` with fixed steps (1000 of Euler-Maruyama by
            default), or adaptively, where the solver has an error estimate: heun, sra1, shark.
        times: as for `solve_ode`.

    Returns:
        A Solution.

    Raises:
        ValueError: as for `solve_ode`; lam outside [0, 1]; alpha = 0 at the start; start not
            above end; a solver that cannot adapt its steps.
        FloatingPointError: as for `solve_ode`.

    Source: Song et al. 2021, arXiv:2011.13456, eq. 6.
    """
    shape = checked_shape(shape)
    keys = example_keys(key, shape[0])
    x_T = _start(keys, schedule, shape) if x_T is None else jnp.asarray(x_T)
    if tuple(x_T.shape) != shape:
        raise ValueError(f"x_T must have the shape asked for, {shape}, got {tuple(x_T.shape)}")
    ends = spans.ends(how, start, end)
    start, end = spans.check(denoise, schedule, x_T, *ends, noisy=True, signal=True, rising=False)
    process = sde.reverse(Checked(arrays.as_pytree(denoise)), schedule, lam)
    return _stochastic(keys, process, x_T, start, end, how, times)


def simulate(
    key: Array,
    schedule: Schedule,
    x: Array,
    *,
    start: Any = None,
    end: Any = None,
    how: Integrator = _SDE,
    times: Any = None,
) -> Solution:
    """Follows the forward SDE from data to noise, dx = f x dt + g dW.

    Where the clock begins with noise (`ve`: sigma_min), x is the state there, noise included.

    Args:
        key: a PRNG key, or [B] keys.
        schedule: the schedule.
        x: [B, ...], the state at start.
        start, end: []; t_min and t_max if None, with alpha > 0.
        how, times: as for `solve_sde`.

    Returns:
        A Solution.

    Raises:
        ValueError, FloatingPointError: as for `solve_sde`, with start below end.

    Source: Song et al. 2021, arXiv:2011.13456, eq. 5.
    """
    x = jnp.asarray(x)
    keys = example_keys(key, checked_shape(x.shape)[0])
    start, end = spans.ends(how, start, end)
    start = schedule.t_min if start is None else start
    end = schedule.t_max if end is None else end
    start, end = spans.check(None, schedule, x, start, end, signal=True, rising=True)
    return _stochastic(keys, sde.forward(schedule), x, start, end, how, times)


def _stochastic(keys, process, x, start, end, how, times) -> Solution:
    check_solver(how, SDE_SOLVERS)
    start, end, times = spans.in_dtype(x.dtype, start, end, times)
    how, process = arrays.strong((how, process), x.dtype)
    return _sde(keys, process, x, start, end, how, times).check()


@jax.jit
def _sde(keys, process, x, start, end, how, times):
    """In the time since start, which rises whatever way the clock runs."""
    sign, span = jnp.sign(end - start), jnp.abs(end - start)
    since = lambda t: jnp.abs(t - start)  # noqa: E731

    def drift(tau, x, process):
        return sign * process.drift(start + sign * tau, x)

    def diffusion(tau, x, process):
        g = process.diffusion(start + sign * tau)
        return lineax.DiagonalLinearOperator(jnp.broadcast_to(g, x.shape).astype(x.dtype))

    steps = how.steps or (0 if how.times is None else how.times.shape[0])
    # what a tree says between its points depends on its depth: one for all but the finest steps
    tol = span / 2 ** max(17, (4 * steps).bit_length())
    event = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
    keys = jax.vmap(lambda key: jax.random.fold_in(key, 2))(keys)
    paths = Paths(keys, span, tol, event, _levy_area(how.solver))
    terms = diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(diffusion, paths))
    if how.times is not None:
        how = dataclasses.replace(how, times=since(how.times))
    where = {"start": jnp.zeros_like(span), "end": span}
    times = None if times is None else since(times)
    # an adaptive solve needs a first step: a hundredth of the way
    more = {"how": how, "solvers": SDE_SOLVERS, "first": span / 100, "times": times}
    return run(terms, x, process, **where, **more)


def _levy_area(solver: Any) -> Any:
    """What the solver asks of a path: its increments, or its area against time as well."""
    solver = SDE_SOLVERS[solver]() if isinstance(solver, str) else solver
    wanted = getattr(solver, "minimal_levy_area", None)
    if wanted is None or issubclass(diffrax.BrownianIncrement, wanted):
        return diffrax.BrownianIncrement
    if issubclass(diffrax.SpaceTimeLevyArea, wanted):
        return diffrax.SpaceTimeLevyArea
    return diffrax.SpaceTimeTimeLevyArea


def _start(keys: Array, schedule: Schedule, shape: tuple[int, ...]) -> Array:
    """Prior_std times Gaussian noise, the x_T that `sample` draws from the same keys."""
    one = lambda key: jax.random.normal(jax.random.fold_in(key, 0), shape[1:])  # noqa: E731
    return schedule.prior_std * jax.vmap(one)(keys)
