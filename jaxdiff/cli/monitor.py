"""What `jaxdiff train` looks at under way: the loss on held-out data, and samples."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import metrics, plots
from jaxdiff.cli.sample import spread_labels
from jaxdiff.config import Config, build
from jaxdiff.config.networks import A_MODEL, holds
from jaxdiff.data import Dataset
from jaxdiff.samplers import example_keys, sample
from jaxdiff.training import TrainState, rundir
from jaxdiff.training.latents import Encoded

__all__ = ["ENOUGH", "Monitor", "draw", "heldout_batches"]

ENOUGH = 500  # samples from which a Frechet distance says something
_SHOWN = 64


class Monitor:
    """Asked at each checkpoint: `monitor(state) -> {name: number}`, and writes a picture.

    Data, noise and labels are the same each time, so that numbers and pictures compare. The
    averaged parameters are used.
    """

    def __init__(self, config: Config, out: Path):
        """Reads the held-out part of the data; pictures go into `out`/samples."""
        self._config, self._out = config, out
        part = config.training
        self._heldout = build.load_data(config.data, "heldout")
        seen = build.load_seen(config.data, "heldout")
        self._batches = heldout_batches(seen, part.batch_size, part.heldout, config)
        self._validate = jax.jit(build.build_validation(config))

    def __call__(self, state: TrainState) -> dict[str, float]:
        """The numbers of a state."""
        weights = build.averaged(self._config, state)
        key = jax.random.key(0)
        seen = [
            self._validate(weights, batch, jax.random.fold_in(key, i))
            for i, batch in enumerate(self._batches)
        ]
        numbers = {name: float(np.mean([float(s[name]) for s in seen])) for name in seen[0]}
        if holds(self._config.model) == A_MODEL:
            numbers |= self._look(weights, int(state.step))
        return numbers

    def _look(self, weights: Any, step: int) -> dict[str, float]:
        """Draws samples, and pictures them; their distance where they are enough."""
        x, labels = draw(self._config, weights)
        folder = rundir.samples(self._out)
        folder.mkdir(exist_ok=True)
        if x.ndim == 4:
            shown = None if labels is None else labels[:_SHOWN].tolist()
            plots.sample_grid(x[:_SHOWN], folder / f"step_{step:08d}.png", labels=shown)
        if len(x) < ENOUGH:
            return {}
        real = self._heldout.images(max(len(x), ENOUGH))
        return {"frechet": metrics.frechet_distance(metrics.pixels(x), metrics.pixels(real))}


def draw(config: Config, weights: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Samples by the configured sampler, as many as configured, and their labels.

    Batch by batch of training's size, by equal noise for all who ask.
    """
    part = config.sampling
    n, size = config.training.samples, config.training.batch_size
    counts = config.data.label_counts
    labels = spread_labels(counts, n) if counts else None
    grid = build.build_grid(config, part.grid, part.steps)
    sampler, parts = build.build_sampler(part.sampler, eta=part.eta), []
    guide = build.build_guide(config)
    decode = build.build_decode(config.data)
    for first in range(0, n, size):
        keys = example_keys(jax.random.key(0), size, first)
        chosen = None
        if labels is not None:
            chosen = jnp.asarray(np.resize(labels[first : first + size], size))
        denoise = build.build_denoise(config, weights, chosen, guide)
        x = sample(keys, denoise, grid, (size, *config.data.shape), sampler=sampler)
        parts.append(np.asarray(decode(x)))
    return np.clip(np.concatenate(parts)[:n], -1, 1), labels


def heldout_batches(
    data: Dataset | Encoded, batch_size: int, most: int, config: Config
) -> list[dict[str, Any]]:
    """Held-out batches of one size, so that one program does; all of a small set at once."""
    size = min(batch_size, len(data))
    dealt = data.with_batches(size, seed=config.training.seed)
    count = max(1, min(most, len(data)) // size)
    return [dealt.batch_at(i) for i in range(count)]
