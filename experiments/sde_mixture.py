"""VP, sub-VP and VE on a mixture whose score is exact: what is left is the fault of the numerics.

    python experiments/sde_mixture.py [--out runs/mixture] [--calls 20 50 100 500] [--quick]

Four tables, in the order in which one builds on another.

Equations: the log-density of the mixture put into the Fokker-Planck equation of the forward SDE, of
the probability flow and the reverse family, all derivatives by autodiff in float64: the largest
residual over 200 states and 20 times, over the largest |d log p / dt|. Rounding is expected.

Samples: the largest Kolmogorov-Smirnov distance over four directions of the plane, whose laws are
mixtures too, at EQUAL calls of the model: Heun and predictor-corrector call twice a step, so they
take half the steps. All are on steps even in the schedule's clock, as in the paper; the adaptive
solver chooses its own, and its calls are its result. "floor" are true draws. Langevin steps are
`annealed_langevin`: with a step of an example's own they err by 1 + 4 / D, here threefold.

Likelihoods: nats of the same points by each estimator, beside their exact log-density: the bound by
its steps, the flow by its trace. Points are shared, so the last columns compare in pairs. The
entropy by a million draws is what the mean estimates.

Inpainting: of a pair with correlation .8 one is known; replacement's mean and variance of the
other, over the true ones, with more and more agreement between the two. By `ddpm("large")`: at 40
steps the small variance is too small by itself, which would hide the bias.

Expected (10,000 samples, floor .012): Euler-Maruyama is first at 20 calls, under sub-VP with Heun
beside it; the adaptive solver is at the floor in 50 to 90. From 20 to 100 calls no corrector pays,
for an exact model leaves it little to mend. The flow's exact trace is within .001 nats of the exact
log-density: what it lacks is the noise left at its start, and VE's prior.

Hardware: 2 CPU cores, some 10 minutes.
"""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import records
import tyro
from rich.console import Console
from sde_truth import KINDS, entropy, ks_distance, mixture, residuals
from timing import table

from jaxdiff import exact, likelihood, plots, samplers
from jaxdiff.grids import uniform, uniform_log_snr
from jaxdiff.samplers import sample
from jaxdiff.samplers.adaptive import integrator, solve_ode
from jaxdiff.schedules import cleanest_time
from jaxdiff.typing import Sampler

__all__ = ["SAMPLERS", "Nats", "Quality", "filled", "main", "nats", "qualities", "steps_of"]

TOLERANCES = (1e-2, 1e-3, 1e-5)
LAST = 0.05  # sigma / alpha where the bound ends: the narrowest direction of the data is .15 wide


class Way(NamedTuple):
    """A sampler, and its calls of the model a step."""

    make: Callable[[], Sampler]
    calls: int = 1


def _corrected(predictor: Callable[[], Sampler]) -> Callable[[], Sampler]:
    return lambda: samplers.predictor_corrector(predictor(), samplers.annealed_langevin(0.16))


SAMPLERS = {
    "euler_maruyama": Way(samplers.euler_maruyama),
    "reverse_diffusion": Way(samplers.reverse_diffusion),
    "ddpm": Way(samplers.ddpm),
    "ddim": Way(samplers.ddim),
    "heun": Way(samplers.heun, 2),
    "reverse_diffusion + langevin": Way(_corrected(samplers.reverse_diffusion), 2),
    "ddpm + langevin": Way(_corrected(samplers.ddpm), 2),
}


class Quality(NamedTuple):
    """One cell of the table of samples."""

    sde: str
    sampler: str
    calls: int
    distance: float
    error: float


class Nats(NamedTuple):
    """One row of the table of likelihoods; `apart` is the mean difference to the exact values."""

    sde: str
    estimator: str
    nats: float
    total: float
    probes: float
    apart: float
    apart_error: float


# -- samples


def _over_seeds(draw: Callable[[Any], Any], seeds: int) -> tuple[float, float]:
    values = [ks_distance(draw(key)) for key in jax.random.split(jax.random.key(0), seeds)]
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(seeds))


