"""Checkpoints by Orbax, sealed with digests of our own: complete and unaltered, or not used.

A checkpoint of step n is `DIRECTORY/n/`: `state/`, the arrays; `meta.json`, the run's config, the
score, and the shape and dtype of every leaf, by which a state is compared before anything is read
into it; `digests.json`, written last (see `digests`). Orbax itself takes flipped bits, other
dtypes and other key types in silence.

Not here: what a run directory holds besides (see `rundir`).
"""

import concurrent.futures
import contextlib
import errno
import json
import math
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import orbax.checkpoint as ocp

from jaxdiff.data import files
from jaxdiff.training import digests, distributed
from jaxdiff.training.comparison import leaf_differences, leaves

__all__ = [
    "Checkpoints",
    "best_step",
    "finished_steps",
    "latest_step",
    "read_meta",
    "restore",
    "set_aside",
    "sound_step",
]

_OVERHEAD = 256 * 1024  # bytes of manifests, metadata and digests, more than seen


def finished_steps(directory: str | Path) -> list[int]:
    """The steps with a complete checkpoint, rising; saves broken off and stray folders are not."""
    return sorted(step for step, folder in _numbered(directory) if digests.is_sealed(folder))


def latest_step(directory: str | Path) -> int | None:
    """The newest step with a complete checkpoint, altered or not; None if there is none."""
    return max(finished_steps(directory), default=None)


def best_step(directory: str | Path) -> int | None:
    """The step whose checkpoint has the lowest score, None if none has one."""
    scores = _scores(directory)
    return min(scores, key=scores.__getitem__, default=None)


def _scores(directory: str | Path) -> dict[int, float]:
    """The scores of the checkpoints that have one, and whose meta.json can be read."""
    scores = {}
    for step in finished_steps(directory):
        with contextlib.suppress(ValueError):
            scores[step] = read_meta(directory, step)["score"]
    return {step: score for step, score in scores.items() if score is not None}


def sound_step(directory: str | Path) -> int | None:
    """The newest step whose checkpoint is complete and unaltered, None if there is none.

    Every newer folder that is not is named in a warning. Reads all files of what it looks at.
    """
    skipped = []
    for step, folder in sorted(_numbered(directory), reverse=True):
        found = digests.faults(folder)
        if not found:
            _warn(skipped, f"the newest sound one, of step {step}, is used instead")
            return step
        skipped.append(f"checkpoint {folder} is skipped: {_listed(found)}")
    _warn(skipped, "there is no sound one")
    return None


def set_aside(directory: str | Path, step: int | None) -> None:
    """Renames what is in the way of a run that goes on from `step`: newer numbers.

    A checkpoint that is complete but altered becomes `n.damaged`, what is none `n.stray`. What a
    save that was broken off left is removed by the next one.
    """
    found = Path(directory).iterdir() if Path(directory).is_dir() else ()
    for path in [p for p in found if p.name.isdecimal() and (step is None or int(p.name) > step)]:
        sealed = digests.is_sealed(path)
        if sealed or not _is_ours(path):
            target = path.with_name(f"{path.name}.{'damaged' if sealed else 'stray'}")
            if target.is_dir():
                shutil.rmtree(target)
            path.rename(target)


def _numbered(directory: str | Path) -> list[tuple[int, Path]]:
    folders = Path(directory).absolute().iterdir() if Path(directory).is_dir() else ()
    named = (f for f in folders if f.name.isascii() and f.name.isdecimal() and f.is_dir())
    return [(int(f.name), f) for f in named if f.name == str(int(f.name))]


def _warn(skipped: list[str], instead: str) -> None:
    if skipped:
        warnings.warn(f"{'; '.join(skipped)}; {instead}", stacklevel=3)


def _listed(found: list[str]) -> str:
    return "; ".join(found[:8]) + ("; ..." if len(found) > 8 else "")


