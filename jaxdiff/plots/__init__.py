"""Pictures and tables of what a run leaves: written whole to a file, no window, no global state."""

from jaxdiff.plots.canvas import FORMATS
from jaxdiff.plots.counts import count_histogram, hubness_table
from jaxdiff.plots.lines import curves, loss_curve, read_log, scatter
from jaxdiff.plots.moments import moment_curves
from jaxdiff.plots.mosaic import sample_grid
from jaxdiff.plots.parallel import parallel_coordinates
from jaxdiff.plots.probe import heat_maps, probe_table
from jaxdiff.plots.tables import likelihood_table, metrics_table, metrics_text
from jaxdiff.plots.terms import bound_terms, likelihood_histogram

__all__ = [
    "FORMATS",
    "bound_terms",
    "count_histogram",
    "curves",
    "heat_maps",
    "hubness_table",
    "likelihood_histogram",
    "likelihood_table",
    "loss_curve",
    "metrics_table",
    "metrics_text",
    "moment_curves",
    "parallel_coordinates",
    "probe_table",
    "read_log",
    "sample_grid",
    "scatter",
]
