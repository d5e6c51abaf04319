"""How good are a model's samples after few steps, sampler by sampler?

    jaxdiff train digits --out runs/digits --seconds 285
    python experiments/sampler_quality.py runs/digits [--out quality.png] [--csv quality.csv]
        [--calls 5 10 20 50] [--samplers NAME ...] [--learned g5.json g10.json]

Every sampler is given the same number of model calls an image, so that one of two calls a step
takes half as many steps; pixel Frechet distance of n samples to the half of the data that the model
did not see, with its standard error over sampling seeds; and the time an image takes, compilation
aside. "floor" is the training half against the unseen one. Files of `jaxdiff learn-grid` are rows
of their own, at their own number of calls.

Samplers in the clock sigma / alpha cannot begin at alpha = 0; on a schedule that does (the digits
preset's cosine) their grid begins at .995 of it. The others begin at the end, as they should.

Reference: another library's model of the digits on the same budget reached .32 at 20 steps, .41 at
10 and 1.14 at 5 with its best multistep solver, against a floor of .20 on a split of its own.

On the digits preset (floor .282): ddim .79, .53, .43, .38 at 5, 10, 20, 50 calls; dpmpp_2m .62,
.41, .37, .36; unipc .51, .39, .37, .36; dpmpp_2m on learned grids .46 at 5 and .37 at 10; standard
error .015. Drawing the training half itself would score .33 to .35.

Hardware: 2 CPU cores, about .4 ms a model call and image: 25 minutes for the default table.
"""

import csv
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from jaxdiff import metrics, plots
from jaxdiff.cli import runs
from jaxdiff.cli.sample import spread_labels
from jaxdiff.config import build
from jaxdiff.config.grid_file import read_grid
from jaxdiff.data import files
from jaxdiff.grids import from_steps, uniform
from jaxdiff.samplers import SAMPLERS, example_keys, make_sampler, sample
from jaxdiff.typing import Grid, Sampler

__all__ = ["CALLS", "Score", "main", "scored"]

CALLS = {"dpm_solver": 2, "dpmpp_2s": 2, "dpmpp_3s": 3, "heun": 2, "dpm2": 2, "dpm2_ancestral": 2}
"""Model calls a step, where there is more than one; the step into the clean end takes one."""
DEFAULT = ("ddpm", "ddim", "dpmpp_2m", "dpmpp_3m", "unipc", "deis", "dpmpp_2s", "heun")
DEFAULT += ("dpmpp_2m_sde", "euler_ancestral")


class Score(NamedTuple):
    """One cell of the table."""

    name: str
    calls: int
    distance: float
    error: float
    milliseconds: float


def scored(
    name: str,
    calls: int,
    sampler: Sampler,
    grid: Grid,
    draw: Callable[[Any, Sampler, Grid], np.ndarray],
    real: np.ndarray,
    seeds: int,
) -> Score:
    """Draws with each seed; distance with its standard error, and the time an image takes."""
    draw(jax.random.key(0), sampler, grid)  # compiles
    distances, began = [], time.perf_counter()
    for seed in range(seeds):
        x = draw(jax.random.key(seed), sampler, grid)
        distances.append(metrics.frechet_distance(x, real))
    seconds = (time.perf_counter() - began) / (seeds * len(x))
    error = np.std(distances, ddof=1) / np.sqrt(seeds) if seeds > 1 else np.nan
    return Score(name, calls, float(np.mean(distances)), float(error), 1e3 * seconds)


def _cells(run: runs.Run, names: tuple[str, ...], calls: tuple[int, ...], learned: Any) -> Iterator:
    """(name, calls, sampler, grid) of each cell that there is."""
    schedule = build.build_schedule(run.config)
    silent = float(schedule(schedule.t_max).alpha) <= 0
    for name in names:
        t_first = (
            0.995 * schedule.t_max if silent and "alpha = 0" in SAMPLERS[name].refuses else None
        )
        for count in calls:
            steps = (count - 1) // CALLS.get(name, 1) + 1
            if steps >= 1:
                yield name, count, make_sampler(name), uniform(schedule, steps, t_first=t_first)
    for path in learned:
        file = read_grid(path)
        file.check(run.config, path)
        sampler = build.build_sampler(file.sampler, eta=file.eta)
        count = len(file.t) * CALLS.get(file.sampler, 1)
        yield f"{file.sampler}, learned", count, sampler, from_steps(schedule, file.t)


def main(
    run: tyro.conf.Positional[Path],
    calls: tuple[int, ...] = (5, 10, 20, 50),
    samplers: tuple[str, ...] = DEFAULT,
    learned: tuple[Path, ...] = (),
    n: int = 1797,
    seeds: int = 2,
    out: Path | None = None,
    csv_out: Path | None = None,
) -> None:
    """Prints the table, and writes it and its picture where asked.

    Args:
        run: a run directory of `jaxdiff train`.
        calls: model calls an image.
        samplers: names of the registry.
        learned: files of `jaxdiff learn-grid`, further rows.
        n: samples a seed.
        seeds: how many.
        out: the picture.
        csv_out: the table.
    """
    opened = runs.open_run(run)
    train, heldout = (build.load_data(opened.config.data, p) for p in ("train", "heldout"))
    real = heldout.images().reshape(len(heldout), -1)
    floor = metrics.frechet_distance(train.images().reshape(len(train), -1), real)
    counts, weights = opened.config.data.label_counts, opened.restore().ema
    labels = jnp.asarray(spread_labels(counts, n)) if counts else None
    denoise = build.build_denoise(opened.config, weights, labels)

    def draw(key: Any, sampler: Sampler, grid: Grid) -> np.ndarray:
        x = sample(
            example_keys(key, n), denoise, grid, (n, *opened.config.data.shape), sampler=sampler
        )
        return np.clip(np.asarray(x), -1, 1).reshape(n, -1)

    console = Console(width=110)
    scores = []
    for name, count, sampler, grid in _cells(opened, samplers, calls, learned):
        scores.append(scored(name, count, sampler, grid, draw, real, seeds))
        s = scores[-1]
        console.print(f"{s.name:24} {s.calls:4} calls  {s.distance:.3f} +- {s.error:.3f}")
    console.print(_table(scores, floor))
    if csv_out is not None:
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerows([Score._fields, *scores])
        with files.replacing(csv_out) as file:
            file.write(text.getvalue().encode())
    if out is not None:
        names = list(dict.fromkeys(s.name for s in scores))
        lines = {
            name: tuple(
                zip(
                    *((s.calls, s.distance, s.error) for s in scores if s.name == name), strict=True
                )
            )
            for name in names
        }
        words = {"xlabel": "model calls an image", "ylabel": "pixel Frechet distance"}
        plots.curves(lines, out, floor=floor, title="dotted: real data", **words)


def _table(scores: list[Score], floor: float) -> Table:
    calls = sorted({s.calls for s in scores})
    table = Table(title=f"pixel Frechet distance by model calls an image; real data: {floor:.3f}")
    table.add_column("sampler")
    for count in calls:
        table.add_column(f"{count}", justify="right")
    table.add_column("ms a call and image", justify="right")
    for name in dict.fromkeys(s.name for s in scores):
        mine = {s.calls: s for s in scores if s.name == name}
        cells = [
            f"{mine[c].distance:.3f} ± {mine[c].error:.3f}" if c in mine else "" for c in calls
        ]
        rate = np.median([s.milliseconds / s.calls for s in mine.values()])
        table.add_row(name, *cells, f"{rate:.3f}")
    return table


if __name__ == "__main__":
    tyro.cli(main)
