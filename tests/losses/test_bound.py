"""Truth: entropies, divergences and Fisher divergences of a mixture by quadrature in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxdiff import exact, losses, schedules
from jaxdiff.denoiser import as_denoiser
from jaxdiff.typing import Denoised
from tests import battery

pytestmark = pytest.mark.usefixtures("strict")

N = 2**17
DATA = [0.5, 0.5], [-0.7, 0.7], [0.01, 0.01]  # weights, means, variances
WRONG = [0.4, 0.6], [-0.6, 0.8], [0.02, 0.03]


def vp(t):
    integral = 0.1 * t + 9.95 * t**2
    return np.exp(-integral / 2), np.sqrt(-np.expm1(-integral))


def sub_vp(t):
    alpha, sigma = vp(t)
    return alpha, sigma**2


PATHS = {  # the schedule, its two functions, its working range from the clean end, its prior
    "linear_vp": (schedules.linear_vp(), vp, np.geomspace(1e-3, 1, 300), 1.0),
    "sub_vp": (schedules.sub_vp(), sub_vp, np.geomspace(1e-3, 1, 300), 1.0),
    "ve": (
        schedules.ve(0.01, 5.0),
        lambda t: (np.ones_like(t), 0.01 * 500**t),
        np.linspace(0, 1, 300),
        5.0,
    ),
}
each_path = pytest.mark.parametrize(
    "name",
    ["linear_vp", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sub_vp", "ve"))],
)


def density_and_score(numbers, x, alpha, sigma):
    weights, means, variances = (np.asarray(a)[:, None] for a in numbers)
    total = alpha**2 * variances + sigma**2
    parts = weights * scipy.stats.norm(alpha * means, np.sqrt(total)).pdf(x)
    return parts.sum(0), (parts * (alpha * means - x) / total).sum(0) / parts.sum(0)


def points(alpha, sigma):
    reach = 1.2 * alpha + 8 * np.sqrt(0.03 * alpha**2 + sigma**2)
    return np.linspace(-reach, reach, 1001)


def least_bound(name):
    """Entropy of p at the clean end and KL(p_T || prior), nats."""
    _, path, t, std = PATHS[name]
    x = points(*path(t[0]))
    p = density_and_score(DATA, x, *path(t[0]))[0]
    entropy = -np.trapezoid(p * np.log(p), x)
    x = points(*path(t[-1]))
    p = density_and_score(DATA, x, *path(t[-1]))[0]
    return entropy + np.trapezoid(p * (np.log(p) - scipy.stats.norm(0, std).logpdf(x)), x)


def fisher_integral(name):
    """1/2 int g**2 E |s - s*|**2 dt, as an integral of sigma**2 over log SNR."""
    _, path, t, _ = PATHS[name]
    inner = []
    for alpha, sigma in zip(*path(t), strict=True):
        x = points(alpha, sigma)
        p, true = density_and_score(DATA, x, alpha, sigma)
        wrong = density_and_score(WRONG, x, alpha, sigma)[1]
        inner.append(sigma**2 * np.trapezoid(p * (wrong - true) ** 2, x))
    alpha, sigma = path(t)
    return -0.5 * np.trapezoid(inner, 2 * np.log(alpha / sigma))


@pytest.fixture
def x0():
    draws = np.random.default_rng(0)
    signs = draws.choice([-0.7, 0.7], (N, 1))
    return jnp.asarray(signs + 0.1 * draws.normal(size=(N, 1)), jnp.float32)


@jax.jit
def bound(key, model, x0, schedule):
    return losses.continuous_bound(key, as_denoiser(model), x0, schedule)


def mixture(numbers):
    weights, means, variances = (np.asarray(a) for a in numbers)
    return exact.gaussian_mixture(weights, means[:, None], variances[:, None, None])


@each_path
def test_with_the_exact_model_it_is_the_entropy_and_the_prior_mismatch(name, x0, key):
    value, seen = bound(key, mixture(DATA), x0, PATHS[name][0])
    error = np.std(seen["per_example"]) / np.sqrt(N)
    assert error < 0.05  # any term of the three would be seen missing
    assert abs(float(value) - least_bound(name)) < 4 * error


@pytest.mark.slow
@each_path
def test_with_a_wrong_model_it_is_larger_by_the_fisher_divergence(name, x0, key):
    gaps = [
        np.asarray(bound(key, mixture(numbers), x0, PATHS[name][0])[1]["per_example"], float)
        for numbers in (WRONG, DATA)
    ]
    gap = gaps[0] - gaps[1]  # equal times and noise
    wanted = fisher_integral(name)
    assert wanted > 0.05
    assert abs(gap.mean() - wanted) < 4 * gap.std() / np.sqrt(N)


@pytest.mark.slow
def test_images_are_counted_by_the_dimension_and_terms_add_up(key):
    c, schedule = 0.25, schedules.linear_vp()

    def optimal(x_t, level):
        gain = level.sigma / (level.alpha**2 * c + level.sigma**2)
        eps = gain[:, None, None, None] * x_t
        return Denoised(x_t, eps)

    x0 = c**0.5 * jax.random.normal(jax.random.key(2), (4000, 2, 3, 1))
    value, seen = jax.jit(
        lambda x0: losses.continuous_bound(key, as_denoiser(optimal), x0, schedule)
    )(x0)
    alpha, sigma = vp(np.asarray([1e-3, 1.0]))
    var = alpha**2 * c + sigma**2
    entropy = 0.5 * np.log(2 * np.pi * np.e * var[0])
    truth = entropy + 0.5 * (var[1] - 1 - np.log(var[1]))
    assert abs(float(value) - truth) < 4 * np.std(seen["per_example"]) / np.sqrt(4000)
    # each term by hand, a number of an image
    prior = alpha[1] ** 2 * np.mean(np.square(x0), (1, 2, 3)) + sigma[1] ** 2 - 1
    prior = (prior - np.log(sigma[1] ** 2)) / 2
    np.testing.assert_allclose(seen["prior"], prior, atol=1e-6)  # 4e-5 in float32, of terms of 1
    clean = scipy.stats.norm(0, sigma[0]).entropy()
    assert float(seen["entropy"]) == pytest.approx(clean, abs=1e-4)  # log of a float32 sigma
    total = seen["prior"] + seen["diffusion"] + seen["entropy"]
    np.testing.assert_allclose(seen["per_example"], total, rtol=1e-5)
    assert float(value) == pytest.approx(float(np.mean(total)), rel=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_gradients_by_model_and_schedule_equal_differences(key):
    x0 = jnp.asarray([[-0.6], [0.8], [0.75]])

    @jax.jit
    def total(mean, beta_max, sigma_data):
        covs = sigma_data * jnp.ones((1, 1, 1))
        model = exact.GaussianMixture(jnp.ones(1), mean[None], covs)
        schedule = schedules.linear_vp(0.1, beta_max)
        return losses.continuous_bound(key, as_denoiser(model), x0, schedule)[0]

    arguments = (jnp.asarray([0.2]), jnp.asarray(20.0), jnp.asarray(0.3))
    battery.assert_gradients(total, jax.jit(jax.grad(total, (0, 1, 2))), arguments)


@pytest.mark.slow
def test_zero_terminal_snr_and_other_times(x0, key):
    @jax.jit
    def both(x0):
        given = key, as_denoiser(mixture(DATA)), x0, schedules.cosine()
        return [
            losses.continuous_bound(*given, times=times)
            for times in (losses.uniform_log_snr, losses.stratified)
        ]

    for value, seen in both(x0[:64]):
        assert np.isfinite(value)
        # at 0.999 of the clock alpha**2 is 2.4e-6
        np.testing.assert_allclose(seen["prior"], 0, atol=1e-5)


def test_bad_input_is_refused(x0, key):
    model, chain = mixture(DATA), schedules.from_betas(schedules.linear_betas(100))
    with pytest.raises(ValueError, match="continuous clock, got a chain of 100"):
        losses.continuous_bound(key, as_denoiser(model), x0, chain)
    with pytest.raises(TypeError, match="make_denoiser"):
        losses.continuous_bound(key, model, x0, schedules.linear_vp())
    with pytest.raises(ValueError, match="x0 must be float"):
        losses.continuous_bound(
            key, as_denoiser(model), jnp.ones((2, 1), int), schedules.linear_vp()
        )
    with pytest.raises(ValueError, match="takes none"):
        losses.continuous_bound(
            key, as_denoiser(model), x0, schedules.linear_vp(), cond=jnp.zeros(N, int)
        )
