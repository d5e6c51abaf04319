"""The models of `analytic_dpm`: a network with heads on it, one that learns its variance, moments.

What is trained is kept beside the results and taken from there by the next run.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import reverse, training
from jaxdiff.config import Config, build, preset
from jaxdiff.config.fields import ParametrizationConfig, ScheduleConfig, VarianceConfig
from jaxdiff.grids import from_steps
from jaxdiff.reverse import Moments
from jaxdiff.samplers import example_keys
from jaxdiff.typing import Denoise, Grid

__all__ = ["Models", "recipe", "trained"]


class Models(NamedTuple):
    """What the tables are about.

    Attributes:
        heads: the network with heads for NPR and SN, which leave its mean as it is.
        learned: the network that learned its variance.
        moments: second moments of the first, at all levels of the chain.
        chain: all steps.
        train, heldout: images [N, H, W, C] in [-1, 1].
        bins: how many grey values there are.
    """

    heads: Denoise
    learned: Denoise
    moments: Moments
    chain: Grid
    train: np.ndarray
    heldout: np.ndarray
    bins: int

    def of(self, variance: str) -> Denoise:
        """The model that a variance is of."""
        return self.learned if variance == "learned" else self.heads


def recipe(
    data: str, steps: int, heads: tuple[str, ...] = (), *, channels: int | None = None
) -> Config:
    """How a network is trained: DDPM's chain and its loss, on images without labels."""
    base, replace = preset("digits" if data == "digits" else "mnist"), dataclasses.replace
    small = {} if channels is None else {"channels": channels, "groups": 4}
    return replace(
        base,
        data=replace(base.data, source=data, labels=False),
        model=replace(base.model, **small),
        parametrization=ParametrizationConfig(name="eps"),
        schedule=ScheduleConfig("linear_betas"),
        loss=replace(base.loss, weight="simple", times="stratified", cond_dropout=0.0),
        variance=VarianceConfig(heads=heads),
        training=replace(base.training, steps=steps, log_every=500),
        sampling=replace(base.sampling, clip=False),
    )


def trained(
    data: str, out: Path, *, steps: int, head_steps: int, points: int, channels: int | None
) -> Models:
    """The models, trained where `out` does not hold them yet.

    Args:
        data: "digits" or a directory.
        out: where runs are kept.
        steps: of the network, and of that which learns its variance.
        head_steps: of the heads.
        points: images that second moments are taken on.
        channels: of the networks' first level, None for their preset's.
    """
    plain = _fit(recipe(data, steps, channels=channels), out / "mean")
    config = recipe(data, head_steps, ("npr", "sn"), channels=channels)
    denoiser = _fit(config, out / "heads", below=plain.params["params"])
    learned = _fit(recipe(data, steps, ("learned",), channels=channels), out / "learned")
    train, heldout = (build.load_data(config.data, part) for part in ("train", "heldout"))
    schedule = build.build_schedule(config)
    chain = from_steps(schedule, np.arange(float(schedule.t_max), 0, -1))
    file, params = out / f"moments_{points}.npz", denoiser.params
    if not file.exists():
        training.write_moments(file, _moments(denoiser, train.images(points), chain), params)
    moments = training.read_moments(file, schedule, params)
    images = train.images(), heldout.images()
    return Models(denoiser, learned, moments, chain, *images, train.bins)


def _fit(config: Config, out: Path, below: Any = None) -> Any:
    """The averaged network of a run, which is begun, or taken up, in `out`.

    `below`: the parameters of the network under the heads.
    """
    config, dataset = build.build_data(config)
    state = jax.jit(lambda: build.build_state(config))()
    if below is not None:
        put = lambda tree: {"params": {**tree["params"], "backbone": below}}  # noqa: E731
        state = dataclasses.replace(state, params=put(state.params), ema=put(state.ema))
    part = config.training
    done = training.fit(
        build.build_step(config), state, dataset, steps=part.steps, out=out, resume=True,
        log_every=part.log_every, save_every=part.save_every,
    )  # fmt: skip
    return build.build_denoiser(config, done.state.ema)


def _moments(denoise: Denoise, x: np.ndarray, chain: Grid, batch: int = 250) -> Moments:
    mean, found = jnp.mean(jnp.asarray(x), axis=0), None
    for first in range(0, len(x), batch):
        part = jnp.asarray(x[first : first + batch])
        keys = example_keys(jax.random.key(4), len(part), first)
        own = reverse.second_moments(keys, denoise, part, chain, mean=mean)
        found = own if found is None else reverse.merge(found, own)
    return found