def read_meta(directory: str | Path, step: int) -> dict[str, Any]:
    """The JSON beside a checkpoint: "config", "score" and "leaves" (path to [shape, dtype]).

    Raises:
        FileNotFoundError: there is no complete checkpoint of that step.
        ValueError: it is damaged.
    """
    folder = _folder(directory, step)
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        found = meta["leaves"].items()
        described = {path: [list(shape), str(dtype)] for path, (shape, dtype) in found}
        return {"config": meta["config"], "score": meta["score"], "leaves": described}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"checkpoint {folder} is damaged: meta.json gives {error!r}") from error


def restore(directory: str | Path, target: Any, step: int | None = None) -> Any:
    """Reads a checkpoint into the structure, dtypes and shardings of `target`.

    Args:
        directory: where checkpoints lie.
        target: a tree of arrays, or of `jax.ShapeDtypeStruct` (`jax.eval_shape` gives one), which
            without a sharding are read to the first device.
        step: which one; the newest sound one if None.

    Returns:
        The saved tree.

    Raises:
        FileNotFoundError: there is no complete checkpoint (of that step).
        ValueError: the saved tree has other leaves, shapes or dtypes; all differences are named.
            Or the checkpoint of that step was altered.
    """
    if step is None and latest_step(directory) is not None:
        step = sound_step(directory)
        if step is None:
            raise ValueError(f"no checkpoint in {directory} is sound, see the warning")
    else:
        found = digests.faults(_folder(directory, step))
        if found:
            raise ValueError(f"checkpoint {_folder(directory, step)} is damaged: {_listed(found)}")
    folder = _folder(directory, step)
    differences = leaf_differences(read_meta(directory, step)["leaves"], leaves(target))
    if differences:
        shown = _listed(differences)
        raise ValueError(f"checkpoint {folder} does not fit the state asked for: {shown}")
    with ocp.StandardCheckpointer() as reader:
        return reader.restore(folder / "state", jax.tree.map(_abstract, target))


def _folder(directory: str | Path, step: int | None) -> Path:
    if step not in (found := finished_steps(directory)):
        which = "" if step is None else f" of step {step} (there are {found})"
        raise FileNotFoundError(f"no complete checkpoint{which} in {directory}")
    return Path(directory).absolute() / str(step)


def _abstract(a: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(a, "sharding", None)
    sharding = sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding)


