"""A run directory: what it holds, and the small files in it.

RUN/config.json     the run's config, and the number of steps it goes to
RUN/log.csv         a row for every so many steps
RUN/evaluation.csv  a row for every checkpoint, where the run is evaluated under way
RUN/checkpoints/    one folder a checkpoint (see `checkpoint`)
RUN/samples/        pictures drawn at checkpoints
RUN/tensorboard/    events, where they are asked for
"""

import csv
import errno
import io
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from jaxdiff.data import files

__all__ = [
    "CsvLog",
    "check_writable",
    "checkpoints",
    "evaluations",
    "log",
    "read_config",
    "read_evaluations",
    "read_log",
    "samples",
    "tensorboard",
    "write_config",
]

_COLUMNS = ("step", "seconds")  # what every table has


def checkpoints(run: str | Path) -> Path:
    """Where a run's checkpoints lie."""
    return Path(run) / "checkpoints"


def log(run: str | Path) -> Path:
    """Where a run's log lies."""
    return Path(run) / "log.csv"


def evaluations(run: str | Path) -> Path:
    """Where the table of evaluations lies."""
    return Path(run) / "evaluation.csv"


def samples(run: str | Path) -> Path:
    """Where pictures of samples drawn under way lie."""
    return Path(run) / "samples"


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


def clear(run: str | Path) -> None:
    """Removes a run's config, logs, checkpoints and samples, and nothing else that lies there."""
    for path in (Path(run) / "config.json", log(run), evaluations(run)):
        path.unlink(missing_ok=True)
    for folder in (checkpoints(run), samples(run), tensorboard(run)):
        if folder.is_dir():
            shutil.rmtree(folder)


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
        raise ValueError(f"{path} is damaged: {error!r}") from error


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
            header, *lines = list(csv.reader(file)) or [list(columns)]
        if not set(columns) <= set(header):
            raise ValueError(f"columns must hold {', '.join(columns)}, got {', '.join(header)}")
        whole = [line for line in lines if len(line) == len(header) and all(line)]
        rows = [dict(zip(header, map(float, line), strict=True)) for line in whole]
        return [{**row, "step": int(row["step"])} for row in rows]
    except (ValueError, OverflowError, csv.Error) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


class CsvLog:
    """A table by steps being appended to; its columns are those of its first row.

    Attributes:
        seconds: the time in its last row when it was opened, 0 if there was none.
        first_loss: the loss in its first row then, None if there was none.
    """

    def __init__(self, path: str | Path, *, step: int = 0):
        """Opens the table of a run that goes on from `step`: later rows are dropped."""
        path = Path(path)
        rows = [row for row in _read_rows(path, _COLUMNS) if row["step"] <= step]
        self.seconds: float = rows[-1]["seconds"] if rows else 0.0
        self.first_loss: float | None = rows[0].get("loss") if rows else None
        self._columns = list(rows[0]) if rows else None
        if path.is_file():
            kept = io.StringIO(newline="")
            if rows:
                writer = csv.DictWriter(kept, self._columns)
                writer.writeheader()
                writer.writerows(rows)
            with files.replacing(path) as file:
                file.write(kept.getvalue().encode())
        self._path = path
        self._file: TextIO | None = None

    def write(self, row: Mapping[str, float]) -> None:
        """Appends a row at once; a ValueError if it has other columns than the log."""
        if self._file is None:
            self._file = self._path.open("a", newline="")
        if self._columns is None:
            self._columns = list(row)
            csv.writer(self._file).writerow(self._columns)
        if set(row) != set(self._columns):
            raise ValueError(f"log columns are {self._columns}, got a row of {list(row)}")
        csv.DictWriter(self._file, self._columns).writerow(row)
        self._file.flush()

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
