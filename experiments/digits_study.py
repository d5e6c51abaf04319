"""What matters on the digits? Sixty-four trainings of the 8x8 UNet by `jaxdiff study`, twice.

    python experiments/digits_study.py --out experiments/figures [--members 64] [--steps 600]
        [--halved 2400] [--quick]

The space: learning rate (log, 1e-4 to 3e-2), decay of the average, schedule, weight of the loss; a
Sobol design. All are compared by the Frechet distance of 500 samples to the held-out digits, in
pixels, since losses of other weights do not compare.

1. All members, --steps each: the mean distance by each choice, and by thirds of the learning rate,
   with its standard error over the members that have it; Spearman's correlation with the rate.
2. Successive halving (one in four stays) with --halved steps for the last one: how much of the
   steps it makes, and how its best compares with the best of those that all got --steps.

Found (figures/digits_study*): above a rate of 2e-3 the rate hardly matters, below it costs, with
the cosine schedule 1.02, 1.35 and 2.25 for each half of a decade down. Of the 32 members above,
all with the cosine schedule (.967 +- .007) are better than all with linear_vp (1.338 +- .020).
Weights do nothing under cosine (.96 to .98, errors .01); under linear_vp the plain one is best
(1.27 +- .02, others 1.35 and 1.38). The average does little: in 600 steps its decay is at most
.985, so that .99 and .999 are one choice. The best member cannot be told from the next ten.

By halving, a fifth of the steps of the first study (7,824 of 38,400) are enough to give one member
2,400: its distance is .728, the best after 600 is .908. After 38 steps, when 48 of 64 are dropped,
distances are near 5, and yet in the order of those after 600 (Spearman .81): of the best twelve
there nine are kept. From the next rung on it chooses among equals.

Hardware: 2 CPU cores, 25 minutes each when nothing else runs.
"""

import csv
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import tyro
from rich.console import Console
from timing import table

from jaxdiff import plots
from jaxdiff.cli import main as jaxdiff

__all__ = ["CHOICES", "SPACE", "effects", "main"]

CHOICES = {
    "optimizer.ema_decay": [0.9, 0.99, 0.999],
    "schedule.name": ["cosine", "linear_vp"],
    "loss.weight": ["plain", "min_snr", "p2"],
}
RATES = (1e-4, 3e-2)
SPACE = "\n".join(
    [f'"optimizer.lr" = {{ log = [{RATES[0]}, {RATES[1]}] }}']
    + [f'"{name}" = {json.dumps(values)}' for name, values in CHOICES.items()]
)


def main(
    out: Path,
    members: int = 64,
    steps: int = 600,
    halved: int = 2400,
    quick: bool = False,
) -> list[dict[str, Any]]:
    """Runs both studies, or goes on with them, and compares.

    Args:
        out: the directory of the table and the picture; the studies themselves in `out`/studies.
        members: of each.
        steps: of each member of the first.
        halved: of the last members of the second; 0 leaves it out.
        quick: everything as small as it can be.
    """
    if quick:
        members, steps, halved = 4, 4, 8
    folder = out / "studies"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "space.toml").write_text(SPACE)
    small = ["--model.channels", "8", "--model.blocks", "1"] if quick else []
    small += ["--sampling.steps", "2" if quick else "20"]
    rows = study(folder, "all", members, ["--steps", str(steps), *small])
    found = effects(rows)
    scores = np.asarray([row["frechet"] for row in rows])
    plots.parallel_coordinates(
        {name: [row[name] for row in rows] for name in ("optimizer.lr", *CHOICES)},
        scores,
        out / "digits_study.png",
        name="Frechet distance",
    )
    for name, kept in (("digits_study", rows), ("digits_study_effects", found)):
        with (out / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(kept[0]))
            writer.writeheader()
            writer.writerows(kept)
    console = Console(width=120)
    cells = [[f"{v:.3g}" if isinstance(v, float) else str(v) for v in r.values()] for r in found]
    console.print(table("Frechet distance by choice", list(found[0]), cells))
    rates = [row["optimizer.lr"] for row in rows]
    console.print(
        f"best of all {min(scores):.3f}, with {rows[0]}\n"
        f"Spearman of distance and |log rate - log best rate|:"
        f" {scipy.stats.spearmanr(np.abs(np.log(np.divide(rates, rates[0]))), scores)[0]:.2f}"
    )
    if halved:
        first = study(folder, "halved", members, ["--steps", str(halved), "--halving", *small])
        console.print(
            f"best by halving {first[0]['frechet']:.3f}, with {first[0]}\n"
            f"its steps {made(first):,}, of {members * halved:,} without it, and of the first study"
            f" {members * steps:,}"
        )
    return found


def study(folder: Path, name: str, members: int, options: list[str]) -> list[dict[str, Any]]:
    """The rows of a study's results.csv, the best first; it goes on where it was cut off."""
    where = folder / name
    if not (where / "results.csv").is_file():
        command = ["study", "digits", "--space", str(folder / "space.toml"), "--out", str(where)]
        command += ["--members", str(members), "--resume", *options]
        if jaxdiff(command):
            raise RuntimeError(f"the study {where} has failed")
    with (where / "results.csv").open(newline="") as file:
        return [{n: number(v) for n, v in row.items()} for row in csv.DictReader(file)]


def number(text: str) -> Any:
    """A number where it is one."""
    try:
        return float(text)
    except ValueError:
        return text or np.inf


def made(rows: list[dict[str, Any]]) -> int:
    """The steps of all members together."""
    return int(sum(row["steps"] for row in rows))


def effects(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each choice the number of members that have it, and the mean of their distances.

    Members whose distance is not finite count in "failed" alone. Beside the means there are
    medians, since a rate that is too large makes distances of any size.
    """
    edges = np.geomspace(*RATES, 4)
    names = [f"{a:.2g} to {b:.2g}" for a, b in itertools.pairwise(edges)]
    place = lambda row: names[min(2, int(np.searchsorted(edges, row["optimizer.lr"]) - 1))]  # noqa: E731
    kinds = [("optimizer.lr", name, [r for r in rows if place(r) == name]) for name in names]
    kinds += [
        (axis, value, [r for r in rows if r[axis] == value])
        for axis, values in CHOICES.items()
        for value in values
    ]
    table = []
    for axis, value, those in kinds:
        scores = np.asarray([row["frechet"] for row in those])
        finite = scores[np.isfinite(scores)]
        row = {"axis": axis, "value": str(value), "members": len(those)}
        row |= {"failed": len(those) - len(finite)}
        spread = finite.std(ddof=1) / np.sqrt(len(finite)) if len(finite) > 1 else np.nan
        row |= {"mean": float(finite.mean()) if len(finite) else np.nan, "error": float(spread)}
        row["median"] = float(np.median(finite)) if len(finite) else np.nan
        row["best"] = float(finite.min()) if len(finite) else np.nan
        table.append(row)
    return table


if __name__ == "__main__":
    tyro.cli(main)
