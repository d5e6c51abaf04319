"""`jaxdiff evaluate`: samples beside real data."""

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from jaxdiff import metrics, plots
from jaxdiff.cli import outputs, runs
from jaxdiff.cli.judge import Judge, judge
from jaxdiff.cli.say import show
from jaxdiff.config import build
from jaxdiff.data import Dataset, files, npz
from jaxdiff.metrics import errors

__all__ = ["main"]

_FEATURES = (
    "What is compared: pixels, pca (16 principal components of the held-out examples), a run of"
    " jaxdiff classifier (the layer before its last, and the classes that it sees), or"
    " module:function, any function of examples [N, ...] to features [N, D]."
)


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Compare samples with the part of the data that the run did not train on.

    Prints Frechet and kernel distances, precision, recall, density, coverage and a search for
    copied training examples, each with its standard error, beside what the training examples
    themselves score: what a perfect model would.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run directory."""
    samples: Path
    """What `jaxdiff sample` wrote."""
    data: str | None = None
    """The data: "digits" or a path; what the run was trained on unless given."""
    value_range: tuple[float, float] | None = None
    """The numbers in the file of --data that stand for -1 and 1, where it does not say so."""
    features: Annotated[str, tyro.conf.arg(help=_FEATURES)] = "pixels"
    bootstrap: int = 50
    """How often sets are drawn again for the standard errors: 50 know them to 10 %."""
    limit: int | None = None
    """How many examples of each set to use at most, evenly spaced; all of them unless given."""
    k: int = 3
    """The neighbour that balls of precision and recall reach to."""
    k_coverage: int = 5
    """The neighbour that balls of density and coverage reach to."""
    seed: int = 0
    """Of the drawing again."""
    out: Path | None = None
    """A table to write as well: .csv or .json."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command; see `jaxdiff.cli.main`."""
    args = tyro.cli(Evaluate, prog="jaxdiff evaluate", args=arguments)
    _check(args)
    part = runs.other_data(runs.open_run(args.run).config.data, args.data, args.value_range)
    sets = [npz.load(args.samples), *(build.load_data(part, s) for s in ("train", "heldout"))]
    images = [dataset.images(args.limit) for dataset in sets]
    how = {"resamples": args.bootstrap, "seed": args.seed}
    judged = judge(args.features, images[-1])
    neighbours = {"k": args.k, "k_coverage": args.k_coverage}
    rows = metrics.evaluate(*images, features=judged.features, **neighbours, **how)
    rows += _classes(judged, sets, images, args)
    title = f"{args.samples} against {part.source} in {rows[0].features}"
    show(plots.metrics_table(rows, title=title))
    if args.out is not None:
        _write(rows, args.out)
    return 0


def _check(args: Evaluate) -> None:
    outputs.check("--out", args.out, (".csv", ".json"))
    if args.limit is not None and args.limit < 1:
        raise ValueError(f"--limit must be at least 1, got {args.limit}")
    if args.seed < 0:
        raise ValueError(f"--seed must not be negative, got {args.seed}")
    errors.check_resamples(args.bootstrap, "--bootstrap")


def _classes(
    judged: Judge, sets: Sequence[Dataset], images: Sequence[np.ndarray], args: Evaluate
) -> tuple[metrics.Row, ...]:
    """What a classifier sees; with labels on both sides, whether it is what was asked for."""
    if judged.probabilities is None:
        return ()
    asked, _, truth = (dataset.labels(args.limit) for dataset in sets)
    labels = {} if asked is None or truth is None else {"asked": asked, "truth": truth}
    return metrics.evaluate_classes(
        *(judged.probabilities(x) for x in images),
        **labels,
        resamples=args.bootstrap,
        seed=args.seed,
        features=args.features,
    )


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
