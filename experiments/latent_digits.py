"""Do latents help a small transformer on 8x8 digits, at equal training time?

    python experiments/latent_digits.py --out experiments/figures [--steps 2000] [--quick]

An autoencoder (8x8x1 to 4x4x4, the recipe of `jaxdiff autoencoder`) is trained on the training half
of the digits. Then one transformer, the recipe `digits-latent` without labels, learns

    latents         the autoencoder's, in patches of 1: 16 tokens of 4 numbers
    patches of 2    of the pixels: 16 tokens of 4 numbers too, hence the very same network
    pixels          in patches of 1: 64 tokens of 1 number

the first for `--steps`, the others for as many as take as long: a step of each, its batch included,
is timed in turn with the others, so that a busy machine burdens all alike. The time of the
autoencoder is not counted, but told. Samples by DDIM in 50 steps, as many as there are held-out
images, are judged beside these by `metrics.evaluate` in pixels, with its errors over resamples; so
are the held-out images that were encoded and decoded, and the training images, what a perfect model
would draw. 8x8 images are not what latents are for: 64 numbers become 64 numbers.

Found (one seed, figures/latent_digits.*; on a busy core 87 ms a step in latents, encoder included):

                    decoded         latents         patches of 2    pixels          training
    steps                           2000            2183            407
    Frechet distance .039 +- .038   1.69 +- .06     .99 +- .06      6.96 +- .14     .28 +- .04
    precision       1.00            .37 +- .04      .28 +- .03      .01 +- .01      .89 +- .01
    recall          1.00            .58 +- .03      .81 +- .02      .77 +- .02      .89 +- .01
    coverage        1.00            .36 +- .02      .33 +- .02      .02 +- .01      .95 +- .01

Decoding moves the Frechet distance by .04 (its error is .073 of a range of 2; the rest of that
column compares images with themselves), so what the model in latents lacks is what it has not
learned. Beside the same network on pixels it draws more
precisely, .37 to .28 (2.1 standard errors), with less variety, .58 to .81, and is farther from the
data, 1.69 to .99: latents are no gain on 8x8 digits, where they have as many numbers as the pixels.
Beside 64 tokens they are much better, but so are patches of 2: that is tokens, not latents. All
three are far from trained to their end; the autoencoder's own time, as long as some two of these
trainings, is not counted.

Left behind: latent_digits.csv, a row a metric and kind; latent_digits.png, a row of images a kind.
Hardware: one busy CPU core, 20 minutes.
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
from timing import interleaved, table

from jaxdiff import config as configs
from jaxdiff import latent, metrics, plots
from jaxdiff.config import Config, build
from jaxdiff.keys import example_keys
from jaxdiff.samplers import ddim, sample
from jaxdiff.training.latents import Encoded, codec_of, measure

__all__ = ["Row", "main"]

SHOWN = 16  # images of a kind in the picture


class Row(NamedTuple):
    """One number of one kind of images."""

    kind: str
    steps: int
    milliseconds: float
    metric: str
    value: float
    error: float


class Model(NamedTuple):
    """What is to be trained, and on what."""

    config: Config
    data: Any
    codec: latent.Codec


def fitted(config: Config, data: Any, steps: int) -> Any:
    """The averaged parameters after so many steps."""
    state = jax.jit(lambda: build.build_state(config))()
    step = jax.jit(build.build_step(config), donate_argnums=0)
    state = dataclasses.replace(state, hyper={**state.hyper, "steps": jnp.float32(steps)})
    for i in range(steps):
        state, _ = step(state, data.batch_at(i))
    return jax.block_until_ready(state.ema)


def autoencoder(steps: int | None) -> tuple[latent.Codec, float]:
    """The codec, scaled, and the seconds of its training."""
    begin, base = time.perf_counter(), configs.AUTOENCODER
    config, data = build.build_data(base)
    params = fitted(config, data, steps or base.training.steps)
    plain = codec_of(build.build_model(config), params)
    return latent.standardised(plain, measure(plain, data)), time.perf_counter() - begin


def models(codec: latent.Codec) -> dict[str, Model]:
    """The three kinds."""
    base, replace = configs.preset("digits-latent"), dataclasses.replace
    base = replace(
        base,
        data=replace(base.data, labels=False),
        loss=replace(base.loss, cond_dropout=0.0),
    )
    clipped = replace(base, sampling=replace(base.sampling, clip=True))
    wide = replace(clipped, model=replace(base.model, patch=2))
    same = latent.codec(lambda key, x: x, lambda z: z)
    found = {}
    for name, config in (("latents", base), ("patches of 2", wide), ("pixels", clipped)):
        config, data = build.build_data(config)
        pair = codec if name == "latents" else same
        if name == "latents":
            data = Encoded(data, codec, "digits in latents")
            shape = data.example_shape
            config = replace(config, data=replace(config.data, shape=shape, bins=None))
        found[name] = Model(config, data, pair)
    return found


def step_times(made: dict[str, Model], rounds: int) -> dict[str, float]:
    """Milliseconds of a step of each, its batch included: medians of steps taken in turn."""

    def timed(model: Model) -> Any:
        step = jax.jit(build.build_step(model.config))
        state = jax.jit(lambda: build.build_state(model.config))()
        return lambda: step(state, model.data.batch_at(0))

    runs = {name: timed(model) for name, model in made.items()}
    taken = interleaved(runs, rounds, patience=30.0)
    return {name: 1e3 * float(np.median(times)) for name, times in taken.items()}


def drawn(model: Model, params: Any, n: int) -> np.ndarray:
    """Samples as images [n, 8, 8, 1]."""
    grid = build.build_grid(model.config, "uniform", 50)
    denoise = build.build_denoise(model.config, params)
    shape = (n, *model.config.data.shape)
    z = sample(example_keys(jax.random.key(1), n), denoise, grid, shape, sampler=ddim())
    return np.clip(jax.jit(latent.Codec.decode)(model.codec, z), -1, 1)


def main(out: Path, steps: int = 2000, resamples: int = 50, quick: bool = False) -> list[Row]:
    """Prints the table, and writes it and its picture into a directory.

    Args:
        out: the directory.
        steps: of the model in latents; the others make as many as take as long.
        resamples: for the standard errors of the metrics.
        quick: everything as small as it can be.
    """
    console, rows = Console(width=120), []
    real, known = (build.load_data(configs.DataConfig(), s).images() for s in ("heldout", "train"))
    if quick:
        real, known, resamples = real[:60], known[:60], 2
    codec, taken = autoencoder(2 if quick else None)
    z = jax.jit(latent.Codec.encode)(codec, jax.random.key(0), real)
    decoded = np.clip(jax.jit(latent.Codec.decode)(codec, z), -1, 1)
    error = np.sqrt(np.mean((decoded - real) ** 2))
    console.log(f"autoencoder: {taken:.0f} s, held-out error {error:.4f} of a range of 2")
    made = models(codec)
    times = step_times(made, 3 if quick else 40)
    images, kinds = {"held out": real, "decoded": decoded}, {}
    for name, model in made.items():
        kinds[name] = 2 if quick else round(steps * times["latents"] / times[name])
        images[name] = drawn(model, fitted(model.config, model.data, kinds[name]), len(real))
        console.log(f"{name}: {kinds[name]} steps of {times[name]:.1f} ms")
    images["training"] = known
    for name, x in images.items():
        if name == "held out":
            continue
        found = metrics.evaluate(x, known, real, features=metrics.pixels, resamples=resamples)
        rows += [
            Row(name, kinds.get(name, 0), times.get(name, 0.0), row.metric, row.value, row.error)
            for row in found
        ]
    records.write(out / "latent_digits.csv", rows)
    report(rows, console)
    shown = np.concatenate([x[:SHOWN] for x in images.values()])
    title = f"rows: {', '.join(images)}"
    plots.sample_grid(shown, out / "latent_digits.png", columns=SHOWN, title=title)
    return rows


def report(rows: list[Row], console: Console) -> None:
    """A line a metric, a column a kind."""
    kinds = list(dict.fromkeys(row.kind for row in rows))
    lines = [
        [metric, *(f"{row.value:.3f} ± {row.error:.3f}" for row in rows if row.metric == metric)]
        for metric in dict.fromkeys(row.metric for row in rows)
    ]
    console.print(table("digits, against held-out images in pixels", ["metric", *kinds], lines))


if __name__ == "__main__":
    tyro.cli(main)