def steps_of(name: str, calls: int) -> int:
    """How many steps `calls` calls of the model are; one call less for Heun, in whose step into the
    clean end there is one alone."""
    return -(-calls // SAMPLERS[name].calls)


def qualities(kind: str, *, calls: tuple[int, ...], n: int, seeds: int) -> Iterator[Quality]:
    """Each sampler at each number of calls; the adaptive solver at each tolerance."""
    schedule, model = KINDS[kind], mixture()
    for name, way in SAMPLERS.items():
        for count in calls:
            grid = uniform(schedule, steps_of(name, count))
            draw = functools.partial(_drawn, model, grid, way.make(), n)
            yield Quality(kind, name, count, *_over_seeds(draw, seeds))
    for tolerance in TOLERANCES:
        how, used = integrator("tsit5", rtol=tolerance, atol=tolerance), []

        def solved(key: Any, how: Any = how, used: list = used) -> Any:
            x_T = schedule.prior_std * jax.random.normal(key, (n, 2))
            found = solve_ode(model, schedule, x_T, how=how)
            used.append(int(found.calls))
            return found.x / schedule(cleanest_time(schedule)).alpha

        distance = _over_seeds(solved, seeds)
        yield Quality(kind, f"tsit5, {tolerance:g}", round(np.mean(used)), *distance)
    yield Quality(kind, "floor", 0, *_over_seeds(lambda key: model.sample(key, n), seeds))


def _drawn(model: Any, grid: Any, sampler: Sampler, n: int, key: Any) -> Any:
    return sample(key, model, grid, (n, 2), sampler=sampler)


# -- likelihoods


def nats(kind: str, *, n: int, steps: tuple[int, ...]) -> Iterator[Nats]:
    """Each estimator on the same n points."""
    schedule, model, key = KINDS[kind], mixture(), jax.random.key(1)
    x = model.sample(jax.random.key(2), n)
    truth = np.asarray(model.log_prob(x), np.float64)
    error = float(truth.std(ddof=1) / np.sqrt(n))
    yield Nats(kind, "exact log-density", -float(truth.mean()), error, 0.0, 0.0, 0.0)
    last = schedule.time(-2 * jnp.log(LAST))
    for count in steps:
        grid = uniform_log_snr(schedule, count, t_last=last)
        yield _row(
            kind, f"elbo, {count} steps", likelihood.elbo(key, model, x, grid, draws=4), truth
        )
    ways = {
        "flow, exact trace": likelihood.exact(),
        "flow, hutchinson(1)": likelihood.hutchinson(1),
        "flow, hutchinson(8)": likelihood.hutchinson(8),
        "flow, hutchpp(1)": likelihood.hutchpp(1),
    }
    for name, divergence in ways.items():
        found = likelihood.log_prob(key, model, x, schedule, divergence=divergence)
        yield _row(kind, name, found, truth)


def _row(kind: str, name: str, found: likelihood.Estimate, truth: np.ndarray) -> Nats:
    apart = truth - np.asarray(found.per_example, np.float64)
    error = float(apart.std(ddof=1) / np.sqrt(len(apart)))
    errors = found.errors
    own = (-float(found.mean), float(errors.total), float(errors.probes))
    return Nats(kind, name, *own, float(apart.mean()), error)


# -- inpainting


def filled(n: int, steps: int = 40) -> Iterator[tuple[str, int, float, float, float, float]]:
    """(way, calls, mean ratio, its error, variance ratio, its error) of the unknown of a pair.

    The pair is N(0, [[1, .8], [.8, 1]]) and 1 is known, so the truth is N(.8, .36).
    """
    model = exact.gaussian(np.zeros(2), np.array([[1.0, 0.8], [0.8, 1.0]]))
    known, mask = jnp.array([1.0, 0.0]), jnp.array([True, False])
    grid, ddpm = uniform(KINDS["VP"], steps), samplers.ddpm("large")
    put = samplers.replacement(ddpm, known, mask)

    def corrected(repeats: int) -> Sampler:
        moved = samplers.annealed_langevin(0.5)
        agreed = samplers.replacement_corrector(moved, known, mask, repeats=repeats)
        return samplers.predictor_corrector(put, agreed)

    ways = {
        "replacement": (put, steps),
        "1 Langevin step a level": (corrected(1), 2 * steps),
        **{f"{r} Langevin steps a level": (corrected(r), steps * (1 + r)) for r in (3, 10)},
        "repaint, 10 repeats": (
            samplers.repaint(ddpm, known, mask, jump=1, repeats=10),
            steps + 9 * (steps - 1),
        ),
    }
    for name, (sampler, calls) in ways.items():
        y = np.asarray(sample(jax.random.key(4), model, grid, (n, 2), sampler=sampler))[:, 1]
        mean, var = y.mean() / 0.8, y.var(ddof=1) / 0.36
        yield name, calls, mean, y.std() / 0.8 / np.sqrt(n), var, var * np.sqrt(2 / (n - 1))


# -- what is printed


def main(
    out: Path | None = None,
    calls: tuple[int, ...] = (20, 50, 100, 500),
    n: int = 10_000,
    seeds: int = 3,
    points: int = 1000,
    bound_steps: tuple[int, ...] = (20, 100, 500),
    kinds: tuple[str, ...] = tuple(KINDS),
    quick: bool = False,
) -> None:
    """Prints the tables, and writes those of samples and likelihoods where asked.

    Args:
        out: a directory for samples.csv, nats.csv and a picture an SDE.
        calls: of the model a sample, even.
        n: samples a seed.
        seeds: how many.
        points: of which likelihoods are taken.
        bound_steps: of the bound's chains.
        kinds: which SDEs.
        quick: everything as small as it can be.
    """
    if quick:
        calls, n, seeds, points, bound_steps = (4,), 100, 2, 20, (4,)
    console = Console(width=110)
    found = {kind: residuals(KINDS[kind]) for kind in kinds}
    rows = [[kind, *(f"{v:.1e}" for v in found[kind].values())] for kind in kinds]
    columns = ["SDE", *found[kinds[0]]]
    console.print(table("residual of the Fokker-Planck equation, relative", columns, rows))
    scores, likelihoods = [], []
    for kind in kinds:
        mine = list(qualities(kind, calls=calls, n=n, seeds=seeds))
        console.print(_samples_table(kind, mine, calls))
        given = list(nats(kind, n=points, steps=bound_steps))
        console.print(_nats_table(kind, given, entropy(100 * n)))
        scores, likelihoods = scores + mine, likelihoods + given
        if out is not None:
            records.write(out / "samples.csv", scores)
            records.write(out / "nats.csv", likelihoods)
            _draw(kind, mine, out)
    rows = [
        [name, str(c), f"{mean:.3f} ± {e:.3f}", f"{var:.3f} ± {ev:.3f}"]
        for name, c, mean, e, var, ev in filled(n)
    ]
    columns = ["inpainting", "calls", "mean / true", "variance / true"]
    console.print(table("the unknown of a pair with correlation .8", columns, rows))


def _samples_table(kind: str, scores: list[Quality], calls: tuple[int, ...]) -> Any:
    cell = {(s.sampler, s.calls): f"{1e3 * s.distance:.1f} ± {1e3 * s.error:.1f}" for s in scores}
    rows = [[name, *(cell[name, c] for c in calls)] for name in SAMPLERS]
    others = [s for s in scores if s.sampler not in SAMPLERS]
    rows += [
        [s.sampler if not s.calls else f"{s.sampler}: {s.calls} calls", cell[s.sampler, s.calls]]
        for s in others
    ]
    columns = [f"{kind}: 1000 x KS distance", *(f"{c} calls" for c in calls)]
    return table("samples", columns, [row + [""] * (len(columns) - len(row)) for row in rows])


def _nats_table(kind: str, found: list[Nats], truth: tuple[float, float]) -> Any:
    rows = [
        [
            r.estimator,
            f"{r.nats:.4f}",
            f"{r.total:.4f}",
            f"{r.probes:.4f}",
            f"{r.apart:+.5f} ± {r.apart_error:.5f}",
        ]
        for r in found
    ]
    title = f"{kind}: -log p in nats; entropy {truth[0]:.4f} ± {truth[1]:.4f}"
    return table(title, ["estimator", "nats", "error", "by probes", "minus the exact"], rows)


def _draw(kind: str, scores: list[Quality], out: Path) -> None:
    lines = {}
    for name in SAMPLERS:
        mine = [(s.calls, s.distance, s.error) for s in scores if s.sampler == name]
        lines[name] = tuple(zip(*mine, strict=True))
    words = {"xlabel": "calls of the model", "ylabel": "largest Kolmogorov-Smirnov distance"}
    path = out / f"{kind.lower().replace('-', '_')}.png"
    plots.curves(lines, path, floor=scores[-1].distance, title=f"{kind}; dotted: truth", **words)


if __name__ == "__main__":
    tyro.cli(main)
