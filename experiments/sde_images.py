"""VP, sub-VP and VE on the digits: which samples best, which is likeliest, at what cost?

    python experiments/sde_images.py --out runs/sde [--steps 3000] [--calls 20 50 100] [--quick]

One small unconditional network is trained under each SDE, for equal steps and by one recipe: EDM's
parametrization, whose input and output have unit variance at any sigma, VE's sigma_max included;
its plain loss at even times of each schedule's clock; digits dequantised anew in each batch, for a
density of what lies between whole numbers is asked of the network later.

Samples: pixel Frechet distance of n samples to the half of the digits that no network saw, with
the standard error over sampling seeds, for predictors of the reverse SDE, the probability flow and
predictor-corrector at EQUAL calls of the network, so that what calls twice a step takes half the
steps. "floor" is as many digits of the training half.

Likelihood: bits/dim of the unseen half, 17 values a pixel, by the bound and by the flow with the
trace by Hutchinson's probes, by Hutch++ and exactly; standard errors by cause. All begin at
sigma / alpha = .01, but the bound, whose decoder counts bins, ends at .05, where the bins of width
1/8 are told apart. The exact trace takes 64 products with the Jacobian a call, so it sees fewer
images; the rows named "same images" are for comparison with it.

The largest distance of two digits is 9.6 in [-1, 1]: hence VE's sigma_max of 15.

Expected (2000 steps, 300 samples, floor .54; figures/sde_images_*.csv): VP and sub-VP 2.12 bits/dim
by the flow and .04 more by the bound, VE 2.01 and .05, each within some .02 for 100 to 200 images;
distances of 1.0 to 1.3 and .95 to 1.2 at 20 calls, 1.4 and above for the corrector, which at 100 is
ahead of its predictor. One training each: of the recipe, not of the SDEs.

Hardware: 2 CPU cores, three quarters of an hour; the exact trace takes a quarter of it.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import records
import tyro
from rich.console import Console
from timing import table

from jaxdiff import likelihood, metrics, plots, samplers, training
from jaxdiff.config import build, preset
from jaxdiff.config.fields import Config, ScheduleConfig
from jaxdiff.grids import uniform, uniform_log_snr
from jaxdiff.samplers import example_keys, sample
from jaxdiff.samplers.adaptive import integrator
from jaxdiff.typing import Denoise, Sampler, Schedule

__all__ = [
    "KINDS",
    "SAMPLERS",
    "Likelihood",
    "Quality",
    "Way",
    "main",
    "recipe",
    "steps_of",
    "trained",
]

KINDS = {
    "VP": ScheduleConfig("linear_vp"),
    "sub-VP": ScheduleConfig("sub_vp"),
    "VE": ScheduleConfig("ve", {"sigma_min": 0.01, "sigma_max": 15.0}),
}
BINS = likelihood.quantised(17)
CLEANEST, DECODED = 0.01, 0.05  # sigma / alpha where the flow begins, and where the bound ends
HOW = integrator("tsit5", rtol=1e-4, atol=1e-4)  # whose error lies far below the standard errors


class Way(NamedTuple):
    """A sampler, what it follows, and its network calls a step."""

    follows: str
    make: Callable[[], Sampler]
    calls: int = 1


SAMPLERS = {
    "euler_maruyama": Way("SDE", samplers.euler_maruyama),
    "reverse_diffusion": Way("SDE", samplers.reverse_diffusion),
    "ddpm": Way("SDE", samplers.ddpm),
    "ddim": Way("flow", samplers.ddim),
    "heun": Way("flow", samplers.heun, 2),
    "ddpm + langevin": Way("PC", samplers.predictor_corrector, 2),
}


class Quality(NamedTuple):
    """One cell of the table of samples."""

    sde: str
    sampler: str
    calls: int
    distance: float
    error: float


class Likelihood(NamedTuple):
    """One row of the table of likelihoods: bits/dim and its standard errors."""

    sde: str
    estimator: str
    images: int
    bits: float
    total: float
    data: float
    dequantisation: float
    probes: float
    seconds: float


def recipe(kind: str, steps: int, quick: bool = False) -> Config:
    """How the model of an SDE is trained."""
    base = preset("digits")
    small = {"channels": 8, "multipliers": (1,), "groups": 4} if quick else {}
    replace = dataclasses.replace
    return replace(
        base,
        data=replace(base.data, labels=False),
        model=replace(base.model, blocks=1, embedding="fourier", dropout=0.0, **small),
        schedule=KINDS[kind],
        parametrization=replace(
            base.parametrization, name="edm", time_feature="quarter_log_sigma", sigma_data=0.85
        ),
        loss=replace(base.loss, weight="plain", times="stratified"),
        training=replace(base.training, steps=steps),
        sampling=replace(base.sampling, clip=False),
    )


def trained(config: Config) -> Denoise:
    """The averaged network after training on digits that are dequantised in each batch."""
    config, dataset = build.build_data(config)
    loss_fn = build.build_loss(config)

    def dequantised(params: Any, batch: Any, key: Any, hyper: Any, aux: Any) -> Any:
        key, own = jax.random.split(key)
        x = BINS.dequantise(example_keys(own, len(batch["x"])), batch["x"])
        return loss_fn(params, {**batch, "x": x}, key, hyper, aux)

    decay = training.optim.DECAYS[config.optimizer.decay]
    step = training.make_train_step(dequantised, build.build_optimizer(config), decay=decay)
    state = jax.jit(lambda: build.build_state(config))()
    part = config.training
    done = training.fit(step, state, dataset, steps=part.steps, log_every=part.log_every)
    return build.build_denoiser(config, done.state.ema)


def steps_of(name: str, calls: int) -> int:
    """How many steps `calls` calls of the network are; one call less for Heun, in whose step into
    the clean end there is one alone."""
    return -(-calls // SAMPLERS[name].calls)


def drawn(
    key: Any, denoise: Denoise, schedule: Schedule, name: str, calls: int, n: int
) -> np.ndarray:
    """n digits in `calls` calls of the network each, [n, 8, 8, 1]."""
    grid, sampler = uniform(schedule, steps_of(name, calls)), SAMPLERS[name].make()
    x = sample(key, denoise, grid, (n, 8, 8, 1), sampler=sampler)
    return np.clip(np.asarray(x), -1, 1)


def qualities(
    kind: str, denoise: Denoise, real: np.ndarray, *, calls: tuple[int, ...], n: int, seeds: int
) -> Iterator[Quality]:
    """Each sampler at each number of calls."""
    schedule = build.build_schedule(recipe(kind, 1))
    for name in SAMPLERS:
        for count in calls:
            keys = jax.random.split(jax.random.key(1), seeds)
            sets = [drawn(key, denoise, schedule, name, count, n).reshape(n, -1) for key in keys]
            yield Quality(kind, name, count, *_mean([_distance(x, real) for x in sets]))


def _distance(x: np.ndarray, real: np.ndarray) -> float:
    """The Frechet distance; infinite where a solver ran away."""
    return metrics.frechet_distance(x, real) if np.isfinite(x).all() else np.inf


def floor(train: np.ndarray, real: np.ndarray, *, n: int, seeds: int) -> tuple[float, float]:
    """The distance of n digits of the training half, with its standard error."""
    rng = np.random.default_rng(0)
    rows = [rng.choice(len(train), min(n, len(train)), replace=False) for _ in range(seeds)]
    return _mean([metrics.frechet_distance(train[i], real) for i in rows])


def _mean(values: list[float]) -> tuple[float, float]:
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return float(np.mean(values)), float(error)


def likelihoods(
    kind: str, denoise: Denoise, x: np.ndarray, *, counts: tuple[int, int, int], steps: int
) -> Iterator[Likelihood]:
    """Each estimator: the bound on counts[0] images, probes on counts[1], the exact on counts[2].

    In chunks of one size, so that each compiles once.
    """
    schedule = build.build_schedule(recipe(kind, 1))
    start, last = (schedule.time(-2 * jnp.log(ratio)) for ratio in (CLEANEST, DECODED))
    grid = uniform_log_snr(schedule, steps, t_last=last)

    def bound(keys: Any, x: Any) -> likelihood.Estimate:
        return likelihood.elbo(keys, denoise, x, grid, quantisation=BINS, draws=2)

    def flow(divergence: Any) -> Callable[[Any, Any], likelihood.Estimate]:
        options = {"divergence": divergence, "quantisation": BINS, "draws": 2}
        options |= {"start": start, "how": HOW}
        return lambda keys, x: likelihood.log_prob(keys, denoise, x, schedule, **options)

    by_probes, exact = flow(likelihood.hutchinson(4)), flow(likelihood.exact())
    rows = {
        f"elbo, {steps} steps": (bound, counts[0]),
        "hutchinson(4)": (by_probes, counts[1]),
        "hutchpp(2)": (flow(likelihood.hutchpp(2)), counts[1]),
        "hutchinson(4), same images": (by_probes, counts[2]),
        "exact": (exact, counts[2]),
    }
    for name, (estimator, count) in rows.items():
        began = time.perf_counter()
        found = _in_chunks(estimator, x[np.arange(count) * len(x) // count], counts[2])
        seconds = time.perf_counter() - began
        errors = [float(e) for e in found.bits_errors]
        yield Likelihood(kind, name, count, float(found.bits_per_dim), *errors, seconds)


def _in_chunks(estimator: Callable, x: np.ndarray, size: int) -> likelihood.Estimate:
    starts = range(0, len(x) - len(x) % size, size)
    keys = {first: example_keys(jax.random.key(2), size, first) for first in starts}
    parts = [estimator(keys[first], jnp.asarray(x[first : first + size])) for first in starts]
    return likelihood.concatenate(parts)


def main(
    out: Path,
    steps: int = 3000,
    calls: tuple[int, ...] = (20, 50, 100),
    kinds: tuple[str, ...] = tuple(KINDS),
    n: int = 449,
    seeds: int = 3,
    images: tuple[int, int, int] = (448, 192, 32),
    bound_steps: int = 200,
    quick: bool = False,
) -> None:
    """Prints the tables, and writes them and a picture into a directory.

    Args:
        out: where samples.csv, likelihood.csv and samples.png are written.
        steps: of training each model; a minute takes about a thousand on two idle cores.
        calls: of the network an image, even.
        kinds: which SDEs.
        n: samples a seed; half of the training half, so that the floor has seeds too.
        seeds: how many.
        images: how many the bound, the probes and the exact trace see; multiples of the last.
        bound_steps: of the bound's chain.
        quick: everything as small as it can be.
    """
    if quick:
        steps, calls, n, seeds, images, bound_steps = 20, (4,), 32, 2, (8, 4, 4), 4
    console, scores, rows, pictures = Console(width=120), [], [], []
    data = recipe(kinds[0], 1).data
    train, heldout = (build.load_data(data, part).images() for part in ("train", "heldout"))
    flat = lambda x: x.reshape(len(x), -1)  # noqa: E731
    real = flat(heldout)
    ground = floor(flat(train), real, n=n, seeds=seeds)
    for kind in kinds:
        denoise = trained(recipe(kind, steps, quick))
        scores += qualities(kind, denoise, real, calls=calls, n=n, seeds=seeds)
        console.print(_samples_table(kind, [s for s in scores if s.sde == kind], ground))
        rows += likelihoods(kind, denoise, heldout, counts=images, steps=bound_steps)
        console.print(_likelihood_table(kind, [r for r in rows if r.sde == kind]))
        schedule = build.build_schedule(recipe(kind, 1))
        pictures += [
            (f"{kind}, {name}", drawn(jax.random.key(3), denoise, schedule, name, calls[-1], 10))
            for name in ("reverse_diffusion", "heun", "ddpm + langevin")
        ]
        records.write(out / "samples.csv", [*scores, Quality("real", "floor", 0, *ground)])
        records.write(out / "likelihood.csv", rows)
    title = f"{calls[-1]} calls; " + "; ".join(name for name, _ in pictures)
    shown = np.concatenate([np.nan_to_num(x, posinf=1, neginf=-1) for _, x in pictures])
    plots.sample_grid(shown, out / "samples.png", columns=10)
    console.print(f"rows of samples.png, {title}")


def _samples_table(kind: str, scores: list[Quality], ground: tuple[float, float]) -> Any:
    counts = sorted({s.calls for s in scores})
    rows = []
    for name in dict.fromkeys(s.sampler for s in scores):
        mine = [s for s in scores if s.sampler == name]
        rows.append(
            [name, SAMPLERS[name].follows, *(f"{s.distance:.3f} ± {s.error:.3f}" for s in mine)]
        )
    columns = ["sampler", "follows", *(f"{c} calls" for c in counts)]
    real = f"{ground[0]:.3f} ± {ground[1]:.3f}"
    return table(f"{kind}: pixel Frechet distance; floor {real}", columns, rows)


def _likelihood_table(kind: str, found: list[Likelihood]) -> Any:
    rows = [
        [r.estimator, str(r.images), *(f"{v:.4f}" for v in r[3:8]), f"{r.seconds:.0f}"]
        for r in found
    ]
    columns = ["estimator", "images", "bits/dim", "error", "data", "dequantisation", "probes", "s"]
    return table(f"{kind}: bits/dim of unseen digits", columns, rows)


if __name__ == "__main__":
    tyro.cli(main)
