"""Snapshots of averages by powers of time, from which others are rebuilt after the training.

Each is an .npz without pickles, named by its step: `gammas` [m] and the arrays of the m averages,
"0/params/conv/kernel" and so on. Checkpoints come and go; snapshots stay.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdiff.data import files, npz
from jaxdiff.training import ema, profiles
from jaxdiff.training.comparison import leaf_differences, named
from jaxdiff.training.state import TrainState

__all__ = ["are_of", "drop_after", "rebuild", "steps", "write"]


def steps(folder: Path) -> list[int]:
    """The steps of which there are snapshots."""
    return sorted(int(path.stem) for path in folder.glob("*.npz") if path.stem.isdecimal())


def are_of(state: TrainState) -> bool:
    """Whether a state carries averages by powers, of which there are snapshots."""
    leaves = jax.tree.leaves(state.hyper["ema_decay"], is_leaf=ema.is_power)
    return any(ema.is_power(leaf) for leaf in leaves)


def write(folder: Path, state: TrainState) -> None:
    """Writes the averages by powers that a state carries, if any, whole or not at all."""
    decays, structure = jax.tree.flatten(state.hyper["ema_decay"], is_leaf=ema.is_power)
    kept = zip(decays, structure.flatten_up_to(state.ema), strict=True)
    powers = [(decay.gamma, tree) for decay, tree in kept if isinstance(decay, ema.Power)]
    if not powers or not int(state.step):
        return
    gammas, trees = zip(*powers, strict=True)
    folder.mkdir(exist_ok=True)
    arrays = {
        f"{i}/{name}": np.asarray(a) for i, t in enumerate(trees) for name, a in named(t).items()
    }
    with files.replacing(folder / f"{int(state.step)}.npz") as file:
        np.savez(file, gammas=np.asarray(gammas, np.float64), **arrays)


def drop_after(folder: Path, step: int) -> None:
    """Removes snapshots of later steps than that from which a run goes on."""
    for later in steps(folder):
        if later > step:
            (folder / f"{later}.npz").unlink()


def rebuild(folder: Path, like: Any, gamma: float, step: int) -> tuple[Any, float]:
    """The average of a power at a step, by the snapshots that there are.

    Args:
        folder: where they lie.
        like: a tree of arrays, or of their shapes and dtypes, that the average is like.
        gamma: the power, as `ema.power` has it of a width.
        step: at which the average ends.

    Returns:
        (average, `profiles.misfit` of what the snapshots can give).

    Raises:
        ValueError: there are no snapshots, or one is damaged or of another network.
    """
    found = steps(folder)
    if not found:
        raise ValueError(
            f"there are no snapshots in {folder}: train with --optimizer.power-widths 0.05 0.1"
        )
    gammas = [_read(folder, at, ["gammas"])["gammas"] for at in found]
    times = np.repeat(found, [len(g) for g in gammas])
    weights = profiles.coefficients(times, np.concatenate(gammas), step, gamma)
    off = profiles.misfit(times, np.concatenate(gammas), step, gamma)
    places = [(at, i) for at, g in zip(found, gammas, strict=True) for i in range(len(g))]

    def trees() -> Iterator[Any]:
        wanted = named(like)
        for at, i in places:
            arrays = _read(folder, at, [f"{i}/{name}" for name in wanted])
            _check(folder, at, arrays, {f"{i}/{name}": a for name, a in wanted.items()})
            yield jax.tree.unflatten(jax.tree.structure(like), list(arrays.values()))

    return profiles.combine(weights, trees()), off


def _read(folder: Path, step: int, names: list[str]) -> dict[str, np.ndarray]:
    path = folder / f"{step}.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except npz.UNREADABLE as error:
        raise ValueError(f"{path} is damaged: {error}; removed, the others serve") from error


def _check(folder: Path, step: int, arrays: dict[str, Any], wanted: dict[str, Any]) -> None:
    shapes = [
        {name: [list(a.shape), str(a.dtype)] for name, a in d.items()} for d in (arrays, wanted)
    ]
    differences = leaf_differences(*shapes)
    if differences:
        raise ValueError(f"{folder / f'{step}.npz'} is of another network: {differences[0]}")
