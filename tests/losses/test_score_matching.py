"""Truth: the Fisher divergence between two mixtures in numpy, by quadrature; standard errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from jaxdiff import divergence, exact, losses, schedules, sde
from jaxdiff.denoiser import as_denoiser
from jaxdiff.typing import Denoised, NoiseLevel

pytestmark = pytest.mark.usefixtures("x64", "strict")

DATA = {
    1: ([0.5, 0.5], [[-0.7], [0.7]], [[[0.01]], [[0.01]]]),
    2: ([0.3, 0.7], [[-0.6, 0.2], [0.5, -0.4]], [[[0.2, 0.05], [0.05, 0.1]], [[0.1, 0], [0, 0.3]]]),
}
MODEL = {  # wrong on purpose
    1: ([0.3, 0.7], [[-0.5], [0.9]], [[[0.04]], [[0.02]]]),
    2: ([0.6, 0.4], [[-0.3, 0.1], [0.6, 0.0]], [[[0.3, -0.1], [-0.1, 0.2]], [[0.2, 0], [0, 0.1]]]),
}
LEVELS = {"noisy": (0.6, 0.8), "cleaner": (0.9, 0.3), "exploding": (1.0, 2.0)}
each_level = pytest.mark.parametrize("at", LEVELS)
slow_two, slow_one = (pytest.param(dim, marks=pytest.mark.slow) for dim in (2, 1))
one_dim = pytest.mark.parametrize("dim", [1, 2])
two_dims = pytest.mark.parametrize("dim", [2, slow_one])


def density_and_score(numbers, x, alpha, sigma):
    """p_t and grad log p_t at x [n, D], written out."""
    weights, means, covs = (np.asarray(a, float) for a in numbers)
    p, slope = np.zeros(len(x)), np.zeros(x.shape)
    for weight, mean, cov in zip(weights, means, covs, strict=True):
        total = alpha**2 * cov + sigma**2 * np.eye(len(mean))
        law = scipy.stats.multivariate_normal(alpha * mean, total)
        part = weight * np.atleast_1d(law.pdf(x))  # of one point SciPy gives a number
        p, slope = p + part, slope - part[:, None] * np.linalg.solve(total, (x - alpha * mean).T).T
    return p, slope / p[:, None]


def quadrature(dim, alpha, sigma):
    """Points [n, D] and weights p_t dx [n]: trapezia, exact to rounding for such densities."""
    reach = 1.2 * alpha + 9 * np.hypot(sigma, 0.5 * alpha * (dim - 1) + 0.1)
    axis = np.linspace(-reach, reach, 401 if dim == 1 else 121)
    x = np.stack(np.meshgrid(*[axis] * dim), axis=-1).reshape(-1, dim)
    p, true = density_and_score(DATA[dim], x, alpha, sigma)
    return x, p * (axis[1] - axis[0]) ** dim, true


def asked(dim, at):
    """(points, weights, true score, Fisher divergence, E 1/2 |s*|**2, level, model)."""
    alpha, sigma = LEVELS[at]
    x, w, true = quadrature(dim, alpha, sigma)
    assert w.sum() == pytest.approx(1, abs=1e-9)
    wrong = density_and_score(MODEL[dim], x, alpha, sigma)[1]
    fisher = np.sum(w * np.sum((wrong - true) ** 2, axis=1)) / 2
    half = np.sum(w * np.sum(true**2, axis=1)) / 2
    level = NoiseLevel(*(jnp.asarray(v) for v in (0.0, alpha, sigma)))
    return jnp.asarray(x), w, jnp.asarray(true), fisher, half, level, MODELS[dim]


MODELS = {}


@pytest.fixture(autouse=True)
def _models(x64):
    MODELS.update({dim: exact.gaussian_mixture(*MODEL[dim]) for dim in MODEL})


@jax.jit
def losses_of(key, model, x, level, true):
    return {
        "explicit": losses.explicit(model, x, level, true),
        "implicit": losses.implicit(key, model, x, level),
        "hutchinson": losses.implicit(key, model, x, level, divergence.hutchinson(2)),
        "sliced": losses.sliced(key, model, x, level),
    }


def test_the_fisher_divergence_of_the_test_is_scipys():
    alpha, sigma = LEVELS["noisy"]

    def integrand(x):
        p, true = density_and_score(DATA[1], np.asarray([[x]]), alpha, sigma)
        wrong = density_and_score(MODEL[1], np.asarray([[x]]), alpha, sigma)[1]
        return (p * (wrong - true)[:, 0] ** 2 / 2)[0]

    truth = scipy.integrate.quad(integrand, -8, 8, epsabs=1e-12, limit=200)[0]
    assert asked(1, "noisy")[3] == pytest.approx(truth, rel=1e-8)


@two_dims
@each_level
def test_each_is_the_fisher_divergence_and_a_constant(dim, at, key):
    x, w, true, fisher, half, level, model = asked(dim, at)
    values = {name: np.asarray(v) for name, v in losses_of(key, model, x, level, true).items()}
    assert all(v.shape == (len(x),) for v in values.values())
    # trapezia leave 1e-9 of tails of 9 deviations; integration by parts loses no more
    assert np.sum(w * values["explicit"]) == pytest.approx(fisher, rel=1e-7)
    assert np.sum(w * values["implicit"]) == pytest.approx(fisher - half, rel=1e-7, abs=1e-9)
    for name in ("hutchinson", "sliced"):
        # in one dimension u u' = 1; else each point's probes err by themselves, about 0
        error = w * (values[name] - values["implicit"])
        bound = 4 * np.sqrt(np.sum(error**2)) if dim > 1 else 1e-12
        assert abs(error.sum()) <= bound
        assert (bound > 1e-6) == (dim > 1)


@pytest.mark.slow
@one_dim
def test_all_have_one_gradient(dim, key):
    x, w, true, *_, level, model = asked(dim, "cleaner")
    w = jnp.asarray(w)

    @jax.jit
    def gradients(means):
        own = lambda means: exact.GaussianMixture(model.weights, means, model.covs)  # noqa: E731
        explicit = lambda m: jnp.sum(w * losses.explicit(own(m), x, level, true))  # noqa: E731
        implicit = lambda m: jnp.sum(w * losses.implicit(key, own(m), x, level))  # noqa: E731
        return jax.grad(explicit)(means), jax.grad(implicit)(means)

    of_explicit, of_implicit = gradients(model.means)
    assert np.abs(of_explicit).max() > 0.1
    np.testing.assert_allclose(of_implicit, of_explicit, rtol=1e-6, atol=1e-8)


class Still:
    """A schedule that stays where it is."""

    t_min, t_max, prior_std = 0.0, 1.0, 1.0

    def __init__(self, level):
        self.level = level

    def __call__(self, t):
        t = jnp.asarray(t)
        return NoiseLevel(t, t * 0 + self.level.alpha, t * 0 + self.level.sigma)

    def time(self, log_snr):
        return log_snr


@jax.jit
def denoising_at(key, model, x0, level):
    return losses.denoising(key, as_denoiser(model), x0, Still(level))[1]["per_example"]


@two_dims
@each_level
def test_denoising_score_matching_has_its_own_constant(dim, at, key):
    *_, fisher, half, level, model = asked(dim, at)
    n, (weights, means, covs) = 20000, DATA[dim]
    draws = np.random.default_rng(0)
    which = draws.choice(len(weights), n, p=weights)
    factors = np.linalg.cholesky(np.asarray(covs, float))[which]
    x0 = np.asarray(means)[which] + np.einsum("nij,nj->ni", factors, draws.normal(size=(n, dim)))
    squared = denoising_at(key, model, jnp.asarray(x0), level)
    # 1/2 |s + noise / sigma|**2 from the mean over D of the squared error of eps
    nats = np.asarray(squared) * dim / (2 * float(level.sigma) ** 2)
    wanted = fisher - half + dim / (2 * float(level.sigma) ** 2)
    assert abs(nats.mean() - wanted) < 4 * nats.std() / np.sqrt(n)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["sub_vp", "linear_vp", "ve"],
)
def test_likelihood_weighting_is_twice_the_weight_of_the_bound(name, key):
    schedule, seen = getattr(schedules, name)(), []

    def wrong(x_t, level):
        seen.append((x_t, level))
        return Denoised(0 * x_t, jnp.sin(x_t))

    x0 = jax.random.normal(jax.random.key(1), (6, 3))
    _, metrics = losses.denoising(key, as_denoiser(wrong), x0, schedule, weight=losses.vlb)
    x_t, level = seen[0]
    alpha, sigma = level.alpha[:, None], level.sigma[:, None]
    noise = (x_t - alpha * x0) / sigma
    score = -jnp.sin(x_t) / sigma
    g2 = sde.coefficients(schedule, level.t)[1]
    squared = g2 * jnp.sum((score + noise / sigma) ** 2, axis=1)
    span = schedule.t_max - schedules.cleanest_time(schedule)
    # a mean over 3 numbers, under uniform times over the span
    np.testing.assert_allclose(2 * 3 * metrics["weighted"], span * squared, rtol=1e-9)


@pytest.mark.slow
def test_draws_belong_to_examples_and_half_of_a_batch_is_half(key):
    x, *_, level, model = asked(2, "noisy")
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(6))
    draw = lambda key, n: losses.sliced(key, model, x[:n], level)  # noqa: E731
    whole, half, keyed = jax.jit(lambda: (draw(key, 6), draw(key, 3), draw(keys, 6)))()
    np.testing.assert_allclose(whole[:3], half, rtol=1e-12)
    np.testing.assert_allclose(whole, keyed, rtol=1e-12)
    assert len(np.unique(whole)) == 6


@pytest.mark.slow
def test_more_slices_are_a_mean_of_less_spread(key):
    x, w, true, *_, level, model = asked(2, "noisy")
    exactly = np.asarray(losses_of(key, model, x, level, true)["implicit"])
    nine = np.asarray(jax.jit(lambda: losses.sliced(key, model, x, level, 9))())
    one = np.asarray(losses_of(key, model, x, level, true)["sliced"])
    spread = [np.sqrt(np.sum(w * (values - exactly) ** 2)) for values in (one, nine)]
    # nine of equal law: a third of the spread, of thousands of points of weight
    assert spread[1] == pytest.approx(spread[0] / 3, rel=0.1)


def test_bad_input_is_refused(key):
    level = NoiseLevel(*(jnp.asarray(v) for v in (0.0, 0.6, 0.8)))
    x, model = jnp.ones((3, 2)), MODELS[2]
    column = level._replace(sigma=jnp.full((3, 1), 0.8))
    for call, message in [
        (lambda: losses.explicit(model, x, level, x[:1]), "true_score"),
        (lambda: losses.explicit(model, x, level._replace(sigma=jnp.asarray(0.0)), x), "noise"),
        (lambda: losses.implicit(key, model, jnp.ones((3, 2), int), level), "x_t must be float"),
        (lambda: losses.implicit(key, model, x.astype(jnp.bfloat16), level), "bfloat16"),
        (lambda: losses.sliced(jax.random.split(key, 2), model, x, level), "key must be one"),
        (lambda: losses.implicit(None, model, x, column), r"level.sigma .* \[3\], got \[3, 1\]"),
        (lambda: losses.explicit(model, x, column, x), r"level.sigma must be \[\] or \[3\]"),
        (lambda: losses.sliced(key, model, jnp.ones(3), level), "shape"),
        (lambda: losses.sliced(key, model, x, level, 0), "slices"),
        (lambda: losses.sliced(key, model, x, level, np.nan), "slices must be .* got nan"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def test_numbers_in_a_list_are_a_batch():
    level = NoiseLevel(*(jnp.asarray(v) for v in (0.0, 0.6, 0.8)))
    model = lambda x_t, level: Denoised(x_t, 0.8 * x_t)  # noqa: E731 of score -x_t
    got = losses.explicit(model, [[3.0, 4.0], [0.0, 0.0]], level, np.zeros((2, 2)))
    np.testing.assert_allclose(got, [12.5, 0], rtol=1e-12)  # 1/2 |s|**2
