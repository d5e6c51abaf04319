"""`jaxdiff inspect`: what a run directory holds."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from jaxdiff import config as configs
from jaxdiff import plots
from jaxdiff.cli import runs
from jaxdiff.cli.say import say, show
from jaxdiff.config import build
from jaxdiff.training import checkpoint, rundir

__all__ = ["main"]

_LAST = 5  # rows of the log


@dataclasses.dataclass(frozen=True)
class Inspect:
    """Show a run: its configuration, parameters by module, last losses, checkpoints."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run directory."""
    plot: Path | None = None
    """A picture of the loss to write, .png, .pdf or .svg."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command; see `jaxdiff.cli.main`."""
    args = tyro.cli(Inspect, prog="jaxdiff inspect", args=arguments)
    run = runs.open_run(args.run)
    console = Console()
    for name, part in configs.to_json(run.config).items():
        say(console, f"{name:16} {json.dumps(part)}")
    show(_parameters(run.abstract.params["params"]), _last_rows("log", rundir.read_log(args.run)))
    evaluations = rundir.read_evaluations(args.run)
    if evaluations:
        show(_last_rows("evaluation", evaluations))
    found = checkpoint.finished_steps(rundir.checkpoints(args.run))
    total = "not known yet" if run.total is None else run.total
    say(console, f"steps: {found[-1] if found else 0} of {total}")
    best = checkpoint.best_step(rundir.checkpoints(args.run))
    named = [f"{step} (best)" if step == best else str(step) for step in found]
    say(console, f"checkpoints: {', '.join(named) or 'none'}")
    if args.plot is not None:
        plots.loss_curve(rundir.log(args.run), args.plot, title=f"Training of {args.run}")
    return 0


def _parameters(params: dict) -> Table:
    """Parameters by module."""
    table = Table("module", title="parameters")
    table.add_column("parameters", justify="right")
    for name, part in params.items():
        table.add_row(name, f"{build.count_parameters(part):,}")
    table.add_section()
    table.add_row("total", f"{build.count_parameters(params):,}")
    return table


def _last_rows(title: str, rows: list[dict[str, float]]) -> Table:
    """The last rows of a table."""
    table = Table(title=title)
    for name in rows[0] if rows else ("step", "loss"):
        table.add_column(name, justify="right")
    for row in rows[-_LAST:]:
        table.add_row(*(f"{v}" if isinstance(v, int) else f"{v:.5g}" for v in row.values()))
    return table
