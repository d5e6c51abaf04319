"""Second moments of a model.

Truth: closed forms of a Gaussian and of a Gaussian with a biased mean; SciPy's standard error;
the moments of the whole set for those of its parts.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from scipy import stats

from jaxdiff import exact, grids, reverse, schedules
from jaxdiff.likelihood import elbo
from jaxdiff.reverse import merge, second_moments
from jaxdiff.typing import Denoised
from tests import battery

CHAIN = schedules.from_betas(battery.BETAS["linear"])
GRID = grids.from_steps(CHAIN, [1000.0, 600.0, 200.0, 20.0])
C = 0.25


def data(key, n=4000):
    source = exact.gaussian([0.1, 0.1], np.eye(2) * C)
    return source, source.sample(key, n)


def test_three_estimators_of_one_variance(key, x64):
    """C = c sigma**2 / (alpha**2 c + sigma**2), within four standard errors, at every level."""
    source, x = data(key)
    moments = second_moments(key, source, x, GRID)
    alpha, sigma = (np.asarray(a) for a in (moments.levels.alpha, moments.levels.sigma))
    v = alpha**2 * C + sigma**2
    for by in reverse.ESTIMATORS:
        found, error = moments.cov(by)
        assert (np.abs(found - C * sigma**2 / v) < 4 * error).all(), by
    np.testing.assert_array_less(np.abs(moments.gamma - 1 / v), 4 * moments.eps.error / sigma**2)
    assert abs(moments.spread.mean - C) < 4 * moments.spread.error
    # at the noisy end Gamma says least, and the data most
    assert moments.cov("x0")[1][0] < moments.cov("eps")[1][0] / 100
    assert moments.cov("eps")[1][3] < moments.cov("x0")[1][3]


def test_errors_are_those_of_a_mean(key, x64):
    """By SciPy, of the model x0_hat = 0, whose residual is the mean square of each example."""
    _, x = data(key, 50)

    def nothing(x_t, level):
        return Denoised(jnp.zeros_like(x_t), x_t / level.sigma)

    moments = second_moments(key, nothing, x, GRID)
    squares = np.mean(np.asarray(x) ** 2, axis=1)
    np.testing.assert_allclose(moments.residual.mean, np.full(4, squares.mean()), rtol=1e-12)
    np.testing.assert_allclose(moments.residual.error, np.full(4, stats.sem(squares)), rtol=1e-10)


def test_a_biased_mean_shows_in_the_gap(key, x64):
    """x0_hat = E[x_0 | x_t] + b: residual is C + b**2; E |x0_hat - mean|**2 grows by b**2 too, so
    "x0" falls by it."""
    source, x = data(key)
    b = 0.2

    def biased(x_t, level):
        d = source(x_t, level)
        return Denoised(d.x0 + b, d.eps - b * level.alpha / level.sigma)

    moments = second_moments(key, biased, x, GRID)
    alpha, sigma = (np.asarray(a) for a in (moments.levels.alpha, moments.levels.sigma))
    cov = C * sigma**2 / (alpha**2 * C + sigma**2)
    for by, want in (("residual", cov + b**2), ("x0", cov - b**2)):
        found, error = moments.cov(by)
        assert (np.abs(found - want) < 4 * error).all(), by


@pytest.mark.slow
def test_residual_is_the_best_single_variance_of_a_mean_that_errs(key):
    """-log N(x_0; x0_hat, v) is least at v = E |x_0 - x0_hat|**2: the bound by "residual" beats
    that by "eps" for the biased model."""
    source, x = data(key, 1000)

    def biased(x_t, level):
        d = source(x_t, level)
        return Denoised(d.x0 - 0.4 * level.sigma / level.alpha, d.eps + 0.4)

    moments = second_moments(key, biased, x, GRID)
    bounds = {}
    for by in ("eps", "residual"):
        variance = reverse.analytic(moments, by=by)
        how = {"variance": variance, "last_std": variance}
        bounds[by] = float(elbo(jax.random.key(7), biased, x, GRID, **how).mean)
    assert bounds["residual"] > bounds["eps"] + 0.1


@pytest.mark.slow
def test_parts_merge_to_the_whole(key, x64):
    source, x = data(key, 300)
    keys = jax.random.split(key, 300)
    whole = second_moments(keys, source, x, GRID, draws=2)
    mean = jnp.mean(x, axis=0)
    parts = [
        second_moments(keys[i:j], source, x[i:j], GRID, draws=2, mean=mean)
        for i, j in ((0, 100), (100, 200), (200, 300))
    ]
    merged = merge(merge(*parts[:2]), parts[2])
    for ours, want in zip(jax.tree.leaves(merged), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(ours, want, rtol=1e-9)
    with pytest.raises(ValueError, match="equal levels"):
        merge(whole, second_moments(key, source, x, grids.from_steps(CHAIN, [9.0, 8.0, 7.0, 6.0])))
    gamma = reverse.moments_of_gamma(whole.levels, whole.gamma)
    for one, other in ((gamma, gamma), (gamma, whole), (whole, gamma)):
        with pytest.raises(ValueError, match="Gamma alone"):
            merge(one, other)


def test_examples_over_devices(key):
    source, x = data(key, 64)
    over = Mesh(np.asarray(jax.devices()[:4]), ("data",))
    split = jax.device_put(x, NamedSharding(over, P("data")))
    alone, shared = (second_moments(key, source, a, GRID) for a in (x, split))
    for ours, want in zip(jax.tree.leaves(shared), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(ours, want, rtol=1e-5)


def test_many_models_as_one_program(key):
    """vmap over a leaf of the model: the moments of several checkpoints."""
    _, x = data(key, 64)

    def of(c):
        model = exact.GaussianMixture(jnp.ones(1), jnp.zeros((1, 2)), c * jnp.eye(2)[None])
        return second_moments(key, model, x, GRID)

    many = jax.vmap(of)(jnp.array([0.1, 0.5]))
    for i, c in enumerate((0.1, 0.5)):
        one = of(jnp.float32(c))
        np.testing.assert_allclose(many.eps.mean[i], one.eps.mean, rtol=1e-5)
    tables = jax.vmap(reverse.analytic)(many)
    assert tables.cov.scaled.shape == (2, 4)


@pytest.mark.slow
def test_examples_draw_by_their_own_keys(key, x64):
    """Batch-size invariance: the first half's moments do not depend on the second."""
    source, x = data(key, 20)
    keys = jax.random.split(key, 20)
    mean = jnp.zeros(2)
    half = second_moments(keys[:10], source, x[:10], GRID, mean=mean)
    rest = second_moments(keys[10:], source, x[10:], GRID, mean=mean)
    whole = second_moments(keys, source, x, GRID, mean=mean)
    np.testing.assert_allclose(whole.eps.mean, (half.eps.mean + rest.eps.mean) / 2, rtol=1e-12)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"x": jnp.zeros((0, 2))}, "B >= 1"),
        ({"x": jnp.zeros((3, 2), jnp.int32)}, "float32 or float64"),
        ({"draws": 0}, "draws"),
        ({"mean": jnp.zeros(3)}, "mean must have shape"),
        ({"x": jnp.full((3, 2), jnp.nan)}, "x must be finite"),
        ({"x": jnp.full((3, 2), 1e30)}, "model's answer is not finite at t = 1000"),
        ({"mean": jnp.array([0, jnp.nan])}, "mean must lie"),
        ({"denoise": lambda x, level: Denoised(x[:, :1], x)}, r"x0 as.*\[3, 2\].*\[3, 1\]"),
    ],
)
def test_bad_input(changes, match, key):
    source, x = data(key, 3)
    call = {"denoise": source, "x": x, "draws": 1, "mean": None} | changes
    with pytest.raises((ValueError, FloatingPointError), match=match):
        second_moments(key, call.pop("denoise"), call.pop("x"), GRID, **call)


def test_one_example_has_no_error(key):
    source, x = data(key, 1)
    moments = second_moments(key, source, x, GRID)
    assert np.isnan(moments.eps.error).all()
    assert np.isfinite(moments.gamma).all()
