"""A run directory: what it holds, and the small files in it.

RUN/config.json     the run's config, and the number of steps it goes to
RUN/log.csv         a row for every so many steps
RUN/evaluation.csv  a row for every checkpoint, where the run is evaluated under way
RUN/checkpoints/    one folder a checkpoint (see `checkpoint`)
RUN/averages/       snapshots of averages by powers of time (see `snapshots`)
RUN/samples/        pictures drawn at checkpoints
RUN/backbone/       what besides parameters describes a network that is tuned, such as tokenizers
RUN/latents.json    mean and deviation of what an autoencoder's encoder gives
RUN/test.json       how well it does on its test part
RUN/tensorboard/    events, where they are asked for
"""

import contextlib
import csv
import errno
import io
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from jaxdiff.data import files

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

__all__ = [
    "CsvLog",
    "averages",
    "backbone",
    "check_names",
    "check_writable",
    "checkpoints",
    "clear",
    "evaluations",
    "latents",
    "locked",
    "log",
    "read_config",
    "read_evaluations",
    "read_log",
    "samples",
    "tensorboard",
    "test_result",
    "write_config",
]

_COLUMNS = ("step", "seconds")  # what every table has


def checkpoints(run: str | Path) -> Path:
    """Where a run's checkpoints lie."""
    return Path(run) / "checkpoints"


def averages(run: str | Path) -> Path:
    """Where snapshots of averages lie."""
    return Path(run) / "averages"


def log(run: str | Path) -> Path:
    """Where a run's log lies."""
    return Path(run) / "log.csv"


def evaluations(run: str | Path) -> Path:
    """Where the table of evaluations lies."""
    return Path(run) / "evaluation.csv"


def samples(run: str | Path) -> Path:
    """Where pictures of samples drawn under way lie."""
    return Path(run) / "samples"


def backbone(run: str | Path) -> Path:
    """Where the files of a network that is tuned lie, without its parameters."""
    return Path(run) / "backbone"


def latents(run: str | Path) -> Path:
    """Where the moments of an autoencoder's latents lie."""
    return Path(run) / "latents.json"


def test_result(run: str | Path) -> Path:
    """Where the result on the test part lies."""
    return Path(run) / "test.json"


def tensorboard(run: str | Path) -> Path:
    """Where TensorBoard finds its events."""
    return Path(run) / "tensorboard"


def check_writable(run: str | Path) -> None:
    """Raises the fitting OSError if `run` cannot be made, or be written in."""
    path = Path(run).absolute()
    there = next(p for p in (path, *path.parents) if p.exists())
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there))
    if not os.access(there, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(there))


