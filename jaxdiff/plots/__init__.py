"""Pictures and tables of what a run leaves: written whole to a file, no window, no global state."""

from jaxdiff.plots.canvas import FORMATS
from jaxdiff.plots.lines import curves, loss_curve, read_log, scatter
from jaxdiff.plots.mosaic import sample_grid
from jaxdiff.plots.tables import metrics_table, metrics_text

__all__ = [
    "FORMATS",
    "curves",
    "loss_curve",
    "metrics_table",
    "metrics_text",
    "read_log",
    "sample_grid",
    "scatter",
]
