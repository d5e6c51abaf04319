"""How should a diffusion transformer know where its patches are? Every method, on digits.

    python experiments/dit_positions.py --out experiments/figures
        [--methods none sinusoidal urpe] [--steps 1500] [--seeds 3] [--quick]

One DiT on 8x8 digits in patches of 2, hence 16 tokens, trained with each position method by one
recipe: equal steps, equal batches, and its own parameters and noise for each seed. The seeds of a
method are one vmapped program. Then

- the held-out loss, that of training, at even times and on equal noise for all methods;
- the Frechet distance of samples (DDIM, 50 steps) to held-out digits, in pixels;

each with its standard error over seeds. A network without positions sees a bag of patches: it
cannot tell an image from the same patches in another order, but the pixels inside a patch.

Found with --steps 800 (figures/dit_positions.*): "none" far behind, as it must be. Of those that
only add to scores "alibi" learns hardly anything, "bias" and "t5" half of what there is, and their
samples are no better than without positions. All others come within .05 of one another in loss,
deberta first, then shaw, and the factor helps each that it is joined with: bias .427 -> .365,
rotary .373 -> .364, sinusoidal .375 -> .365. At more steps the slower ones may catch up.

Hardware: one CPU core, two to three minutes a method with --steps 800.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import records
import tyro
from rich.console import Console
from timing import table

from jaxdiff import losses, metrics, plots
from jaxdiff.config import Config, build, preset
from jaxdiff.config.networks import DiTConfig
from jaxdiff.denoiser import clip_x0
from jaxdiff.samplers import ddim, sample

__all__ = ["METHODS", "Score", "main", "recipe", "trained"]

METHODS = (
    "none", "sinusoidal", "learned", "bias", "t5", "alibi", "rotary", "shaw", "xl", "deberta",
    "factor", "urpe", "rotary+factor", "sinusoidal+factor",
)  # fmt: skip


class Score(NamedTuple):
    """A row of the table."""

    method: str
    parameters: int
    loss: float
    loss_error: float
    distance: float
    distance_error: float
    seconds: float


def recipe(method: str, steps: int) -> Config:
    """A small DiT with a position method, otherwise the preset of digits."""
    base, replace = preset("digits"), dataclasses.replace
    return replace(
        base,
        data=replace(base.data, labels=False),
        model=DiTConfig(width=64, depth=4, heads=4, patch=2, positions=method),
        loss=replace(base.loss, cond_dropout=0.0, times="stratified"),
        training=replace(base.training, steps=steps, batch_size=32),
    )


def trained(config: Config, dataset: Any, seeds: int) -> Any:
    """The averaged parameters of all seeds, stacked; trained as one program."""
    part = config.training
    each = [
        build.build_state(dataclasses.replace(config, training=dataclasses.replace(part, seed=i)))
        for i in range(seeds)
    ]
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    steps = jnp.full((seeds,), float(part.steps))
    states = dataclasses.replace(states, hyper={**states.hyper, "steps": steps})
    step = jax.jit(jax.vmap(build.build_step(config), in_axes=(0, None)), donate_argnums=0)
    for i in range(part.steps):
        states, _ = step(states, dataset.batch_at(i))
    return jax.block_until_ready(states.ema)


def scored(config: Config, params: Any, real: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Held-out loss and distance, [seeds] each."""
    schedule, seeds = build.build_schedule(config), jax.tree.leaves(params)[0].shape[0]
    x, grid = jnp.asarray(real), build.build_grid(config, "uniform", 50)

    @jax.jit
    @jax.vmap
    def judge(params: Any, seed: Any) -> tuple[Any, Any]:
        denoiser = build.build_denoiser(config, params)
        how = {
            "times": losses.stratified,
            "weight": losses.WEIGHTS[config.loss.weight](),
            "train": False,
        }
        draws = jax.random.split(jax.random.key(1), 4)
        loss = jax.lax.map(lambda k: losses.denoising(k, denoiser, x, schedule, **how)[0], draws)
        key = jax.random.fold_in(jax.random.key(2), seed)
        denoise, shape = clip_x0(denoiser), (n, *real.shape[1:])
        drawn = sample(key, denoise, grid, shape, sampler=ddim())
        return jnp.mean(loss), drawn

    found, drawn = judge(params, jnp.arange(seeds))
    flat = lambda a: np.clip(np.asarray(a), -1, 1).reshape(len(a), -1)  # noqa: E731
    distances = [metrics.frechet_distance(flat(x), flat(real)) for x in drawn]
    return np.asarray(found), np.asarray(distances)


def _mean(values: np.ndarray) -> tuple[float, float]:
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return float(np.mean(values)), float(error)


def main(
    out: Path,
    methods: tuple[str, ...] = METHODS,
    steps: int = 1500,
    seeds: int = 3,
    n: int = 500,
    quick: bool = False,
) -> None:
    """Prints the table, and writes it and its picture into a directory.

    Args:
        out: where dit_positions.csv and .png are written.
        methods: names of position methods.
        steps: of training.
        seeds: how many trainings a method.
        n: samples a seed.
        quick: everything as small as it can be.
    """
    if quick:
        methods, steps, seeds, n = methods[:2], 3, 2, 16
    console, scores = Console(width=110), []
    real = build.load_data(recipe("none", steps).data, "heldout").images()
    for method in methods:
        began = time.perf_counter()
        config, dataset = build.build_data(recipe(method, steps))
        params = trained(config, dataset, seeds)
        loss, distance = scored(config, params, real, n)
        size = sum(leaf[0].size for leaf in jax.tree.leaves(params))
        row = (*_mean(loss), *_mean(distance), time.perf_counter() - began)
        scores.append(Score(method, size, *row))
        console.log(*scores[-1])
        records.write(out / "dit_positions.csv", scores)
    lines = [
        [s.method, f"{s.parameters:,}", f"{s.loss:.4f} ± {s.loss_error:.4f}",
         f"{s.distance:.2f} ± {s.distance_error:.2f}", f"{s.seconds:.0f}"]
        for s in scores
    ]  # fmt: skip
    columns = ["positions", "parameters", "held-out loss", "Frechet distance", "seconds"]
    console.print(table(f"DiT on digits, {steps} steps, {seeds} seeds", columns, lines))
    picture(scores, out / "dit_positions.png")


def picture(scores: list[Score], path: Path) -> None:
    """Loss and distance of each method, best first, with their errors."""
    drawn = plots.canvas.figure(9.0, 3.4)
    order = sorted(scores, key=lambda s: s.loss)
    names, places = [s.method for s in order], np.arange(len(order))
    for column, (title, value, error) in enumerate(
        (
            ("held-out loss", [s.loss for s in order], [s.loss_error for s in order]),
            ("Frechet distance", [s.distance for s in order], [s.distance_error for s in order]),
        )
    ):
        axes = drawn.add_subplot(1, 2, column + 1)
        axes.errorbar(
            value, places, xerr=error, fmt="o", capsize=2, color=plots.canvas.palette()[0]
        )
        axes.set_yticks(places, names if column == 0 else [""] * len(names))
        axes.invert_yaxis()
        axes.set_xlabel(title)
        axes.grid(axis="x", alpha=0.3)
        if column == 1:
            axes.set_xscale("log")
            ends = np.log10([min(value), max(value)])
            marks = [
                m for m in (1, 2, 5, 10, 20, 50) if ends[0] - 0.2 < np.log10(m) < ends[1] + 0.2
            ]
            axes.set_xticks(marks, [f"{m}" for m in marks])
            axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    plots.canvas.write(drawn, path)


if __name__ == "__main__":
    tyro.cli(main)
