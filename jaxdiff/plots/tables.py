"""Tables of numbers, for a terminal or a text file."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["likelihood_table", "metrics_table", "metrics_text"]


def metrics_table(rows: Sequence[Any], *, title: str | None = None) -> "Table":
    """A table of metrics and their errors beside what real data score.

    Args:
        rows: what `jaxdiff.metrics.evaluate` returns.
        title: a heading.

    Returns:
        A rich table, to print on a rich console.

    Raises:
        ValueError: where there are no rows.
    """
    from rich.markup import escape
    from rich.table import Table

    if not rows:
        raise ValueError("rows must hold at least one metric, got none")
    first = rows[0]
    table = Table(
        title=escape(title or ""),
        caption=(
            f"samples: n = {first.n}, real floor: n = {first.n_floor}, both against "
            f"{first.n_real} held-out examples; ± one standard error.\nFrechet distances fall "
            "and coverage rises as n grows: compare only figures of equal n."
        ),
    )
    table.add_column("metric")
    table.add_column("samples", justify="right")
    table.add_column("real floor", justify="right")
    table.add_column("better is")
    wanted = {"lower": "lower", "higher": "higher", "floor": "as floor"}
    for row in rows:
        ours = f"{row.value:.4f} ± {row.error:.4f}"
        real = f"{row.floor:.4f} ± {row.floor_error:.4f}"
        table.add_row(row.metric, ours, real, wanted[row.better])
    return table


def metrics_text(rows: Sequence[Any], *, title: str | None = None) -> str:
    """The table of `metrics_table` as plain text, for a file."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(metrics_table(rows, title=title))
    return console.file.getvalue()


def likelihood_table(
    estimate: Any,
    sums: Mapping[str, tuple[float, float]],
    *,
    draws: str = "probes",
    unit: str = "bits/dim",
    title: str = "",
    caption: str = "",
) -> "Table":
    """A table of a likelihood: bits per dimension, nats, their errors by cause, and the terms.

    The causes are the data, dequantisation over their bins, and what is drawn besides.

    Args:
        estimate: a `jaxdiff.likelihood.Estimate`.
        sums: by name, (value, standard error) of each term in bits per dimension.
        draws: what is drawn beside dequantisation: "probes" or "noise".
        unit: what the value in bits per dimension is called.
        title: a heading.
        caption: how it was come by.

    Returns:
        A rich table, to print on a rich console.
    """
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), caption=escape(caption))
    table.add_column("")
    for name in ("value", "± in all", "of data", "of bins", f"of {draws}"):
        table.add_column(name, justify="right")
    bits, nats = estimate.bits_errors, estimate.errors
    table.add_row(unit, *map(_number, (estimate.bits_per_dim, *bits)))
    table.add_row("log p, nats/example", *map(_number, (estimate.mean, *nats)))
    table.add_section()
    for name, (value, error) in sums.items():
        table.add_row(f"bits/dim of {name}", _number(value), _number(error))
    return table


def _number(value: Any) -> str:
    """Four places; - where it is unknown, a bare 0 where nothing is random."""
    if math.isnan(value):
        return "-"
    return f"{float(value):.4f}" if value else "0"
