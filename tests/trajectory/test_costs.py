"""What steps cost.

Truth: Bao et al.'s formula in Gamma, written out in numpy; the conditional entropy of a Gaussian,
which every path adds up to; the published figures of a mixture; the bound itself by quadrature.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff as jd
from jaxdiff import reverse
from jaxdiff.likelihood import elbo
from jaxdiff.reverse import Moments, analytic, moments_of_gamma
from jaxdiff.trajectory import analytic_costs, bound_costs, least_cost_path
from tests.likelihood.mixture import mixture, product_rule
from tests.trajectory.chains import best_path, even_grid, known, mixture_moments

pytestmark = pytest.mark.usefixtures("strict")

# NELBO of the mixture in nats by steps, the analytic variance; the s = 0 term likewise.
TABLE = {3: 1.0675, 5: 1.0536, 10: 0.7173, 20: 0.0951, 50: -0.0941, 100: -0.1456}


def along(cost):
    """The sum along the path that visits all levels."""
    return float(np.diagonal(np.asarray(cost), 1).sum())


def gaussian_moments(grid, c):
    """Of N(0, c)."""
    levels, _ = grid.pairs
    v = levels.alpha**2 * c + levels.sigma**2
    return Moments(levels, *map(known, (levels.sigma**2 / v, *(c * levels.sigma**2 / v,) * 2, c)))


def test_ddpm_costs_are_those_of_the_paper(x64):
    """log(1 - beta Gamma), of any Gamma below 1 / sigma**2, up to what telescopes."""
    grid = even_grid(12)
    alpha, sigma = (np.asarray(a) for a in (grid.levels.alpha, grid.levels.sigma))
    gamma = np.random.default_rng(0).uniform(0.1, 0.95, 12) / sigma[:-1] ** 2
    moments = moments_of_gamma(grid.pairs[0], gamma)
    cost = np.asarray(analytic_costs(analytic(moments), grid))
    for i in range(12):
        for j in range(i + 1, 12):
            beta = 1 - (alpha[i] / alpha[j]) ** 2
            rest = 2 * np.log(sigma[i] * alpha[j] / (alpha[i] * sigma[j]))
            # 1 - r of neighbours, of which the covariance is a part, keeps 12 digits of 16
            np.testing.assert_allclose(cost[i, j], np.log(1 - beta * gamma[i]) + rest, rtol=1e-10)
    assert np.isinf(cost[:11, 12]).all()
    assert cost[11, 12] == 0
    assert np.isinf(cost[np.tril_indices(13)]).all()


def test_every_path_of_a_gaussian_costs_its_conditional_entropy(x64):
    """Its reverse steps are Gaussian: the bound is tight on every grid, and without the prior's
    term it is H(x_0 | x_T) = 1/2 log(2 pi e Var[x_0 | x_T])."""
    grid, c = even_grid(9), 0.25
    moments = gaussian_moments(grid, c)
    variance = analytic(moments)
    cost = np.asarray(bound_costs(moments, grid, variance, last_std=variance))
    want = 0.5 * np.log(2 * np.pi * np.e * float(moments.residual.mean[0]))
    rng = np.random.default_rng(0)
    for count in (0, 1, 4, 8):
        path = [0, *np.sort(rng.choice(np.arange(1, 9), count, replace=False)), 9]
        np.testing.assert_allclose(cost[path[:-1], path[1:]].sum(), want, rtol=1e-10)


@pytest.mark.slow
def test_half_the_analytic_cost_is_the_bounds_least_term(x64):
    """With the optimal variance of the exact mean KL = 1/2 log(std**2 / l**2), for any eta."""
    grid = even_grid(6)
    moments = mixture_moments(grid)
    variance = analytic(moments)
    for eta in (1.0, 0.4):
        twice = np.asarray(analytic_costs(variance, grid, eta=eta))[:6, :6]
        bound = np.asarray(bound_costs(moments, grid, variance, eta=eta))[:6, :6]
        np.testing.assert_allclose(bound, twice / 2, rtol=1e-9)


@pytest.mark.parametrize(
    "num_steps", [10, *(pytest.param(k, marks=pytest.mark.slow) for k in (3, 5, 20, 50, 100))]
)
def test_table_of_the_mixture(num_steps, x64):
    grid = even_grid(num_steps)
    moments = mixture_moments(grid)
    variance = analytic(moments)
    first = jax.tree.map(lambda a: float(a[0]), grid.levels)
    left = first.alpha**2 * 0.5 + first.sigma**2
    prior = 0.5 * (left - 1 - 2 * np.log(first.sigma))
    found = along(bound_costs(moments, grid, variance, last_std=variance)) + prior
    assert abs(found - TABLE[num_steps]) < 6e-5  # half of the last printed digit


@pytest.mark.parametrize(
    ("kind", "last", "eta"),
    [
        pytest.param("large", 0.1, 1.0, marks=pytest.mark.slow),
        ("analytic", "analytic", 0.7),
        pytest.param("small", None, 0.5, marks=pytest.mark.slow),
    ],
)
def test_is_the_bound(kind, last, eta, x64):
    """`elbo` at the nodes of a product rule over data and noise, the prior's term left out."""
    grid = even_grid(4)
    moments = mixture_moments(grid)
    pick = lambda name: analytic(moments) if name == "analytic" else name  # noqa: E731
    how = {"variance": pick(kind), "last_std": pick(last), "eta": eta}
    x0, noise, weights = product_rule()
    noise = jnp.broadcast_to(jnp.asarray(noise), (1, 4, *noise.shape))
    terms = elbo(None, mixture(), jnp.asarray(x0), grid, noise=noise, **how).terms
    want = weights @ np.asarray(terms["steps"].sum(-1) + terms["decoder"])[:, 0, 0]
    # the rule is exact to 1e-9 or so where it was tried with more nodes
    np.testing.assert_allclose(along(bound_costs(moments, grid, **how)), -want, rtol=1e-7)


