"""A learned grid as a file: JSON with the schedule it is for, its times, and what goes with it."""

import dataclasses
import itertools
import json
import math
from pathlib import Path
from typing import Any

from jaxdiff.config.codec import to_json
from jaxdiff.config.fields import Config
from jaxdiff.data import files

__all__ = ["GridFile", "read_grid", "write_grid"]


@dataclasses.dataclass(frozen=True)
class GridFile:
    """What `jaxdiff learn-grid` writes and `jaxdiff sample --grid FILE` reads.

    Attributes:
        schedule: the schedule's part of a configuration, as JSON.
        t: the noisy times, noisiest first; the clean end follows.
        sampler: the name of the sampler it was learned for.
        eta: the sampler's eta, None for its own.
        guidance: the scale of guidance, None for none.
    """

    schedule: dict[str, Any]
    t: tuple[float, ...]
    sampler: str
    eta: float | None = None
    guidance: float | None = None

    def check(self, config: Config, path: Path) -> None:
        """Raises ValueError if the run has another schedule."""
        mine = to_json(config)["schedule"]
        if self.schedule != mine:
            raise ValueError(
                f"{path}: this grid was learned on the schedule {self.schedule}, the run has {mine}"
            )


def write_grid(path: Path, grid: GridFile) -> None:
    """Writes a grid, whole or not at all."""
    with files.replacing(path) as file:
        file.write((json.dumps(dataclasses.asdict(grid), indent=2) + "\n").encode())


def read_grid(path: Path) -> GridFile:
    """Reads what `write_grid` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        grid = GridFile(**{**values, "t": tuple(values["t"])})
        numbers = [*grid.t, *(v for v in (grid.eta, grid.guidance) if v is not None)]
        kinds = isinstance(grid.sampler, str) and isinstance(grid.schedule, dict) and grid.t
        if not kinds or not all(type(v) in (int, float) and math.isfinite(v) for v in numbers):
            raise ValueError("a value is of another kind")
        if not all(a > b for a, b in itertools.pairwise(grid.t)):
            raise ValueError(f"t must fall, got {list(grid.t)}")
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path} is no grid of jaxdiff learn-grid: {error}") from error
    return grid
