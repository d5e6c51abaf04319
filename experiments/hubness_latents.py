"""Are hub latents worth it? A GAN, a VAE and DDIM on digits, each by latents of several kinds.

    python experiments/hubness_latents.py --out experiments/figures [--steps 3000] [--seeds 3]
        [--dcgan weights.tar] [--quick]

For each training seed a small GAN (R1), a small VAE and a diffusion model of the 8x8 digits are
trained, all with 64 numbers of latents under N(0, I). Then as many images are made from

    random       latents of the prior
    hubs         N_5 >= 50 in pools of 10,000
    top          the first 1 % of each pool by N_5: an equal share, no threshold
    central      the latents nearest to 0, of as large a pool for each kept: no neighbours asked
    truncated    psi z, psi such that the mean radius is that of the hubs
    antihubs     N_5 = 0

and compared with held-out digits, in pixels: precision and recall (balls to the third neighbour),
coverage, and the Frechet distance; means and standard errors over training seeds.

Claimed (Liang et al. 2022): quality rises with N_k, and hubs beat truncation. Found here, by three
training seeds (figures/hubness_latents.*): the first holds for precision and coverage, not for
recall or the distance to the data, which are best of random latents or of antihubs; the second does
not: at one radius hubs, the top 1 %, the central and the truncated ones are within two standard
errors of each other in 69 of 72 comparisons, and in all of hubs with truncated ones.

--dcgan draws faces by a trained DCGAN (see the README) of random, hub and truncated latents.

Hardware: 2 CPU cores, half an hour of their time.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import records
import tyro
from rich.console import Console
from timing import table

from jaxdiff import hubness, interop, metrics, plots, training
from jaxdiff.config import build, preset
from jaxdiff.denoiser import clip_x0
from jaxdiff.models import generators
from jaxdiff.samplers import ddim, sample
from jaxdiff.training import optim
from jaxdiff.training.generators import gan_states, make_gan_step, vae_loss

__all__ = ["KINDS", "Score", "latents", "main", "trained"]

KINDS = ("random", "hubs", "top", "central", "truncated", "antihubs")
DIM = 64
MEASURES = ("precision", "recall", "coverage", "distance")

Draw = Callable[[np.ndarray], np.ndarray]
"""Latents [N, 64] to images [N, 8, 8, 1]."""


class Score(NamedTuple):
    """A row of the table: means over training seeds, and their standard errors."""

    model: str
    latents: str
    radius: float
    precision: float
    precision_error: float
    recall: float
    recall_error: float
    coverage: float
    coverage_error: float
    distance: float
    distance_error: float


class Sizes(NamedTuple):
    """How much of everything: images a set, and the pools of latents with their threshold."""

    n: int = 400
    pool: int = 10_000
    threshold: int = 50


def latents(key: Any, sizes: Sizes) -> dict[str, np.ndarray]:
    """Latents of each kind, [n, 64]."""
    n, pool = sizes.n, sizes.pool
    hubs = hubness.hub_latents(key, n, DIM, threshold=sizes.threshold, pool=pool)
    share = max(1, pool // 100)
    top = hubness.hub_latents(key, n, DIM, threshold=None, top=share, pool=pool)
    last = hubness.hub_pool(jax.random.fold_in(key, 0), pool, DIM)
    random = hubness.draw(jax.random.fold_in(key, 1), n, DIM)
    radius = lambda z: jnp.mean(jnp.linalg.norm(z, axis=1))  # noqa: E731
    psi = radius(hubs.z) / radius(random)
    kinds = {
        "random": random,
        "hubs": hubs.z,
        "top": top.z,
        "central": hubness.central(key, n, DIM, pool=max(n, round(n / hubs.share))),
        "truncated": hubness.truncated(random, min(float(psi), 1.0)),
        "antihubs": last.z[::-1][:n],
    }
    return {name: np.asarray(z) for name, z in kinds.items()}


def trained(seed: int, steps: int, x: np.ndarray) -> dict[str, Draw]:
    """The three models of a seed, each as a function of latents."""
    key, batches = jax.random.key(seed), _Batches(x, seed)
    return {
        "GAN": _gan(key, steps, batches),
        "VAE": _vae(key, steps, batches),
        "DDIM": _ddim(seed, steps),
    }


class _Batches(NamedTuple):
    """Batches of 64 images, drawn by seed and step."""

    x: np.ndarray
    seed: int

    def at(self, step: int) -> dict[str, np.ndarray]:
        rows = np.random.default_rng([self.seed, step]).integers(len(self.x), size=64)
        return {"x": self.x[rows]}


def _gan(key: Any, steps: int, batches: _Batches) -> Draw:
    net, critic = generators.Generator((8, 8, 1), width=24, levels=1), generators.Critic(24, 1)
    optimizer = optim.adam(b1=0.5)
    hyper = {"lr": 1e-3, "ema_decay": 0.995}
    states = gan_states(key, net, critic, optimizer, latent=DIM, hyper=hyper)
    step = jax.jit(make_gan_step(net, critic, optimizer, latent=DIM, penalty=0.3))
    for i in range(steps):
        states, _ = step(states, batches.at(i))
    params, run = states.generator.ema, jax.jit(net.apply)
    return lambda z: np.asarray(run(params, jnp.asarray(z)))


def _vae(key: Any, steps: int, batches: _Batches) -> Draw:
    encoder = generators.Encoder(DIM, width=24, levels=1)
    decoder = generators.Generator((8, 8, 1), width=24, levels=1)
    params = {
        "encoder": encoder.init(key, jnp.zeros((1, 8, 8, 1))),
        "decoder": decoder.init(key, jnp.zeros((1, DIM))),
    }
    optimizer = optim.adam()
    state = training.init_state(key, params, optimizer, hyper={"lr": 1e-3, "ema_decay": 0.995})
    loss = vae_loss(
        lambda params, x: encoder.apply(params["encoder"], x),
        lambda params, z: decoder.apply(params["decoder"], z),
    )
    step = jax.jit(training.make_train_step(loss, optimizer))
    for i in range(steps):
        state, _ = step(state, batches.at(i))
    own, run = state.ema["decoder"], jax.jit(decoder.apply)
    return lambda z: np.asarray(run(own, jnp.asarray(z)))


def _ddim(seed: int, steps: int) -> Draw:
    base, replace = preset("digits"), dataclasses.replace
    config = replace(
        base,
        data=replace(base.data, labels=False),
        loss=replace(base.loss, cond_dropout=0.0),
        training=replace(base.training, seed=seed, steps=steps, batch_size=64),
    )
    config, dataset = build.build_data(config)
    state, step = build.build_state(config), jax.jit(build.build_step(config), donate_argnums=0)
    state = dataclasses.replace(state, hyper={**state.hyper, "steps": jnp.asarray(float(steps))})
    for i in range(steps):
        state, _ = step(state, dataset.batch_at(i))
    denoise = clip_x0(build.build_denoiser(config, state.ema))
    grid = build.build_grid(config, "uniform", 25)
    prior = float(grid.prior_std)

    def draw(z: np.ndarray) -> np.ndarray:
        x = jnp.asarray(z.reshape(-1, 8, 8, 1)) * prior
        key = jax.random.key(0)  # asked for, and not used: at eta = 0 nothing is drawn
        return np.asarray(sample(key, denoise, grid, x.shape, sampler=ddim(0.0), x_T=x))

    return draw


def judged(images: np.ndarray, real: np.ndarray) -> tuple[float, ...]:
    """`MEASURES` of images beside real ones."""
    fake, real = (np.clip(a, -1, 1).reshape(len(a), -1) for a in (images, real))
    shares = metrics.precision_recall(fake, real, k=3)
    covered = metrics.density_coverage(fake, real, k=5).coverage
    distance = metrics.frechet_distance(fake, real)
    return float(shares.precision), float(shares.recall), float(covered), float(distance)


def main(
    out: Path,
    steps: int = 3000,
    seeds: int = 3,
    n: int = 400,
    dcgan: Path | None = None,
    quick: bool = False,
) -> None:
    """Prints the table, and writes it and its pictures into a directory.

    Args:
        out: where hubness_latents.csv and pictures are written.
        steps: of each training.
        seeds: trainings of each model.
        n: images a set.
        dcgan: torch's weights of a DCGAN, to draw faces as well.
        quick: everything as small as it can be.
    """
    sizes = Sizes(n)
    if quick:
        steps, seeds, sizes = 2, 2, Sizes(12, 300, 20)
    console = Console(width=120)
    config, dataset = build.build_data(preset("digits"))
    heldout = build.load_data(config.data, "heldout").images()
    found: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    radii, rows = {}, []
    for seed in range(seeds):
        kinds = latents(jax.random.key(100 + seed), sizes)
        for name, draw in trained(seed, steps, dataset.images()).items():
            sets = {kind: draw(z) for kind, z in kinds.items()}
            for kind, images in sets.items():
                radii[kind] = float(np.linalg.norm(kinds[kind], axis=1).mean())
                found.setdefault((name, kind), []).append(judged(images, heldout))
            if seed == 0:
                rows += [images[:16] for images in sets.values()]
            console.log(f"seed {seed}, {name}: {found[name, 'hubs'][-1]} with hubs")
    scores = [_score(name, kind, radii[kind], values) for (name, kind), values in found.items()]
    records.write(out / "hubness_latents.csv", scores)
    console.print(_table(scores, sizes))
    plots.sample_grid(np.clip(np.concatenate(rows), -1, 1), out / "hubness_latents.png", columns=16)
    if dcgan is not None:
        faces(dcgan, out / "hubness_faces.png")


def _score(name: str, kind: str, radius: float, values: list[tuple[float, ...]]) -> Score:
    a = np.asarray(values)
    error = a.std(axis=0, ddof=1) / np.sqrt(len(a)) if len(a) > 1 else np.full(4, np.nan)
    return Score(name, kind, radius, *np.stack([a.mean(axis=0), error], axis=1).ravel().tolist())


def _table(scores: list[Score], sizes: Sizes) -> Any:
    lines = [
        [f"{s.model}, {s.latents}", f"{s.radius:.2f}", *(
            f"{getattr(s, m):.3f} ± {getattr(s, m + '_error'):.3f}" for m in MEASURES)]
        for s in scores
    ]  # fmt: skip
    title = f"{sizes.n} images a set, held-out digits in pixels"
    return table(title, ["model, latents", "radius", *MEASURES], lines)


def faces(path: Path, picture: Path) -> None:
    """Faces by a DCGAN: random latents, hubs, and truncated ones, a row each."""
    net, variables, dim = interop.convert_dcgan(interop.read_torch(path))
    key = jax.random.key(0)
    z = hubness.draw(jax.random.fold_in(key, 1), 12, dim)
    hubs = hubness.hub_latents(key, 12, dim).z
    psi = float(jnp.mean(jnp.linalg.norm(hubs, axis=1)) / jnp.mean(jnp.linalg.norm(z, axis=1)))
    rows = [z, hubs, hubness.truncated(z, min(psi, 1.0))]
    drawn = jax.jit(net.apply)(variables, jnp.concatenate(rows))
    plots.sample_grid(np.asarray(drawn), picture, columns=12)


if __name__ == "__main__":
    tyro.cli(main)