@pytest.mark.parametrize(
    "num_steps", [7, *(pytest.param(k, marks=pytest.mark.slow) for k in (2, 3, 5, 11, 15, 16))]
)
def test_the_programme_is_the_best_of_all_paths(num_steps, x64):
    """Every path through 16 levels: random costs, analytic ones, those of two bounds, all at
    once by vmap."""
    grid = even_grid(16)
    moments = mixture_moments(grid)
    costs = jnp.stack(
        [
            jnp.asarray(np.random.default_rng(0).normal(size=(17, 17))),
            analytic_costs(analytic(moments), grid),
            bound_costs(moments, grid, "large"),
            bound_costs(moments, grid, analytic(moments), last_std=analytic(moments)),
        ]
    )
    found = jax.vmap(lambda c: least_cost_path(c, num_steps))(costs)
    for i, cost in enumerate(costs):
        total, path = best_path(cost, num_steps)
        np.testing.assert_allclose(found.cost[i], total, rtol=1e-12)
        np.testing.assert_array_equal(found.path[i], path)


def test_a_point_on_the_data_costs_infinitely_much(x64):
    """Gamma above 1 / sigma**2 holds the covariance to 0: no NaN, and that step is never taken."""
    grid, c = even_grid(4), 0.25
    moments = gaussian_moments(grid, c)
    high = moments_of_gamma(grid.pairs[0], np.array([0.9, 0.9, 0.9, 1.1]) / moments.levels.sigma**2)
    cost = np.asarray(bound_costs(moments, grid, last_std=analytic(high)))
    assert np.isposinf(cost[3, 4])
    assert not np.isnan(cost).any()
    assert least_cost_path(cost, 2).path.tolist()[1] < 3


def test_jit_and_gradients(x64):
    """By the residual, against central differences, and finite on a padded grid."""
    grid = jd.grids.pad(even_grid(4), 6)
    moments = mixture_moments(even_grid(4))

    def total(scale, eta):
        error = known(moments.residual.mean * scale)
        scaled = Moments(moments.levels, moments.eps, moments.unexplained, error, moments.spread)
        cost = bound_costs(scaled, grid, analytic(moments), eta=eta)
        return jnp.sum(jnp.diagonal(cost, 1)[:4])

    got = jax.jit(jax.grad(total, argnums=(0, 1)))(1.1, 0.8)
    step = 1e-5
    want = (
        (total(1.1 + step, 0.8) - total(1.1 - step, 0.8)) / (2 * step),
        (total(1.1, 0.8 + step) - total(1.1, 0.8 - step)) / (2 * step),
    )
    np.testing.assert_allclose(got, want, rtol=1e-6)


def variance_of(shape):
    return reverse.optimal(lambda d, level: jnp.zeros(shape))


GRID = even_grid(3)
GAMMA = moments_of_gamma(GRID.pairs[0], jnp.array([1.0, 0.9, 0.8]))
WHOLE = Moments(GRID.pairs[0], GAMMA.eps, residual=known(jnp.array([0.5, 0.4, 0.1])))
REFUSED = {
    "no noise": (
        lambda: analytic_costs(analytic(GAMMA), GRID, eta=0.0),
        "take the path of eta = 1",
    ),
    "much noise": (lambda: bound_costs(WHOLE, GRID, eta=1.5), r"eta must lie in \(0, 1\]"),
    "a head": (lambda: bound_costs(WHOLE, GRID, "npr"), "one number a level.*Optimal"),
    "learned": (lambda: analytic_costs("learned", GRID), "one number a level.*LearnedRange"),
    "each example": (lambda: analytic_costs(variance_of((1,)), GRID), "one number a level"),
    "each last": (lambda: bound_costs(WHOLE, GRID, last_std=variance_of((1, 1))), "one number"),
    "Gamma alone": (lambda: bound_costs(GAMMA, GRID), "got Gamma alone"),
    "many last stds": (lambda: bound_costs(WHOLE, GRID, last_std=np.ones(3)), r"one number.*\[3\]"),
    "no last std": (lambda: bound_costs(WHOLE, GRID, last_std=0.0), "last_std must lie in"),
    "a name": (lambda: analytic_costs("tiny", GRID), "variance must be one of"),
    "other levels": (
        lambda: bound_costs(WHOLE, jd.grids.uniform(jd.ve(0.001, 500.0), 9)),
        "must reach over the grid",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input(case):
    call, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        call()
