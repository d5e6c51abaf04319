"""What `jaxdiff likelihood` leaves: a table, a file of all numbers, a picture."""

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxdiff import plots
from jaxdiff.data import files
from jaxdiff.likelihood import Estimate
from jaxdiff.typing import Grid

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Report", "picture", "report", "table", "write"]


_FEW = 30  # the whole is known to 1 / sqrt(2 (n - 1)), 13 % here, the parts apart from it
_ORDER = ("prior", "volume", "steps", "decoder")  # from the noisy end on


@dataclasses.dataclass(frozen=True)
class Report:
    """A likelihood and how it was come by; `report` makes one.

    Attributes:
        estimate: the likelihood.
        method, data, how: in words.
        step: of the checkpoint.
        bins: how many values a number of the data takes, None for a density.
        sums: by term, (value, standard error) in bits per dimension.
        interval: 95 % of bits per dimension, None of one example.
        log_snr: [K - 1], where each step of a bound ends, else None.
    """

    estimate: Estimate
    method: str
    data: str
    how: str
    step: int
    bins: int | None
    sums: dict[str, tuple[float, float]]
    interval: tuple[float, float] | None
    log_snr: np.ndarray | None

    @property
    def unit(self) -> str:
        """What bits per dimension are of."""
        return "bits/dim" if self.bins is not None else "bits/dim of density"

    @property
    def draws(self) -> str:
        """What is drawn beside dequantisation."""
        return "noise" if self.method == "elbo" else "probes"

    @property
    def per_example(self) -> np.ndarray:
        """Bits per dimension of each example, [B]."""
        return -np.asarray(self.estimate.per_example) / (self.estimate.dims * math.log(2))


def report(estimate: Estimate, *, grid: Grid | None, **words: Any) -> Report:
    """Adds up the terms of an estimate, each with its error."""
    sums = {}
    for name in sorted(estimate.terms, key=_ORDER.index):
        term = estimate.terms[name]
        alone = dataclasses.replace(estimate, terms={name: _summed(term)})
        sums[name] = 0.0 + float(alone.bits_per_dim), float(alone.bits_errors.total)  # no -0
    interval = None
    if len(estimate.per_example) > 1:
        unit = estimate.dims * math.log(2)
        high, low = (-end / unit for end in estimate.interval())
        interval = low, high
    ends = None if grid is None else np.asarray(grid.levels.log_snr)[1:-1]
    return Report(estimate, sums=sums, interval=interval, log_snr=ends, **words)


def _summed(term: Any) -> Any:
    """[B, D, P] of a term, or of one that has steps."""
    return term if term.ndim == 3 else term.sum(axis=-1)


def table(report: Report) -> "Table":
    """The numbers that matter, for a terminal."""
    estimate = report.estimate
    of = "a density" if report.bins is None else f"{report.bins} values"
    caption = (
        f"{report.how}; n = {len(estimate.per_example)} examples of {estimate.dims} numbers,"
        f" {of} each; ± one standard error"
    )
    if len(estimate.per_example) < _FEW:
        caption += "; of so few examples errors by cause are rough, and a part may exceed the whole"
    if report.interval is not None:
        low, high = report.interval
        caption = f"95 % interval of {report.unit}: {low:.4f} .. {high:.4f}\n{caption}"
    return plots.likelihood_table(
        estimate,
        report.sums,
        draws=report.draws,
        unit=f"{report.unit}{' ≤' if report.method == 'elbo' else ''}",
        title=f"{report.data}, by {report.method} at step {report.step}",
        caption=caption,
    )


def write(report: Report, path: Path) -> None:
    """All numbers, as nested .json or as .csv of one number a row."""
    numbers = _numbers(report)
    text = io.StringIO(newline="")
    if path.suffix == ".json":
        json.dump(numbers, text, indent=1)
    else:
        rows = csv.writer(text)
        rows.writerow(("quantity", "index", "value"))
        rows.writerows(_rows("", numbers))
    with files.replacing(path) as file:
        file.write(text.getvalue().encode())


def _numbers(report: Report) -> dict[str, Any]:
    """Everything, ready for json: NaN, which it does not know, as null."""
    estimate = report.estimate
    numbers: dict[str, Any] = {name: getattr(report, name) for name in ("method", "data", "how")}
    numbers |= {"checkpoint": report.step, "bins": report.bins, "dims": estimate.dims}
    numbers |= {
        "n": len(report.per_example),
        "bits_per_dim": _plain(estimate.bits_per_dim),
        "bits_errors": {k: _plain(v) for k, v in estimate.bits_errors._asdict().items()},
        "bits_interval": report.interval,
        "nats": _plain(estimate.mean),
        "nats_errors": {k: _plain(v) for k, v in estimate.errors._asdict().items()},
        "terms": {k: _plain(value) for k, (value, _) in report.sums.items()},
        "terms_errors": {k: _plain(error) for k, (_, error) in report.sums.items()},
    }
    if report.log_snr is not None:
        steps = {"log_snr": report.log_snr, "bits_per_dim": estimate.bits_terms["steps"]}
        numbers["steps"] = {k: [_plain(v) for v in values] for k, values in steps.items()}
    numbers["examples"] = [_plain(v) for v in report.per_example]
    return numbers


def _plain(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


def _rows(name: str, value: Any) -> Iterator[tuple[str, int | str, Any]]:
    """(dotted name, index in a list, value) of everything in nested dicts."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _rows(f"{name}.{key}" if name else key, inner)
    elif isinstance(value, list | tuple):
        yield from ((name, i, inner) for i, inner in enumerate(value))
    else:
        yield name, "", value


def picture(report: Report, path: Path) -> None:
    """Of a bound its terms, of a density how examples differ."""
    title = f"{report.data}: {float(report.estimate.bits_per_dim):.4g} {report.unit}"
    if report.log_snr is None:
        what = f"{report.unit}, of an example"
        plots.likelihood_histogram(
            report.per_example, path, interval=report.interval, xlabel=what, title=title
        )
        return
    steps = report.estimate.bits_terms["steps"]
    plots.bound_terms(steps, report.log_snr, report.sums, path, title=f"{title}, at most")
