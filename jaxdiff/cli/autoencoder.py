"""`jaxdiff autoencoder`: from images to an autoencoder, in whose latents models learn."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.table import Table

from jaxdiff import config as configs
from jaxdiff import latent, plots, training
from jaxdiff.cli import outputs, recipes, train
from jaxdiff.cli.say import show
from jaxdiff.cli.together import use_cores
from jaxdiff.config import build, latents
from jaxdiff.data import Dataset
from jaxdiff.training import rundir
from jaxdiff.training.latents import Encoded, codec_of, measure

__all__ = ["main"]

_SHOWN = 32  # images in a picture, each beside its reconstruction
_LIMIT = 10_000  # examples that are measured at most


@dataclasses.dataclass(frozen=True)
class Parts:
    """What of a configuration an autoencoder has."""

    data: configs.DataConfig
    model: configs.AutoencoderConfig
    optimizer: configs.OptimizerConfig
    training: configs.TrainingConfig


@dataclasses.dataclass(frozen=True)
class Train:
    """Train an autoencoder on the images in DATA, into a run directory.

    DATA is as in `jaxdiff train`. In the end the mean and deviation of its latents are measured,
    which train takes off them, and images that were held out are encoded and decoded. Then
    `jaxdiff train DATA --data.latents OUT` learns in its latents.
    """

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """"digits" or a path."""
    out: Path | None = None
    """The run directory to write: config.json, log.csv, checkpoints/, latents.json."""
    plot: Path | None = None
    """A picture of held-out images, each beside its reconstruction, .png, .pdf or .svg."""
    steps: int | None = None
    """How many steps to train."""
    seconds: float | None = None
    """How long to train instead, compilation included."""
    seed: int | None = None
    """Of parameters, noise and the order of the data."""
    resume: bool = False
    """Go on with the run in --out, or begin if there is none."""
    overwrite: bool = False
    """Begin anew in --out, whose run is removed."""
    dry_run: bool = False
    """Print the resolved configuration, train nothing."""
    parts: Annotated[Parts, tyro.conf.arg(name="")] = tyro.MISSING


def main(arguments: Sequence[str]) -> int:
    """Runs the command; see `jaxdiff.cli.main`."""
    stored = train.resumed(list(arguments))
    base = stored or configs.AUTOENCODER
    if not isinstance(base.model, configs.AutoencoderConfig):
        raise ValueError(f"--out holds {configs.holds(base.model)}, which jaxdiff train resumes")
    flags, config = recipes.parse(Train, Parts, base, "jaxdiff autoencoder", arguments)
    plot = flags.pop("plot")
    outputs.check("--plot", plot, [f".{kind}" for kind in plots.FORMATS])
    use_cores(config)
    whole = train.Train(**flags, config=config)
    status = train.train(whole, base, stored)
    if status == 0 and not whole.dry_run and _is_finished(whole.out):
        _look(whole.out, plot)
    return status


def _is_finished(run: Path) -> bool:
    """Whether it was trained to its end, rather than stopped."""
    return training.latest_step(rundir.checkpoints(run)) == rundir.read_config(run)[1]


def _look(path: Path, plot: Path | None) -> None:
    """Measures the latents, which is written beside the run, and the error of what is decoded."""
    config, variables = latents.read_weights(path)
    plain = codec_of(build.build_model(config), variables)
    found = measure(plain, build.load_data(config.data, "train"), _LIMIT)
    latents.write_moments(path, config, variables, found)
    opened = build.open_codec(configs.DataConfig(latents=str(path)))
    seen = Encoded(build.load_data(config.data, "heldout"), opened.codec, str(path))
    z, x = seen.images(_LIMIT), seen.data.images(_LIMIT)
    decode = build.build_decode(configs.DataConfig(latents=str(path)))
    again = np.concatenate([decode(z[i : i + 256]) for i in range(0, len(z), 256)])
    show(_errors(x, again, seen.data), _moments(found))
    if plot is not None:
        pairs = np.stack([x[:_SHOWN], again[:_SHOWN]], axis=1)
        title = "held-out images, each beside its reconstruction"
        plots.sample_grid(pairs.reshape(-1, *x.shape[1:]), plot, columns=8, title=title)


def _errors(x: np.ndarray, again: np.ndarray, dataset: Dataset) -> Table:
    """How far reconstructions are from held-out images [M, H, W, C] in [-1, 1]."""
    square = np.mean((x - again) ** 2, axis=(1, 2, 3))
    error = np.std(square) / np.sqrt(len(square))
    table = Table("held out", title=f"reconstruction of {len(x)} of {dataset.name}")
    table.add_column("value", justify="right")
    table.add_row("mean squared error", f"{np.mean(square):.6f} +- {error:.6f}")
    table.add_row("its root", f"{np.sqrt(np.mean(square)):.4f}")
    table.add_row("PSNR in dB (range 2)", f"{10 * np.log10(4 / np.mean(square)):.2f}")
    table.add_row("of the variance, left out", f"{np.mean(square) / np.var(x, axis=0).mean():.5f}")
    return table


def _moments(found: latent.Moments) -> Table:
    """The moments by channel, before they are scaled."""
    table = Table("channel", title=f"latents, {int(found.count):,} numbers a channel")
    for name in ("mean", "deviation"):
        table.add_column(name, justify="right")
    stds = np.sqrt(np.asarray(found.var))
    for i, (mean, std) in enumerate(zip(np.asarray(found.mean), stds, strict=True)):
        table.add_row(str(i), f"{mean:.4f}", f"{std:.4f}")
    return table
