"""The grid of K steps of least cost.

Truth: enumeration of all paths; Bao et al.'s rule for what is above 1, worked out by hand.
"""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff as jd
from jaxdiff.reverse import analytic, moments_of_gamma
from jaxdiff.trajectory import analytic_costs, optimal_grid
from tests.trajectory.chains import best_path, even_grid, mixture_moments

pytestmark = pytest.mark.usefixtures("strict")


def visited(moments, fine, num_steps, **options):
    """The indices of the levels that the grid of K steps visits."""
    grid = optimal_grid(moments, fine, num_steps, **options)
    assert grid.num_steps == num_steps
    assert grid.schedule is fine.schedule
    return np.searchsorted(-np.asarray(fine.levels.t), -np.asarray(grid.levels.t))


def above_one(total, bad):
    """Moments of which E eps**2 is above 1 at the `bad` noisiest levels but for the very last."""
    fine = even_grid(total)
    eps = np.linspace(0.9, 0.3, total)
    eps[:bad] = np.where(np.arange(bad) > 0, 0.95, 0.99)
    eps[bad - 1] = 1.01
    return moments_of_gamma(fine.pairs[0], eps / np.asarray(fine.pairs[0].sigma) ** 2), fine


@pytest.mark.parametrize("num_steps", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_is_the_best_of_all_grids(num_steps, x64):
    fine = even_grid(12)
    moments = mixture_moments(fine)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = visited(moments, fine, num_steps)
    _, path = best_path(analytic_costs(analytic(moments), fine), num_steps)
    np.testing.assert_array_equal(found, path)


@pytest.mark.slow
def test_it_costs_no_more_than_even_steps(x64):
    """The mixture's middle steps are where means jump: even steps over t cost more."""
    fine = even_grid(20)
    moments = mixture_moments(fine)
    cost = np.asarray(analytic_costs(analytic(moments), fine))
    for by in ("eps", "residual"):
        path = visited(moments, fine, 5, by=by)
        even = np.array([0, 5, 10, 14, 19, 20])
        assert cost[path[:-1], path[1:]].sum() < cost[even[:-1], even[1:]].sum() - 0.1


def test_one_step_and_all_steps(x64):
    fine = even_grid(12)
    moments = mixture_moments(fine)
    np.testing.assert_array_equal(visited(moments, fine, 1), [0, 12])
    np.testing.assert_array_equal(visited(moments, fine, 12), np.arange(13))


def test_what_is_above_one_is_visited_evenly(x64):
    """N = 20, above 1 from step 18 on: 2 * 3 bad steps, of which K - ceil((1 - 0.8 * 0.3) K) =
    10 - 8 are visited, 20 and 17; 8 of the 14 others by cost."""
    moments, fine = above_one(20, 3)
    with pytest.warns(UserWarning, match="above 1.*of 10 steps 2 are spread evenly.* 6 of 20"):
        found = visited(moments, fine, 10)
    np.testing.assert_array_equal(found[:3], [0, 3, 6])
    cost = np.asarray(analytic_costs(analytic(moments), fine))[6:, 6:]
    np.testing.assert_array_equal(found[2:], 6 + best_path(cost, 8)[1])


@pytest.mark.slow
@pytest.mark.parametrize("bad", [1, 2, 3, 6])
def test_any_number_of_steps_over_any_number_of_bad_levels(bad):
    """From the noisiest level to the clean end, over the cleanest noisy one from 2 steps on, at
    least one bad level and as many steps as asked for; 3 levels of 6 leave one to have a cost."""
    moments, fine = above_one(6, bad)
    for num_steps in range(1, 7):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = visited(moments, fine, num_steps)
        assert len(path) == num_steps + 1
        assert (path[0], path[-1]) == (0, 6)
        assert np.all(np.diff(path) > 0)
        assert num_steps == 1 or path[-2] == 5


@pytest.mark.slow
def test_of_several_models_at_once(x64):
    """Traced moments: the paths of two by vmap are those of each."""
    fine = even_grid(12)
    levels = fine.pairs[0]

    def times(scale):
        gamma = scale * (0.3 + 0.6 * levels.sigma) / levels.sigma**2
        return optimal_grid(moments_of_gamma(levels, gamma), fine, 4).levels.t

    scales = jnp.array([0.5, 1.0])
    together = jax.vmap(times)(scales)
    for scale, found in zip(scales, together, strict=True):
        np.testing.assert_array_equal(found, times(scale))


FINE = even_grid(3)
MOMENTS = moments_of_gamma(FINE.pairs[0], jnp.array([1.0, 0.9, 0.8]))
REFUSED = {
    "no steps": (lambda: optimal_grid(MOMENTS, FINE, 0), "num_steps must be a whole number"),
    "half a step": (lambda: optimal_grid(MOMENTS, FINE, 1.5), "num_steps must be .* got 1.5"),
    "many steps": (lambda: optimal_grid(MOMENTS, FINE, 4), "at most 3.*got 4"),
    "more levels": (lambda: optimal_grid(MOMENTS, even_grid(4), 2), "levels of the moments, 3"),
    "other levels": (
        lambda: optimal_grid(MOMENTS, jd.grids.uniform(jd.cosine(), 3), 2),
        "levels of the moments, 3",
    ),
    "a noisy end": (
        lambda: optimal_grid(MOMENTS, jd.grids.linspace(FINE.schedule, 3, end=None), 2),
        "levels of the moments|end clean",
    ),
    "by": (lambda: optimal_grid(MOMENTS, FINE, 2, by="std"), "by must be one of"),
    "Gamma alone": (lambda: optimal_grid(MOMENTS, FINE, 2, by="x0"), "got Gamma alone"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input(case):
    call, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        call()
