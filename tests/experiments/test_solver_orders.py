"""Truth: the mixture of `exact` for the density in numpy, the papers' orders, closed forms."""

import importlib.util
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import samplers

PATH = pathlib.Path(__file__).parents[2] / "experiments" / "solver_orders.py"
_spec = importlib.util.spec_from_file_location(PATH.stem, PATH)
orders = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(orders)

pytestmark = pytest.mark.usefixtures("x64")


def test_its_density_is_the_mixtures():
    """To rounding: the flow's eps is E[eps | x] of the library's mixture."""
    grid = orders.grid_of(8)
    t = type(grid.levels)(*(a[3] for a in grid.levels))
    found = orders._eps(orders.STARTS, float(t.sigma / t.alpha))
    truth = orders.mixture().denoise(t.alpha * jnp.asarray(orders.STARTS), t).eps
    np.testing.assert_allclose(found, truth, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "coarse"),
    [("dpmpp_3m corrected", 32), pytest.param("unipc 3", 128, marks=pytest.mark.slow)],
)
def test_claimed_order_from_an_exact_start(name, coarse):
    """Within .5, where next-order terms are not small yet; the fourth order shows later."""
    row = orders.DETERMINISTIC[name]
    errors = []
    for count in (coarse, 2 * coarse):
        grid = orders.grid_of(count)
        errors.append(orders.carried(row, grid, orders.flow(grid), exact_start=True))
    assert abs(orders.slopes(errors)[0] - row.order) < 0.5


def test_weak_error_of_ddpm_large_is_its_recursion():
    """For the large variance a step is linear: var' = a**2 var + beta, computed here."""
    grid = orders.grid_of(6)
    alpha, sigma = (np.asarray(a) for a in (grid.levels.alpha, grid.levels.sigma))
    v = alpha**2 * 0.25 + sigma**2
    var = v[0]
    for i in range(6):
        ratio = alpha[i] / alpha[i + 1]
        beta = 1 - (ratio * sigma[i + 1] / sigma[i]) ** 2  # 1 - r
        by_x = ratio * (sigma[i + 1] / sigma[i]) ** 2 + alpha[i + 1] * beta * alpha[i] * 0.25 / v[i]
        noise = sigma[i] ** 2 * beta  # beta of the step, at the noisier level's scale
        var = by_x**2 * var + noise
    _, std = orders.weak_errors(samplers.ddpm("large"), 6)
    np.testing.assert_allclose(std, abs(np.sqrt(var) - np.sqrt(v[-1])), rtol=1e-9)
