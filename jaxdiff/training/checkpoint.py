"""Checkpoints by Orbax: written in the background, complete or absent.

A checkpoint of step n is `DIRECTORY/n/`: `state`, the arrays; `meta`, JSON with the run's config
and the shape and dtype of every leaf, by which a state is compared before anything is read into
it (Orbax itself casts dtypes and key types in silence).

Not here: what a run directory holds besides (see `rundir`).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import orbax.checkpoint as ocp

__all__ = ["Checkpoints", "finished_steps", "latest_step", "read_meta", "restore"]


def finished_steps(directory: str | Path) -> list[int]:
    """The steps with a complete checkpoint, rising; saves broken off and stray folders are not."""
    folders = Path(directory).iterdir() if Path(directory).is_dir() else ()
    return sorted(int(f.name) for f in folders if f.name.isdecimal() and _is_finished(f))


def latest_step(directory: str | Path) -> int | None:
    """The newest step with a complete checkpoint, None if there is none."""
    return max(finished_steps(directory), default=None)


def _is_finished(folder: Path) -> bool:
    marks = ("_CHECKPOINT_METADATA", "state/_METADATA", "meta/metadata")
    return all((folder / mark).is_file() for mark in marks)


def read_meta(directory: str | Path, step: int) -> dict[str, Any]:
    """The JSON beside a checkpoint: "config" and "leaves" (path to [shape, dtype]).

    Raises:
        FileNotFoundError: there is no complete checkpoint of that step.
        ValueError: it is damaged.
    """
    folder = _folder(directory, step)
    try:
        meta = json.loads((folder / "meta" / "metadata").read_text(encoding="utf-8"))
        leaves = meta["leaves"].items()
        described = {path: [list(shape), str(dtype)] for path, (shape, dtype) in leaves}
        return {"config": meta["config"], "leaves": described}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"checkpoint {folder} is damaged: its meta gives {error!r}") from error


def restore(directory: str | Path, target: Any, step: int | None = None) -> Any:
    """Reads a checkpoint into the structure, dtypes and shardings of `target`.

    Args:
        directory: where checkpoints lie.
        target: a tree of arrays, or of `jax.ShapeDtypeStruct` (`jax.eval_shape` gives one), which
            without a sharding are read to the first device.
        step: which one; the newest complete one if None.

    Returns:
        The saved tree.

    Raises:
        FileNotFoundError: there is no complete checkpoint (of that step).
        ValueError: the saved tree has other leaves, shapes or dtypes; all differences are named.
            Or the checkpoint is damaged.
    """
    if step is None:
        step = latest_step(directory)
    folder = _folder(directory, step)
    differences = _differences(read_meta(directory, step)["leaves"], _leaves(target))
    if differences:
        shown = "; ".join(differences[:8]) + ("; ..." if len(differences) > 8 else "")
        raise ValueError(f"checkpoint {folder} does not fit the state asked for: {shown}")
    wanted = jax.tree.map(_abstract, target)
    try:
        with ocp.StandardCheckpointer() as reader:
            return reader.restore(folder / "state", wanted)
    except (MemoryError, jax.errors.JaxRuntimeError):  # the device's fault, not the file's
        raise
    except Exception as error:  # what a damaged file raises depends on the storage below Orbax
        raise ValueError(f"checkpoint {folder} is damaged: {error}") from error


def _folder(directory: str | Path, step: int | None) -> Path:
    if step not in (found := finished_steps(directory)):
        which = "" if step is None else f" of step {step} (there are {found})"
        raise FileNotFoundError(f"no complete checkpoint{which} in {directory}")
    return Path(directory).absolute() / str(step)


def _leaves(tree: Any) -> dict[str, list]:
    """From each leaf's path to [shape, dtype]; a key's dtype names its implementation."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): [list(a.shape), str(a.dtype)] for path, a in leaves}


def _differences(saved: dict[str, list], wanted: dict[str, list]) -> list[str]:
    """What keeps `saved` from being read as `wanted`, leaf by leaf, in words."""
    show = "{1}{0}".format
    missing = [f"{p} is not in it" for p in wanted if p not in saved]
    unknown = [f"{p} is in it, but not wanted" for p in saved if p not in wanted]
    changed = [
        f"{p} is {show(*saved[p])}, wanted {show(*wanted[p])}"
        for p in wanted
        if p in saved and saved[p] != wanted[p]
    ]
    return missing + unknown + changed


def _abstract(a: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(a, "sharding", None)
    sharding = sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding)


class Checkpoints:
    """A directory of checkpoints that is being written to; close it, or use it in a `with`.

    Attributes:
        directory: where they lie.
    """

    def __init__(self, directory: str | Path, *, keep: int = 3):
        """Opens a directory, and makes it if need be.

        Args:
            directory: one folder a checkpoint goes in here.
            keep: how many of the newest stay.
        """
        if keep < 1:
            raise ValueError(f"keep must be at least 1, got {keep}")
        self.directory = Path(directory).absolute()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._remove_empty()
        self._newest = latest_step(self.directory)
        # Folders are made before `save` returns: where that fails, it fails at once; in the
        # background Orbax would wait for them until a timeout of minutes.
        ahead = ocp.AsyncOptions(create_directories_asynchronously=False)
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=False, async_options=ahead)
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def _remove_empty(self) -> None:
        """Empty numeric folders, which Orbax would take for the newest checkpoint."""
        for folder in self.directory.iterdir():
            if folder.name.isdecimal() and folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def save(self, step: int, state: Any, config: Mapping[str, Any] | None = None) -> None:
        """Begins to save; the state may be donated as soon as this returns.

        Args:
            step: the checkpoint's number, above those of all that are there.
            state: a tree of arrays.
            config: JSON values, saved beside.

        Raises:
            FileExistsError: the step is there already.
            ValueError: the step is negative or older than the newest.
            RuntimeError: Orbax did not save, now or the last time.
        """
        if (self.directory / str(step)).exists():
            raise FileExistsError(f"checkpoint {self.directory / str(step)} exists already")
        newest = self._newest
        if step < 0 or (newest is not None and step <= newest):
            wanted = ">= 0" if newest is None else f"above {newest}, the newest in {self.directory}"
            raise ValueError(f"step must be {wanted}, got {step}")
        meta = {"config": dict(config or {}), "leaves": _leaves(state)}
        parts = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        # force: without it Orbax skips a save it thinks untimely, and says nothing.
        if not self._manager.save(step, args=parts, force=True):
            raise RuntimeError(f"checkpoint of step {step} was not saved in {self.directory}")
        self._newest = step

    def wait(self) -> None:
        """Returns when all that was begun is on disk; raises what went wrong meanwhile."""
        self._manager.wait_until_finished()
        self._manager.check_for_errors()

    def close(self) -> None:
        """Waits, and lets go of the directory."""
        self.wait()
        self._manager.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
