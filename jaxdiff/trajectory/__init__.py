"""Which K of N steps: the path of least cost through the levels of a fine grid.

    minimise  sum_i cost[n_i, n_{i+1}]   over   0 = n_0 < n_1 < ... < n_K = N

`path` finds it, for any cost of two levels; `costs` has those of the variational bound; `optimal`
goes from second moments of a model to its grid of K steps.
"""

from jaxdiff.trajectory.costs import analytic_costs, bound_costs, pairwise_costs
from jaxdiff.trajectory.optimal import optimal_grid
from jaxdiff.trajectory.path import LeastCost, least_cost_path, thin

__all__ = [
    "LeastCost",
    "analytic_costs",
    "bound_costs",
    "least_cost_path",
    "optimal_grid",
    "pairwise_costs",
    "thin",
]
