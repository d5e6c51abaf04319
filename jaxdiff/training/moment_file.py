"""Second moments of a model as a file, which knows what model and schedule it is of.

An .npz without pickles: the format's version, the levels, each average as mean, squares and count,
the SHA-256 of the parameters (names, dtypes, shapes and bytes of all leaves, sorted by name), and a
few words on how it came about. The schedule is told by its own numbers, not by a digest: alpha and
sigma differ in their last bit from machine to machine.
"""

import hashlib
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.arrays import float_dtype
from jaxdiff.data import files, npz
from jaxdiff.reverse import Average, Moments
from jaxdiff.typing import NoiseLevel, Schedule

__all__ = ["read_moments", "write_moments"]

_VERSION = 1
_AVERAGES = ("eps", "unexplained", "residual", "spread")
_UNREADABLE = (*npz.UNREADABLE, TypeError)


def write_moments(path: str | os.PathLike, moments: Moments, params: Any, **about: Any) -> None:
    """Writes moments, whole or not at all.

    Args:
        path: the file to write, ending in .npz; its directory must exist.
        moments: from `reverse.second_moments`.
        params: the parameters of the model that they are of.
        about: a few words by name on how they came about, such as data="digits"; errors of
            `read_moments` repeat them.

    Raises:
        ValueError: the name does not end in .npz.
        OSError: the file cannot be written.
    """
    if Path(path).suffix != ".npz":
        raise ValueError(f"path must end in .npz, got {path}")
    arrays = {"version": _VERSION, "parameters": _digest(params), "about": json.dumps(about)}
    arrays |= moments.levels._asdict()
    for name in _AVERAGES:
        average = getattr(moments, name)
        if average is not None:
            arrays |= {f"{name}_{part}": value for part, value in vars(average).items()}
    with files.replacing(path) as file:
        np.savez(file, **{name: np.asarray(value) for name, value in arrays.items()})


def read_moments(path: str | os.PathLike, schedule: Schedule, params: Any) -> Moments:
    """Reads moments, of this model alone.

    Args:
        path: a file that `write_moments` wrote.
        schedule: the model's: at the stored times it must have the stored alpha and sigma, to a
            relative 1e-5.
        params: the model's parameters.

    Returns:
        Moments.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, no such file, of another version of the format, of other
            parameters or of another schedule.
    """
    path = Path(path)
    files.check_readable(path)
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not an .npz file")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        version = int(arrays["version"])
    except _UNREADABLE as error:
        raise ValueError(f"{path} is damaged, or no file of moments: {error}") from error
    if version != _VERSION:
        raise ValueError(f"{path} must be of version {_VERSION} of the format, got {version}")
    try:
        moments, about = _moments(arrays), json.loads(str(arrays["about"]))
        digest, told = str(arrays["parameters"]), ", ".join(f"{k} {v}" for k, v in about.items())
    except (*_UNREADABLE, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    of = f"{path} holds moments" + (f" ({told})" if told else "")
    if digest != _digest(params):
        raise ValueError(f"{of} of a model with other parameters than these")
    _check_schedule(of, moments.levels, schedule)
    return moments


def _moments(arrays: dict[str, np.ndarray]) -> Moments:
    """The moments in a file, having looked at their shapes and numbers."""
    dtype = float_dtype()
    levels = NoiseLevel(*(arrays[name] for name in NoiseLevel._fields))
    count = np.shape(levels.t)
    if len(count) != 1 or any(np.shape(a) != count or not np.isfinite(a).all() for a in levels):
        raise ValueError("its levels must be finite numbers [N] each")
    found = {}
    for name in _AVERAGES:
        parts = [arrays.get(f"{name}_{part}") for part in ("mean", "squares", "count")]
        if name != "eps" and all(part is None for part in parts):
            continue
        mean, squares, number = parts
        wanted = () if name == "spread" else count
        sound = mean.shape == squares.shape == wanted and number.shape == () and number >= 1
        if not (sound and np.isfinite(mean).all() and np.all(squares >= 0)):
            raise ValueError(f"its {name} must be finite numbers {list(wanted)}")
        found[name] = Average(*(jnp.asarray(part, dtype) for part in parts))
    return Moments(NoiseLevel(*(jnp.asarray(a, dtype) for a in levels)), **found)


def _check_schedule(of: str, levels: NoiseLevel, schedule: Schedule) -> None:
    try:
        mine = schedule(levels.t)
    except ValueError as error:
        raise ValueError(f"{of} of another schedule: {error}") from error
    for name in ("alpha", "sigma"):
        stored, here = (np.asarray(getattr(level, name)) for level in (levels, mine))
        apart = ~np.isclose(here, stored, rtol=1e-5, atol=1e-6)
        if apart.any():
            k = int(np.argmax(apart))
            raise ValueError(
                f"{of} of another schedule: {name} = {stored[k]:g} at t = {levels.t[k]:g}, where"
                f" this one has {here[k]:g}"
            )


def _digest(params: Any) -> str:
    """The SHA-256 of all leaves, whatever the order in which the tree holds them."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    named = sorted((jax.tree_util.keystr(path), leaf) for path, leaf in leaves)
    total = hashlib.sha256()
    for name, leaf in named:
        array = np.asarray(leaf)
        total.update(f"{name} {array.dtype} {array.shape}\n".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()
