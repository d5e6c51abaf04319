"""Short chains of the one-dimensional mixture with its moments by quadrature, and all paths."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

import jaxdiff as jd
from jaxdiff.reverse import Average, Moments
from tests.likelihood.mixture import posterior_variance

CHAIN = jd.schedules.linear_betas(1000)


def even_grid(num_steps):
    return jd.grids.linspace(jd.from_betas(CHAIN), num_steps)


def known(values):
    """An average without error."""
    values = jnp.asarray(values)
    return Average(values, jnp.zeros_like(values), jnp.inf)


def mixture_moments(grid):
    """Of the exact mean, at the noisy levels of a grid."""
    levels, _ = grid.pairs
    at = lambda k: jax.tree.map(lambda a: a[k], levels)  # noqa: E731
    cov = np.array([posterior_variance(at(k)) for k in range(grid.num_steps)])
    eps = 1 - (np.asarray(levels.alpha) / np.asarray(levels.sigma)) ** 2 * cov
    return Moments(levels, *map(known, (eps, cov, cov, 0.5)))  # its variance is .49 + .01


def best_path(cost, num_steps):
    """(cost, path) of the cheapest of all paths of so many steps."""
    cost, last = np.asarray(cost), len(cost) - 1
    inner = itertools.combinations(range(1, last), num_steps - 1)
    paths = np.array([(0, *nodes, last) for nodes in inner])
    totals = cost[paths[:, :-1], paths[:, 1:]].sum(axis=1)
    return totals.min(), paths[totals.argmin()]
