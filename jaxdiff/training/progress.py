"""The progress bar of a long job: rate, time left, and a number such as the loss."""

import time
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["Bar"]

_SECONDS_BETWEEN_LINES = 10.0


class Bar:
    """A bar on a terminal; elsewhere a line now and then, so that a log file stays readable."""

    def __init__(
        self,
        start: int,
        total: float,
        *,
        console: Console | None = None,
        unit: str = "step",
        number: str = "loss",
    ):
        """Begins at step `start` of `total`, which may be infinite as yet.

        What is counted is a `unit`, what is shown beside it the `number`.
        """
        self._unit, self._number = unit, number
        self._console = console or Console(stderr=True)
        self._start, self._began, self._spoke = start, time.monotonic(), time.monotonic()
        self._progress = Progress(
            TextColumn(f"{unit} {{task.fields[count]}}"),
            BarColumn(),
            TextColumn(f"{number} {{task.fields[number]}}  {{task.fields[rate]}} {unit}s/s"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task("", total=None, count="0", number="-", rate="-")
        self.update(start, total)

    def update(self, step: int, total: float, number: float | None = None) -> None:
        """Shows that `step` steps of `total` are done."""
        known = total != float("inf")
        fields: dict[str, Any] = {"count": f"{step}/{total:.0f}" if known else f"{step}"}
        seconds = time.monotonic() - self._began
        if step > self._start and seconds > 0:
            fields["rate"] = f"{(step - self._start) / seconds:.3g}"
        if number is not None:
            fields["number"] = f"{number:.4f}"
            done = f"{self._unit} {fields['count']}  {self._number} {number:.4f}"
            self._say(f"{done}  {fields.get('rate', '-')} {self._unit}s/s")
        end = max(total, 1) if known else None
        self._progress.update(self._task, completed=step, total=end, **fields)

    def _say(self, line: str) -> None:
        if self._console.is_terminal or time.monotonic() < self._spoke + _SECONDS_BETWEEN_LINES:
            return
        self._spoke = time.monotonic()
        self._console.print(line, highlight=False)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()