@contextlib.contextmanager
def locked(run: str | Path) -> Iterator[None]:
    """Keeps a run directory, which is made if need be, to this process while it writes there.

    By a lock on the directory itself, which ends with the process however it ends. Where the
    system or the file system has no such locks, nothing is kept.

    Raises:
        BlockingIOError: another process is training there.
    """
    Path(run).mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield
        return
    held = os.open(run, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            what = "another process is training in it"
            raise BlockingIOError(errno.EWOULDBLOCK, what, str(run)) from error
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(held)


def clear(run: str | Path) -> None:
    """Removes a run's config, logs, checkpoints and the like, and nothing else that lies there.

    Raises:
        ValueError: something of these names is there, but no run: nothing is removed.
    """
    tables = (log(run), evaluations(run), latents(run), test_result(run))
    folders = (checkpoints(run), averages(run), samples(run), tensorboard(run), backbone(run))
    config = Path(run) / "config.json"
    if config.exists():
        read_config(run)
    elif any(path.exists() for path in (*tables, *folders)):
        raise ValueError(f"{run} holds no run, as it has no config.json: nothing was removed")
    for path in (config, *tables):
        path.unlink(missing_ok=True)
    for folder in folders:
        # What lies in it: the folder itself may be a link to another disk.
        for path in folder.iterdir() if folder.is_dir() else ():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def check_names(values: Mapping[str, Any]) -> None:
    """Raises ValueError where numbers have the names of columns that every table has."""
    taken = [name for name in _COLUMNS if name in values]
    if taken:
        raise ValueError(f"metrics must not be called {' or '.join(_COLUMNS)}, got {taken}")


def write_config(run: str | Path, config: Mapping[str, Any], total: int | None = None) -> None:
    """Writes config.json: {"config": config, "total_steps": total}, None while undecided."""
    text = json.dumps({"config": config, "total_steps": total}, indent=2) + "\n"
    with files.replacing(Path(run) / "config.json") as file:
        file.write(text.encode())


def read_config(run: str | Path) -> tuple[dict[str, Any], int | None]:
    """Reads what `write_config` wrote.

    Returns:
        (config, total steps or None).

    Raises:
        FileNotFoundError: `run` is no run directory.
        ValueError: the file is not such a JSON, or of another encoding.
    """
    path = Path(run) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{run} is not a run directory: there is no {path}")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        config, total = record["config"], record["total_steps"]
        if not (total is None or type(total) is int):
            raise ValueError(f"total_steps must be a whole number or null, got {total!r}")
        return config, total
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged or of something else: {error!r}") from error


def read_log(run: str | Path) -> list[dict[str, float]]:
    """The rows of log.csv, [] if there is none; a last line that was cut off is left out.

    Raises:
        ValueError: the file is no such table.
    """
    return _read_rows(log(run), ("step", "seconds", "loss"))


def read_evaluations(run: str | Path) -> list[dict[str, float]]:
    """The rows of evaluation.csv, likewise."""
    return _read_rows(evaluations(run), _COLUMNS)


def _read_rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, float]]:
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            text = file.read()
        whole_lines = text[: text.rfind("\n") + 1]  # the last one may have been cut off
        header, *lines = list(csv.reader(io.StringIO(whole_lines))) or [list(columns)]
        if not set(columns) <= set(header):
            raise ValueError(f"columns must hold {', '.join(columns)}, got {', '.join(header)}")
        whole = [line for line in lines if len(line) == len(header) and all(line)]
        rows = [dict(zip(header, map(float, line), strict=True)) for line in whole]
        return [{**row, "step": int(row["step"])} for row in rows]
    except (ValueError, OverflowError, csv.Error) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _readable(path: Path) -> list[dict[str, float]]:
    """The rows of a table; none, and a warning, where it is damaged, which is then kept aside."""
    try:
        return _read_rows(path, _COLUMNS)
    except ValueError as error:
        aside = path.with_name(f"{path.name}.damaged")
        path.replace(aside)
        warnings.warn(f"{error}; it is kept as {aside.name}", stacklevel=3)
        return []


def _write_rows(path: Path, columns: list[str], rows: list[dict[str, float]]) -> None:
    table = io.StringIO(newline="")
    if columns:
        writer = csv.DictWriter(table, columns, restval="nan")
        writer.writeheader()
        writer.writerows(rows)
    with files.replacing(path) as file:
        file.write(table.getvalue().encode())


class CsvLog:
    """A table by steps being appended to; its columns are those of its first row.

    Attributes:
        seconds: the time in its last row when it was opened, 0 if there was none.
        first_loss: the loss in its first row then, None if there was none.
    """

    def __init__(self, path: str | Path, *, step: int = 0):
        """Opens the table of a run that goes on from `step`: later rows are dropped."""
        path = Path(path)
        rows = [row for row in _readable(path) if row["step"] <= step]
        self.seconds: float = rows[-1]["seconds"] if rows else 0.0
        self.first_loss: float | None = rows[0].get("loss") if rows else None
        self._columns = list(rows[0]) if rows else None
        if path.is_file():
            _write_rows(path, self._columns or [], rows)
        self._path = path
        self._file: TextIO | None = None

    def write(self, row: Mapping[str, float]) -> None:
        """Appends a row at once; columns that are new are nan in the rows before, and so on."""
        if self._columns is not None and set(row) - set(self._columns):
            self._widen(list(row))
        if self._file is None:
            self._file = self._path.open("a", newline="")
        if self._columns is None:
            self._columns = list(row)
            csv.writer(self._file).writerow(self._columns)
        csv.DictWriter(self._file, self._columns, restval="nan").writerow(row)
        self._file.flush()

    def _widen(self, names: list[str]) -> None:
        """Writes the table anew with further columns."""
        rows = _read_rows(self._path, _COLUMNS)
        if self._file is not None:
            self._file.close()
        self._columns = [*self._columns, *(name for name in names if name not in self._columns)]
        _write_rows(self._path, self._columns, rows)
        self._file = self._path.open("a", newline="")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