class Checkpoints:
    """A directory of checkpoints that is being written to; close it, or use it in a `with`.

    Attributes:
        directory: where they lie.
    """

    def __init__(self, directory: str | Path, *, keep: int = 3, keep_best: int = 0):
        """Opens a directory, and makes it if need be.

        Args:
            directory: one folder a checkpoint goes in here.
            keep: how many of the newest stay.
            keep_best: how many of those with the lowest scores stay besides.
        """
        if keep < 1:
            raise ValueError(f"keep must be at least 1, got {keep}")
        if keep_best < 0:
            raise ValueError(f"keep_best must not be negative, got {keep_best}")
        self.directory = Path(directory).absolute()
        distributed.by_first(lambda: self.directory.mkdir(parents=True, exist_ok=True))
        self._keep, self._keep_best = keep, keep_best
        self._newest = latest_step(self.directory)
        # Folders are made before `save` returns: where that fails, it fails at once; in the
        # background Orbax would wait for them until a timeout of minutes.
        ahead = ocp.AsyncOptions(create_directories_asynchronously=False)
        self._writer = ocp.StandardCheckpointer(async_options=ahead)
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self._under_way: concurrent.futures.Future | None = None

    def save(
        self,
        step: int,
        state: Any,
        config: Mapping[str, Any] | None = None,
        *,
        score: float | None = None,
    ) -> None:
        """Begins to save; the state may be donated as soon as this returns.

        Called by all processes, where there are several.

        Args:
            step: the checkpoint's number, above those of all that are there.
            state: a tree of arrays.
            config: JSON values, saved beside.
            score: how good it is, lower is better; None for not known.

        Raises:
            FileExistsError: the step is there already, or a folder of its name that is not ours.
            ValueError: the step is negative or older than the newest.
            OSError: it cannot be written, or the last one could not.
        """
        self.wait()
        folder = self.directory / str(step)
        if digests.is_sealed(folder):
            raise FileExistsError(errno.EEXIST, "checkpoint exists already", str(folder))
        newest = self._newest
        if step < 0 or (newest is not None and step <= newest):
            wanted = ">= 0" if newest is None else f"above {newest}, the newest in {self.directory}"
            raise ValueError(f"step must be {wanted}, got {step}")
        meta = {"config": dict(config or {}), "score": _finite(score), "leaves": leaves(state)}
        distributed.by_first(lambda: _prepare(folder, state))
        with _explained(folder):
            self._writer.save(folder / "state", state)
        self._under_way = self._pool.submit(self._finish, folder, meta)
        self._newest = step

    def _finish(self, folder: Path, meta: dict[str, Any]) -> None:
        """Waits for the arrays, seals the checkpoint, and lets older ones go."""
        with _explained(folder):
            self._writer.wait_until_finished()
            if not distributed.is_first():
                return
            if not (folder / "state").is_dir():
                raise RuntimeError("Orbax wrote nothing")
            with files.replacing(folder / "meta.json") as file:
                file.write(json.dumps(meta, indent=1).encode())
            digests.seal(folder)
        steps = finished_steps(self.directory)
        for step in sorted(set(steps) - set(steps[-self._keep :]) - self._best()):
            digests.unseal(self.directory / str(step))  # what is left of it then counts as broken
            shutil.rmtree(self.directory / str(step))

    def _best(self) -> set[int]:
        scores = _scores(self.directory)
        return set(sorted(scores, key=scores.__getitem__)[: self._keep_best])

    def wait(self) -> None:
        """Returns when all that was begun is on disk; raises what went wrong meanwhile."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def close(self) -> None:
        """Waits, and lets go of the directory."""
        try:
            self.wait()
        finally:
            self._pool.shutdown()
            self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, ConnectionError):  # what is under way waits for the lost process
            self._pool.shutdown(wait=False)
        else:
            self.close()


def _finite(score: float | None) -> float | None:
    """A score that can be compared, and be written as JSON."""
    return None if score is None or not math.isfinite(score) else float(score)


def _is_ours(folder: Path) -> bool:
    """Whether it holds nothing but what a save that was broken off leaves."""
    ours = ("state", "meta.json", ".meta.json", ".digests.json")
    return folder.is_dir() and all(path.name.startswith(ours) for path in folder.iterdir())


def _prepare(folder: Path, state: Any) -> None:
    _remove_broken(folder)
    _check_space(folder, state)
    folder.mkdir()


def _remove_broken(folder: Path) -> None:
    """Removes what a save that was broken off left, and nothing else."""
    if not folder.exists():
        return
    if not _is_ours(folder):
        raise FileExistsError(errno.EEXIST, "no checkpoint, but in the way of one", str(folder))
    shutil.rmtree(folder)


def _check_space(folder: Path, state: Any) -> None:
    """Raises before anything is written where the disk is full: Orbax's threads complain at length.

    Compression may save a little, which is not counted on.
    """
    need = sum(a.nbytes for a in jax.tree.leaves(state) if hasattr(a, "nbytes"))
    free = shutil.disk_usage(folder.parent).free
    if free < need + _OVERHEAD:
        what = (
            f"checkpoint of step {folder.name} was not saved (no space left on the device:"
            f" {need + _OVERHEAD:,} bytes needed, {free:,} free), older ones stay"
        )
        raise OSError(errno.ENOSPC, what, str(folder))


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """What goes wrong in writing as an OSError that names the checkpoint, whose rest is removed."""
    try:
        yield
    except Exception as error:  # what is raised depends on the storage below Orbax
        if distributed.is_first():
            shutil.rmtree(folder, ignore_errors=True)
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        number = errno.ENOSPC if full else getattr(error, "errno", None) or errno.EIO
        reason = "no space left on the device" if full else str(error).strip().split("\n")[0]
        what = f"checkpoint of step {folder.name} was not saved ({reason}), older ones stay"
        raise OSError(number, what, str(folder)) from error
