"""Does the advice of Su's recipe for DDPM hold, and can a small experiment tell?

    python experiments/su_recipe.py [--out DIR] [--studies underflow norm] [--seeds 3]
    python experiments/su_recipe.py --data /usr/share/datasets/fashion-mnist --steps 20000

Four pieces of advice (kexue.fm 9152 and 9181, and Keras-DDPM), each a study of numbers by seed:

    underflow, precision   the loss is a sum over an image, not a mean: in half precision the
                           gradient of a mean underflows, and training suffers
    norm                   no batch normalisation: its statistics differ between training (levels
                           mixed) and sampling (one level, or a running mean)
    embedding              a learned row for each step is as good as sines with large sigma; with
                           small sigma sines, and network B, leave less residual noise
    sigma                  small against large sigma, by the number of steps

The gradient's size is set by the B D numbers that a mean divides by: for the digits 32 of 64, for
the recipe's faces 64 of 49152. So one gradient is also taken on digits enlarged to 128x128x3, 4 of
them, divided as 64 would be; and "tiny" is the mean on digits, its derivative by each number that
the network puts out as small as for the faces. Kernels' gradients sum over fewer pixels there than
the faces', so that it is harder than theirs.

Residual noise is the energy of d = (x00 - x01 - x10 + x11) / 2 over squares of 2x2 pixels, less
that of data: independent noise of variance v adds exactly v. A claim "holds" if the 95 % interval
by Student's t over seeds of the paired difference lies above 0, "does not hold" if none of it does,
and else cannot be told at this size.

Running statistics lag behind weights that still move, here some 100 steps: part of what they cost.

Measured with 3 seeds and fewer steps than by default (± one standard error, as printed):

    --studies underflow precision --short 200
        float16, faces: the mean's gradient is off by .0084 ± .0015, the sum's by .0005: holds,
        though only 1e-4 of the mean's entries are 0. Digits: .0005 both. bfloat16: no difference.
        Held-out loss of tiny against sum: float16 adam .205 against .190, lamb .208 against .159:
        holds; in float32 and bfloat16 within .001. Of the mean over digits: no difference.
    --studies norm --steps 800 --n 300 --calls 50
        Statistics of one level lose .040 ± .004 against a mixed batch's: holds. Running ones .006,
        a mixed batch's against group norm .007, and all Frechet distances: cannot be told.
    --studies embedding sigma --steps 800 --n 300 --calls 10 50
        Noise with small sigma: A's rows -.030 ± .007, its sines -.041, B's rows and sines -.034:
        cannot be told; none leaves more than data have. Frechet distance with small sigma: A 2.30
        and 1.83, B 1.53 and 1.48; large sigma: A 2.71 and 1.89, B 1.84 and 1.52. So A's rows draw
        worse than B's sines: holds; worse than its own sines: cannot be told. Noise-free they do,
        18.6 against 3.6 and 7.9 against 3.3: holds, and what draws matters more there.
        In 10 steps large sigma leaves .094 ± .004 too much and small -.060, Frechet 3.66 and 2.13:
        holds; in 50 steps 1.52 and 1.48: cannot be told. Fewer steps are smoother and less diverse
        with small sigma (variance .57 of data's in 10, .77 in 50): holds.

A row of the table is drawn 26 times in 800 steps of 32, sines are trained by every step: more
training is on the side of the rows.

Of some fifty claims at 95 % one or two hold or fail by chance.

Hardware: 2 CPU cores. The three runs took 10, 3 and 13 minutes on a busy machine; the default is
two to five times as much work.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.stats
import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from su_studies import SAMPLERS, STUDIES, Number
from su_training import DTYPES, OPTIMIZERS, Plan

from jaxdiff import plots
from jaxdiff.data import files

__all__ = ["CLAIMS", "Claim", "judge", "main", "paired"]


class Claim(NamedTuple):
    """That `measure` of `more` exceeds that of `less`, each (case, which of its places)."""

    study: str
    text: str
    measure: str
    more: tuple[str, int]
    less: tuple[str, int]


CLAIMS = [
    Claim(
        "underflow",
        f"{dtype}, {of}: the mean's gradient has more {measure}",
        measure,
        (f"{dtype} mean, {weights}", place),
        (f"{dtype} sum, {weights}", place),
    )
    for dtype in DTYPES[1:]
    for of, weights, place in (
        ("data", "new", 0),
        ("data, trained", "trained", 0),
        ("faces", "new", -1),
    )
    for measure in ("zeros", "error")
]
CLAIMS += [
    Claim(
        "precision",
        f"{dtype}, {optimizer}: {worse} trains worse than sum",
        "loss",
        (f"{dtype} {optimizer} {worse}", 0),
        (f"{dtype} {optimizer} sum", 0),
    )
    for dtype in DTYPES
    for optimizer in OPTIMIZERS
    for worse in ("mean", "tiny")
]
CLAIMS += [
    Claim("norm", text, measure, (more, 0), (less, 0))
    for text, measure, more, less in (
        ("running statistics lose against a mixed batch's", "loss", "running", "mixed"),
        ("statistics of one level lose against a mixed batch's", "loss", "one level", "mixed"),
        ("a mixed batch's lose against group norm", "loss", "mixed", "group"),
        ("running statistics draw worse than group norm", "Frechet", "running", "group"),
        ("a batch's own statistics draw worse than group norm", "Frechet", "one level", "group"),
    )
]
CLAIMS += [
    Claim("embedding", f"{sampler}: {text}", measure, *pair)
    for sampler, measure, verb in (
        ("small", "noise", "leave more noise than"),
        *((sampler, "Frechet", "draw worse than") for sampler in SAMPLERS),
    )
    for text, pair in (
        (f"A's rows {verb} sines", ((f"A rows, {sampler}", 0), (f"A sines, {sampler}", 0))),
        (f"B's rows {verb} sines", ((f"B rows, {sampler}", 0), (f"B sines, {sampler}", 0))),
        (f"A's rows {verb} B's sines", ((f"A rows, {sampler}", 0), (f"B sines, {sampler}", 0))),
    )
]
CLAIMS += [
    Claim("sigma", text, measure, more, less)
    for text, measure, more, less in (
        ("fewest steps: large leaves more noise", "noise", ("large", 0), ("small", 0)),
        ("most steps: large leaves more noise", "noise", ("large", -1), ("small", -1)),
        ("fewest steps: large draws worse", "Frechet", ("large", 0), ("small", 0)),
        ("most steps: large draws worse", "Frechet", ("large", -1), ("small", -1)),
        (
            "fewest steps: small draws worse than noise-free",
            "Frechet",
            ("small", 0),
            ("noise-free", 0),
        ),
        ("fewer steps are smoother, small", "noise", ("small", -1), ("small", 0)),
        ("fewer steps are less diverse, small", "variance", ("small", -1), ("small", 0)),
    )
]
PICTURES = {
    ("underflow", "error"): "numbers of an image",
    ("norm", "loss"): "step of the chain",
    ("sigma", "Frechet"): "sampling steps",
}


def paired(claim: Claim, numbers: Sequence[Number]) -> list[float]:
    """The differences of a claim, seed by seed; none where a side was not measured."""
    sides = []
    for case, place in (claim.more, claim.less):
        wanted = (claim.study, case, claim.measure)
        mine = [n for n in numbers if (n.study, n.case, n.measure) == wanted]
        places = sorted({n.at for n in mine})
        sides.append({n.seed: n.value for n in mine if n.at == places[place]})
    more, less = sides
    return [more[seed] - less[seed] for seed in sorted(more.keys() & less.keys())]


def judge(differences: Iterable[float]) -> tuple[float, float, str]:
    """Whether differences are above 0, by Student's t.

    Returns:
        Their mean, half of its 95 % interval, and "holds", "does not hold" or "cannot be told".
        An infinite loss is a training that failed: there all must agree.
    """
    d = np.asarray(list(differences), np.float64)
    mean, half, low, high = float(np.mean(d)), np.nan, -np.inf, np.inf
    if not np.isfinite(d).all():  # two failures differ by NaN, which agrees with nothing
        low, high = (np.inf, np.inf) if np.all(d > 0) else (low, high)
        low, high = (-np.inf, -np.inf) if np.all(d < 0) else (low, high)
    elif len(d) > 1:
        half = scipy.stats.t.ppf(0.975, len(d) - 1) * np.std(d, ddof=1) / np.sqrt(len(d))
        low, high = mean - half, mean + half
    word = "holds" if low > 0 else "does not hold" if high <= 0 else "cannot be told"
    return mean, float(half), word


def main(
    plan: tyro.conf.OmitArgPrefixes[Plan] = Plan(),  # noqa: B008
    studies: tuple[str, ...] = tuple(STUDIES),
    out: Path | None = None,
) -> None:
    """Prints the tables.

    Args:
        plan: how much is done.
        studies: names of studies.
        out: a directory for numbers.csv and the pictures.
    """
    unknown = [name for name in studies if name not in STUDIES]
    if unknown:
        raise ValueError(f"studies must be of {', '.join(STUDIES)}, got {', '.join(unknown)}")
    console = Console(width=100)
    jobs = [(f"{name}: {text}", job) for name in studies for text, job in STUDIES[name](plan)]
    numbers: list[Number] = []
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=len(jobs))
        for text, job in jobs:
            bar.update(task, description=text)
            if not bar.console.is_terminal:
                bar.console.print(text, highlight=False)
            numbers += job()
            bar.advance(task)
    for name in studies:
        console.print(_numbers_table(name, numbers))
    console.print(_claims_table(studies, numbers))
    if out is not None:
        _write(out, numbers)


def _spread(numbers: Sequence[Number]) -> tuple[float, float]:
    """The mean over seeds and its standard error."""
    values = np.array([n.value for n in numbers])
    if len(values) < 2 or not np.isfinite(values).all():
        return float(np.mean(values)), np.nan
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))


def _grouped(numbers: Iterable[Number], *fields: str) -> dict[tuple, list[Number]]:
    groups: dict[tuple, list[Number]] = {}
    for number in numbers:
        groups.setdefault(tuple(getattr(number, f) for f in fields), []).append(number)
    return groups


def _numbers_table(study: str, numbers: Sequence[Number]) -> Table:
    mine = [n for n in numbers if n.study == study]
    measures = list(dict.fromkeys(n.measure for n in mine))
    table = Table("case", "at", *measures, title=f"{study}: mean over seeds ± standard error")
    for (case, at), row in _grouped(mine, "case", "at").items():
        found = _grouped(row, "measure")
        cells = [_cell(*_spread(found[m,])) if (m,) in found else "" for m in measures]
        table.add_row(case, f"{at:g}" if at else "", *cells)
    return table


def _cell(value: float, error: float) -> str:
    return f"{value:.4g}" if np.isnan(error) else f"{value:.4g} ± {error:.2g}"


def _claims_table(studies: Sequence[str], numbers: Sequence[Number]) -> Table:
    table = Table("claim", "difference", "verdict", title="claims: difference ± half of 95 %")
    for claim in CLAIMS:
        if claim.study in studies:
            value, half, word = judge(paired(claim, numbers))
            table.add_row(claim.text, _cell(value, half), word)
    return table


def _write(out: Path, numbers: Sequence[Number]) -> None:
    """numbers.csv, and the pictures of the studies that were done."""
    out.mkdir(parents=True, exist_ok=True)
    text = io.StringIO(newline="")
    csv.writer(text).writerows([Number._fields, *numbers])
    with files.replacing(out / "numbers.csv") as file:
        file.write(text.getvalue().encode())
    for (study, measure), xlabel in PICTURES.items():
        mine = [n for n in numbers if (n.study, n.measure) == (study, measure) and n.at]
        lines = {}
        for (case,), group in _grouped(mine, "case").items():
            points = [(at, *_spread(found)) for (at,), found in _grouped(group, "at").items()]
            lines[case] = tuple(zip(*points, strict=True))
        if lines:
            plots.curves(lines, out / f"{study}.png", xlabel=xlabel, ylabel=f"{study}: {measure}")


if __name__ == "__main__":
    tyro.cli(main)
