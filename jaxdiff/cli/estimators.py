"""The estimators of `jaxdiff likelihood`: the flags of each, and what they make."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxdiff import likelihood
from jaxdiff.arrays import check_range
from jaxdiff.cli.variances import Chosen
from jaxdiff.config import Config, build
from jaxdiff.config.fields import GridName
from jaxdiff.denoiser import clip_x0
from jaxdiff.likelihood import Estimate, Quantisation
from jaxdiff.samplers.integrators import ODE_SOLVERS, integrator
from jaxdiff.schedules import whole_steps
from jaxdiff.typing import Denoise, Grid, Schedule

__all__ = ["BoundFlags", "Estimator", "FlowFlags", "bound", "flow", "given"]

Estimator = Callable[[jax.Array, Denoise, jax.Array], Estimate]
"""(keys [B], model, x [B, ...]) to their likelihood."""

_STEPS = 200  # of a continuous clock
_PROBES = 8


@dataclasses.dataclass(frozen=True)
class BoundFlags:
    """Of --method elbo."""

    steps: int | None = None
    """The number of steps, each a call of the network a draw; all of a chain's, 200 of a continuous
    clock unless given. More of them also end nearer to the data, where noise far below the width
    of a bin can cost more than it tells: look at the picture of the terms."""
    grid: GridName | None = None
    """Which levels they visit; the run's configuration says which unless given."""
    eta: float | None = None
    """How much noise the steps add, in (0, 1]: 1, as DDPM, unless given."""
    last_std: float | None = None
    """The deviation of the last step, onto the data, unless given: that of --variance where this is
    analytic, npr or sn, else the noise of the level that it leaves."""
    clip: bool = False
    """Whether the estimate of the data is held to [-1, 1]."""


@dataclasses.dataclass(frozen=True)
class FlowFlags:
    """Of the methods ode-..."""

    probes: int | None = None
    """Random probes of the trace, for ode-hutchinson and ode-hutchpp; 8 unless given, for
    ode-hutchpp no more than an example has numbers."""
    distribution: Literal["rademacher", "gaussian"] | None = None
    """Of the probes; rademacher unless given."""
    start: float | None = None
    """The time, with noise, at which the flow meets the data; the cleanest that training draws
    unless given."""
    solver: Literal[tuple(ODE_SOLVERS)] | None = None  # type: ignore[valid-type]
    """The solver; tsit5 unless given."""
    rtol: float | None = None
    """Its relative tolerance; 1e-5 unless given."""
    atol: float | None = None
    """Its absolute tolerance; 1e-5 unless given."""
    max_steps: int | None = None
    """After how many steps it fails; 4096 unless given."""


def given(flags: Any) -> dict[str, Any]:
    """Those flags of a dataclass that were given, by name."""
    return {k: v for k, v in vars(flags).items() if v is not None and v is not False}


def bound(
    flags: BoundFlags,
    chosen: Chosen,
    config: Config,
    quantisation: Quantisation | None,
    draws: int,
) -> tuple[Estimator, str, Grid]:
    """The estimator of --method elbo, how it works in words, and its grid."""
    steps, name = flags.steps, flags.grid or config.sampling.grid
    if chosen.fine is None:
        steps = steps or whole_steps(build.build_schedule(config)) or _STEPS
        grid = build.build_grid(config, name, steps)
        words = [f"{steps} steps {name}"]
    else:
        grid = chosen.steps(steps or chosen.fine.num_steps)
        words = [f"{grid.num_steps} steps"]
    options = {k: v for k, v in given(flags).items() if k in ("eta", "last_std")}
    words += [*chosen.words, *(f"{k} {v}" for k, v in options.items())]
    words += ["clipped"] if flags.clip else []
    if chosen.optimal:
        options.setdefault("last_std", chosen.variance)
    if chosen.variance is not None:
        options["variance"] = chosen.variance
    options |= {"quantisation": quantisation, "draws": draws}

    def estimator(keys: jax.Array, denoise: Denoise, x: jax.Array) -> Estimate:
        denoise = clip_x0(denoise) if flags.clip else denoise
        return likelihood.elbo(keys, denoise, x, grid, **options)

    return estimator, ", ".join([*words, f"{draws} draws of noise"]), grid


def flow(
    method: str, flags: FlowFlags, config: Config, quantisation: Quantisation | None, draws: int
) -> tuple[Estimator, str]:
    """The estimator of a method ode-..., and how it works in words."""
    schedule = build.build_schedule(config)
    options = given(flags)
    trace = {k: options.pop(k) for k in ("probes", "distribution") if k in options}
    start = options.pop("start", None)
    _check_start(start, schedule)
    words = [f"{options.get('solver', 'tsit5')}, rtol {options.get('rtol', 1e-5):g}"]
    if method != "ode-exact":
        trace = _trace(method, trace, math.prod(config.data.shape))
        words.append(f"{trace['probes']} {trace.get('distribution', 'rademacher')} probes")
    if quantisation is not None:
        words.append(f"{draws} draws of dequantisation")
    options = {
        "divergence": getattr(likelihood, method.removeprefix("ode-"))(**trace),
        "how": integrator(**options),
        "start": start,
        "quantisation": quantisation,
        "draws": 1 if quantisation is None else draws,
    }

    def estimator(keys: jax.Array, denoise: Denoise, x: jax.Array) -> Estimate:
        return likelihood.log_prob(keys, denoise, x, schedule, **options)

    return estimator, ", ".join(words)


def _trace(method: str, options: dict[str, Any], dims: int) -> dict[str, Any]:
    """What the divergence is estimated with, of examples of so many numbers."""
    if method != "ode-hutchpp":
        return {"probes": _PROBES, **options}
    options = {"probes": min(_PROBES, dims), **options}
    if options["probes"] > dims:
        raise ValueError(
            f"--probes must be at most {dims} with --method {method}, as many as an example has"
            f" numbers, got {options['probes']}"
        )
    return options


def _check_start(start: float | None, schedule: Schedule) -> None:
    if start is None:
        return
    end = float(schedule.t_max)
    check_range("--start", start, min(float(schedule.t_min), 0.0), end, "[)")
    if not schedule(jnp.float32(start)).sigma > 0:
        raise ValueError(f"--start must be a time with noise, below {end:g}, got {start:g}")
