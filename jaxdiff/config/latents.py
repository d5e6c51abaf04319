"""The autoencoder that a configuration names in `data.latents`, as a codec, and its digest.

A run remembers the path of its autoencoder and a digest of all that its latents depend on: network,
averaged parameters, shift and scale. An autoencoder that is missing, was trained on, or is another
one, is an error before anything is compiled.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import latent, training
from jaxdiff.config.codec import from_json, to_json
from jaxdiff.config.fields import Config, DataConfig
from jaxdiff.config.model import build_model
from jaxdiff.config.networks import AutoencoderConfig, holds
from jaxdiff.config.state import averaged, build_state
from jaxdiff.data import Dataset, files
from jaxdiff.training import latents, rundir
from jaxdiff.training.comparison import named

__all__ = [
    "Opened",
    "build_decode",
    "open_codec",
    "read_shape",
    "read_weights",
    "see",
    "write_moments",
]


class Opened(NamedTuple):
    """A trained autoencoder.

    Attributes:
        path: its run.
        config: its configuration.
        codec: encoder and decoder, scaled.
        digest: of all that its latents depend on.
    """

    path: Path
    config: Config
    codec: latent.Codec
    digest: str


def read_weights(path: Path) -> tuple[Config, Any]:
    """The configuration of an autoencoder's run, and its averaged parameters.

    Raises:
        FileNotFoundError: it is no run directory, or has no checkpoint.
        ValueError: a run of something else, or one that is damaged.
    """
    config = _read_config(path)
    abstract = jax.eval_shape(lambda: build_state(config))
    return config, averaged(config, training.restore(rundir.checkpoints(path), abstract))


def _read_config(path: Path) -> Config:
    config = from_json(rundir.read_config(path)[0])
    if not isinstance(config.model, AutoencoderConfig):
        raise ValueError(f"{path} holds {holds(config.model)}, wanted a run of jaxdiff autoencoder")
    return config


def read_shape(path: Path) -> tuple[int, int, int]:
    """(h, w, C) of an autoencoder's latents, by its configuration alone: JAX does not begin.

    Raises:
        FileNotFoundError: it is no run directory.
        ValueError: a run of something else, or one that is damaged.
    """
    _check_there(path)
    config = _read_config(path)
    height, width, _ = config.data.shape
    factor = 2 ** (len(config.model.multipliers) - 1)
    return height // factor, width // factor, config.model.latents


def _check_there(path: Path) -> None:
    if not (path / "config.json").is_file():
        raise FileNotFoundError(f"data.latents {path}: there is no run of jaxdiff autoencoder")


def write_moments(path: Path, config: Config, variables: Any, found: latent.Moments) -> None:
    """Writes the moments of an autoencoder's latents beside it, and whose they are."""
    values = {
        "weights": _digest(config, variables),
        "count": int(found.count),
        "mean": np.asarray(found.mean).tolist(),
        "std": np.sqrt(np.asarray(found.var)).tolist(),
    }
    with files.replacing(rundir.latents(path)) as file:
        file.write(json.dumps(values, indent=1).encode())


def _read_moments(path: Path, config: Config, variables: Any) -> latent.Moments:
    file = rundir.latents(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"{path} has no {file.name}: its autoencoder was not trained to its end; go on with"
            f" jaxdiff autoencoder {config.data.source} --out {path} --resume"
        )
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        mean, std = (np.asarray(values[name], np.float32) for name in ("mean", "std"))
        weights, count = values["weights"], int(values["count"])
        if not mean.shape == std.shape == (config.model.latents,):
            raise ValueError(f"mean and std must be of {config.model.latents} channels")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is damaged: {error!r}") from error
    if weights != _digest(config, variables):
        raise ValueError(
            f"{file} is of other parameters than those in {rundir.checkpoints(path)}: go on with"
            f" jaxdiff autoencoder {config.data.source} --out {path} --resume"
        )
    return latent.Moments(jnp.asarray(count), jnp.asarray(mean), jnp.asarray(std) ** 2)


def _digest(config: Config, tree: Any) -> str:
    """Of a network and its arrays."""
    seen = hashlib.sha256(json.dumps(to_json(config)["model"], sort_keys=True).encode())
    for name, leaf in sorted(named(tree).items()):
        a = np.asarray(leaf)
        seen.update(f"{name} {a.dtype} {a.shape}".encode())
        seen.update(a.tobytes())
    return seen.hexdigest()


def open_codec(part: DataConfig) -> Opened:
    """The autoencoder that `part.latents` names.

    Raises:
        FileNotFoundError: there is no such run, or it has no checkpoint or was not finished.
        ValueError: it holds no autoencoder, is damaged, or is not the one that `part.codec` is the
            digest of.
    """
    path = Path(str(part.latents))
    _check_there(path)
    config, variables = read_weights(path)
    found = _read_moments(path, config, variables)
    pair = latents.codec_of(build_model(config), variables)
    codec = latent.standardised(pair, found)
    digest = _digest(config, {"weights": variables, "mean": found.mean, "var": found.var})
    if part.codec not in (None, digest):
        raise ValueError(
            f"data.latents {path} has changed since the run learned in its latents, or is another"
            f" autoencoder: its digest is {digest[:12]}, wanted {part.codec[:12]}"
        )
    return Opened(path, config, codec, digest)


def see(part: DataConfig, dataset: Dataset) -> tuple[DataConfig, Dataset | latents.Encoded]:
    """Data as the network sees them, and the configuration with the digest of what they go through.

    Raises:
        FileNotFoundError: see `open_codec`.
        ValueError: see there; or examples that the autoencoder is not for.
    """
    if part.latents is None:
        return part, dataset
    if part.augment:
        raise ValueError("data.augment distorts images, wanted 0 with data.latents; flip is taken")
    found = open_codec(part)
    wanted = tuple(found.config.data.shape)
    if dataset.example_shape != wanted:
        raise ValueError(
            f"data.latents {found.path} is for examples {list(wanted)}, {dataset.name} holds"
            f" {list(dataset.example_shape)}"
        )
    seen = latents.Encoded(dataset, found.codec, f"{dataset.name} in latents of {found.path}")
    return dataclasses.replace(part, codec=found.digest), seen


@jax.jit
def _decode(codec: latent.Codec, z: Array) -> Array:
    return codec.decode(z)


def build_decode(part: DataConfig) -> Callable[[Array], Array]:
    """From what a network draws to data: of one that learns in latents their decoder, else nothing.

    Raises:
        FileNotFoundError, ValueError: see `open_codec`.
    """
    if part.latents is None:
        return lambda x: x
    return functools.partial(_decode, open_codec(part).codec)
