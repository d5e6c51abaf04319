"""`jaxdiff evaluate`: samples beside real data."""

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from jaxdiff import metrics, plots
from jaxdiff.cli import runs
from jaxdiff.config import build
from jaxdiff.data import files, npz

__all__ = ["main"]


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Compare samples with the part of the data that the run did not train on.

    Prints Frechet distances, MMD, precision, recall and a search for copied training examples,
    each beside what the training examples themselves score: what a perfect model would.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run directory."""
    samples: Path
    """What `jaxdiff sample` wrote."""
    data: str | None = None
    """The data: "digits" or a path; what the run was trained on unless given."""
    out: Path | None = None
    """A table to write as well: .csv or .json."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command; see `jaxdiff.cli.main`."""
    args = tyro.cli(Evaluate, prog="jaxdiff evaluate", args=arguments)
    if args.out is not None and args.out.suffix not in (".csv", ".json"):
        raise ValueError(f"--out must end in .csv or .json, got {args.out}")
    part = runs.open_run(args.run).config.data
    if args.data is not None:
        part = dataclasses.replace(part, source=args.data)
    samples = npz.load(args.samples)
    train, heldout = (build.load_data(part, split) for split in ("train", "heldout"))
    rows = metrics.evaluate(samples.images(), train.images(), heldout.images())
    Console().print(plots.metrics_table(rows, title=f"{args.samples} against {part.source}"))
    if args.out is not None:
        _write(rows, args.out)
    return 0


def _write(rows: Sequence[metrics.Row], path: Path) -> None:
    records = [row._asdict() for row in rows]
    text = io.StringIO(newline="")
    if path.suffix == ".json":
        json.dump(records, text, indent=2)
    else:
        writer = csv.DictWriter(text, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
    with files.replacing(path) as file:
        file.write(text.getvalue().encode())
