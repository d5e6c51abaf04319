"""Which reverse variance is best: small, large, analytic, NPR, SN or learned, at K of 1000 steps?

    python experiments/analytic_dpm.py --data digits --out runs/analytic-digits
    python experiments/analytic_dpm.py --data DIR --out runs/analytic-fashion --steps 6000
        [--images 500] [--n 2000] [--quick]

DIR is a directory of MNIST's format, such as Fashion-MNIST. On DDPM's linear chain of 1000 steps:

1. a network that predicts eps, and heads for NPR and SN on it, the network as it was;
2. a second network that learns its variance as well, by the hybrid loss: its mean is its own;
3. second moments at all 1000 levels on training images, hence the analytic variance: "analytic" by
   E eps_hat**2, as published, and "residual" by the error of the mean that the network has;
4. bits/dim of unseen images for every variance and K, on even steps, on the path of least analytic
   cost, and on that of the least bound; all on the same images and noise, so that differences are
   known better than values: "gain" is what the analytic variance saves, with its standard error;
5. samples by DDPM and DDIM: Frechet distance to unseen images, with its standard error over seeds.
   Rows that seeds.csv holds are taken as they are, so that a run goes on, or adds seeds and K;
   samples.csv has their means.

p(x_0 | x_1) counts grey values and is the same for all, its deviation the residual of the first
level. Paths are by the residual too: on so few images the published rule, by E eps_hat**2, takes
noise at the noisy end for levels that contradict any mean. x_0_hat is held to [-1, 1] in samples,
and the covariance with it; the bound is of the model as it is. DDIM's is infinite: at eta = 0
nothing is left to chance.

Expected (digits, figures/analytic_digits_*.csv): analytic below small and large at every K, NPR
below it from 25 even steps on and on the path of least cost from 10, SN above both, since the mean
is not exact. Distances need not follow: of DDPM's the large variance draws best there, and from 100
steps on all draw alike. The theory speaks of the likelihood under the exact mean. Fashion-MNIST
(figures/analytic_fashion_*.csv) has the same order of likelihoods; NPR and SN draw better there
than the analytic variance, and the paths of least cost worse than even steps.

Hardware: digits 2 CPU cores, three quarters of an hour with --images 96 --points 500 --n 300
--seeds 2 --sampled 5 10 25 50 --lengths 10 50 100, as figures/ has it, and one core for half an
hour for a seed of --sampled 100, for an hour for one of 1000; Fashion-MNIST a GPU, or two
hours of 2 cores that others used too, with --channels 12 --steps 2000 --head-steps 800 --points 200
--images 48 --n 256 --seeds 2 --batch 48 --sampled 5 10 25 --lengths 5 10 25 50 100, as figures/ has
it.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import records
import tyro
from analytic_models import Models, trained
from analytic_tables import (
    Bits,
    Distance,
    bits_rows,
    distance_rows,
    known_distances,
    mean,
    over_seeds,
)
from rich.console import Console

from jaxdiff import likelihood, metrics, plots, reverse, samplers, trajectory
from jaxdiff.denoiser import clip_x0
from jaxdiff.grids import from_steps, pad
from jaxdiff.reverse import Moments
from jaxdiff.samplers import example_keys, sample, visible
from jaxdiff.typing import Denoise, Grid, ReverseVariance

__all__ = ["grids_of", "main", "variances"]

LENGTHS = (10, 25, 100)
"""Grids are padded with clean ends to one of these, so that few programs serve all K: fewer where
compiling takes long, as on a GPU."""


DRAWN_BY = tuple(
    (forward, name)
    for forward, names in {
        "DDPM": "small large analytic residual NPR SN learned",
        "DDIM": "small analytic residual NPR SN",
    }.items()
    for name in names.split()
)
"""What samples are drawn by: forward and variance. At eta = 0 large and learned are as small: there
is no noise."""


def variances(
    moments: Moments, chain: Grid, data_range: tuple[float, float] | None
) -> dict[str, ReverseVariance]:
    """Each kind of variance, by the name of its row; the learned one with the floor it had."""
    return {
        "small": reverse.small(),
        "large": reverse.large(),
        "analytic": reverse.analytic(moments, data_range=data_range),
        "residual": reverse.analytic(moments, by="residual", data_range=data_range),
        "NPR": reverse.npr(data_range=data_range),
        "SN": reverse.sn(data_range=data_range),
        "learned": reverse.learned_range(reverse.second_to_last(chain)),
    }


def grids_of(
    moments: Moments, chain: Grid, counts: tuple[int, ...], bins: int
) -> dict[tuple[str, int], Grid]:
    """The grids to compare, by (path, K).

    The bound's costs have a density where grey values are counted: it is kept from growing beyond
    the width of a value by that much more variance.
    """
    total, found = chain.num_steps, {}
    best, width = reverse.analytic(moments, by="residual"), 2 / (bins - 1)
    counted = reverse.table(moments.levels, moments.cov("residual")[0] + width**2 / 12)
    cost = trajectory.bound_costs(moments, chain, best, last_std=reverse.optimal(counted))
    for count in counts:
        steps = np.round(np.linspace(1, total, count))[::-1]
        found["even", count] = from_steps(chain.schedule, steps)
        if count < total:
            found["least cost", count] = trajectory.optimal_grid(
                moments, chain, count, by="residual"
            )
            path = trajectory.least_cost_path(cost, count).path
            found["least bound", count] = trajectory.thin(chain, path)
    return found


def padded(grid: Grid, lengths: tuple[int, ...]) -> Grid:
    """The grid with its clean end repeated, so that its length is one of a few, or its own."""
    return pad(grid, min([n for n in lengths if n >= grid.num_steps] or [grid.num_steps]))


def bits(
    models: Models, kinds: dict[str, ReverseVariance], grid: Grid, x: np.ndarray, batch: int
) -> dict[str, np.ndarray]:
    """Bits/dim of each image, by variance, on equal noise."""
    keys, quantisation = jax.random.key(5), likelihood.quantised(models.bins)
    onto_data = reverse.analytic(models.moments, by="residual")
    found = {}
    for name, variance in kinds.items():
        how = {"variance": variance, "last_std": onto_data, "quantisation": quantisation}
        rows = []
        for first in range(0, len(x), batch):
            part = jnp.asarray(x[first : first + batch])
            own = example_keys(keys, len(part), first)
            estimate = likelihood.elbo(own, models.of(name), part, grid, **how)
            rows.append(np.asarray(estimate.per_example))
        found[name] = -np.concatenate(rows) / (x[0].size * np.log(2))
    return found


def bits_table(
    models: Models,
    kinds: dict[str, ReverseVariance],
    grids: dict[tuple[str, int], Grid],
    x: np.ndarray,
    batch: int,
) -> Iterator[Bits]:
    """The rows of the table of likelihoods."""
    for (path, count), grid in grids.items():
        found = bits(models, kinds, grid, x, batch)
        for name, values in found.items():
            gap = values - found["analytic"]
            yield Bits(path, name, count, *mean(values), *mean(gap))


def drawn(
    key: Any, denoise: Denoise, sampler: Any, grid: Grid, shape: tuple[int, ...], batch: int
) -> np.ndarray:
    """Samples, [N, D]."""
    parts = []
    for first in range(0, shape[0], batch):
        size = (min(batch, shape[0] - first), *shape[1:])
        keys = example_keys(key, size[0], first)
        parts.append(np.asarray(sample(keys, denoise, grid, size, sampler=sampler)))
    return np.clip(np.concatenate(parts), -1, 1)


def distance_table(
    models: Models,
    kinds: dict[str, ReverseVariance],
    grids: dict[tuple[str, int], Grid],
    real: np.ndarray,
    *,
    n: int,
    seeds: int,
    batch: int,
    features: Callable[[np.ndarray], np.ndarray],
    known: list[Distance],
) -> Iterator[Distance]:
    """The rows of the table of samples, seed by seed, but those that are known."""
    there, have = features(real), {row[:5] for row in known}
    for seed in range(seeds):
        for (path, count), grid in grids.items():
            for forward, name in DRAWN_BY:
                where = (forward, path, name, count, seed)
                if path == "least bound" or where in have:
                    continue
                eta = 1.0 if forward == "DDPM" else 0.0
                sampler = samplers.ddim(eta, kinds[name], last_std=visible(1))
                denoise, shape = clip_x0(models.of(name)), (n, *real.shape[1:])
                x = drawn(jax.random.key(seed), denoise, sampler, grid, shape, batch)
                yield Distance(*where, metrics.frechet_distance(features(x), there))


def main(
    data: str,
    out: Path,
    counts: tuple[int, ...] = (5, 10, 25, 50, 100, 1000),
    sampled: tuple[int, ...] = (5, 10, 25, 50, 100),
    steps: int = 6000,
    head_steps: int = 3000,
    channels: int | None = None,
    points: int = 1000,
    images: int = 448,
    n: int = 898,
    seeds: int = 3,
    batch: int = 256,
    lengths: tuple[int, ...] = LENGTHS,
    quick: bool = False,
) -> None:
    """Prints the tables, and writes them and their pictures into a directory.

    Args:
        data: "digits" or a directory.
        out: where models, likelihood.csv, seeds.csv, samples.csv and pictures are written; models
            and seeds that are there already are taken as they are.
        counts: K of the table of likelihoods.
        sampled: K of the table of samples.
        steps: of training the network, and that which learns its variance.
        head_steps: of training the heads.
        channels: of the networks' first level; their preset's unless given.
        points: training images that second moments are taken on, the papers' M.
        images: unseen images whose bits/dim are measured.
        n: samples a seed.
        seeds: how many.
        batch: images at once.
        lengths: to which grids are padded.
        quick: everything as small as it can be.
    """
    if quick:
        counts, sampled, steps, head_steps = (3, 10), (3,), 4, 4
        points, images, n, seeds, batch, channels = 8, 8, 16, 2, 8, 4
    console, began = Console(width=120), time.perf_counter()
    how = {"steps": steps, "head_steps": head_steps, "points": points, "channels": channels}
    models = trained(data, out, **how)
    console.log(f"models and moments: {time.perf_counter() - began:.0f} s")
    heldout = models.heldout
    free, held = (variances(models.moments, models.chain, r) for r in (None, (-1.0, 1.0)))
    every = tuple(sorted({*counts, *sampled}))
    grids = grids_of(models.moments, models.chain, every, models.bins)
    filled = {where: padded(grid, lengths) for where, grid in grids.items()}
    x = heldout[np.arange(min(images, len(heldout))) * len(heldout) // min(images, len(heldout))]
    rows: list[Any] = []
    for row in bits_table(models, free, _only(filled, counts), x, batch):
        rows.append(row)
        console.log(*row[:4])
        records.write(out / "likelihood.csv", rows)
    console.print(bits_rows(rows))
    console.print(f"likelihoods: {time.perf_counter() - began:.0f} s")
    flat = lambda a: a.reshape(len(a), -1)  # noqa: E731
    features = flat if heldout[0].size <= 64 else metrics.fit_pca(heldout, 64)
    scores = known_distances(out / "seeds.csv")
    how = {"n": n, "seeds": seeds, "batch": batch, "features": features, "known": list(scores)}
    for score in distance_table(models, held, _only(filled, sampled), heldout, **how):
        scores.append(score)
        console.log(*score[:5])
        records.write(out / "seeds.csv", scores)
    if scores:
        records.write(out / "samples.csv", over_seeds(scores))
    floor = [
        metrics.frechet_distance(features(models.train[i :: max(len(models.train) // n, 1)][:n]),
                                 features(heldout)) for i in range(seeds)
    ]  # fmt: skip
    console.print(distance_rows(scores, mean(np.asarray(floor))))
    pictures(out, models, held, grids, sampled)
    console.print(f"all: {time.perf_counter() - began:.0f} s")


def _only(grids: dict[tuple[str, int], Grid], counts: tuple[int, ...]) -> dict:
    return {where: grid for where, grid in grids.items() if where[1] in counts}


def pictures(
    out: Path,
    models: Models,
    kinds: dict[str, ReverseVariance],
    grids: dict[tuple[str, int], Grid],
    counts: tuple[int, ...],
) -> None:
    """Samples of each variance at the second smallest K, and the paths."""
    count = sorted(counts)[min(1, len(counts) - 1)]
    rows = []
    for name, variance in kinds.items():
        sampler = samplers.ddpm(variance, last_std=visible(1))
        shape = (12, *models.heldout.shape[1:])
        how = (clip_x0(models.of(name)), sampler, grids["even", count], shape, 12)
        rows.append(drawn(jax.random.key(9), *how))
    plots.sample_grid(np.concatenate(rows), out / "samples.png", columns=12)
    paths = {
        f"{path}, K = {k}": np.asarray(grid.levels.t[:-1])
        for (path, k), grid in grids.items()
        if k == count
    }
    plots.curves(
        {name: (np.arange(1, len(t) + 1), t) for name, t in paths.items()},
        out / "paths.png",
        xlabel="number of the step",
        ylabel="step of the chain that it leaves",
    )


if __name__ == "__main__":
    tyro.cli(main)
