"""Scalars for TensorBoard, beside the tables that need no program to be read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tensorboardX import SummaryWriter

__all__ = ["Board"]


class Board:
    """A folder of event files that TensorBoard shows; close it, or use it in a `with`."""

    def __init__(self, folder: str | Path, *, step: int = 0):
        """Goes on from `step`: what was written of later steps is hidden."""
        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def write(self, group: str, row: Mapping[str, float]) -> None:
        """Each number of `row` as group/name, at the row's "step"."""
        for name, value in row.items():
            if name not in ("step", "seconds"):
                self._writer.add_scalar(f"{group}/{name}", value, int(row["step"]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()
