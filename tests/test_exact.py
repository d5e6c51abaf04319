"""Truth: quadrature, dense Gaussian conditioning in numpy, scipy.stats, autodiff identities."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from jaxdiff import exact
from jaxdiff.typing import CLEAN, Denoised, NoiseLevel
from tests import battery

pytestmark = pytest.mark.usefixtures("x64", "strict")

# (alpha, sigma) from data to noise: clean, variance-preserving, exploding, zero terminal SNR.
LEVELS = [(1.0, 0.0), (0.999, 0.0447), (0.6, 0.8), (0.5, 0.5), (1.0, 80.0), (1e-6, 1.0), (0.0, 1.0)]
NOISY = [pair for pair in LEVELS if pair[1] > 0]


class Answers(NamedTuple):
    """All that a mixture says of a state."""

    denoised: Denoised
    score: Any
    log_prob: Any
    eps2: Any
    posterior: exact.GaussianMixture


def eager(mixture, x, at):
    return Answers(
        mixture(x, at),
        mixture.score(x, at),
        mixture.log_prob(x, at),
        mixture.eps2(x, at),
        mixture.posterior(x, at),
    )


ask = jax.jit(eager)  # one compile for all levels of a shape


def level(alpha, sigma):
    return NoiseLevel(t=jnp.asarray(0.0), alpha=jnp.asarray(alpha), sigma=jnp.asarray(sigma))


def numbers(components=3, dim=3):
    generator = np.random.default_rng(components * 10 + dim)
    weights = generator.uniform(0.5, 1.5, size=components)
    means = generator.normal(size=(components, dim))
    factors = generator.normal(size=(components, dim, dim))
    covs = 0.2 * factors @ factors.transpose(0, 2, 1) + 0.1 * np.eye(dim)
    return weights / weights.sum(), means, covs


@pytest.fixture
def mixture():
    return exact.gaussian_mixture(*numbers())


def bimodal():
    """The mixture of two narrow bumps on which the literature's variance formulas are compared."""
    return exact.gaussian_mixture([0.5, 0.5], [[-0.7], [0.7]], [[[0.01]], [[0.01]]])


def states(mixture, at, n=5):
    """Draws of x_t, and so of typical size at every level."""
    x0_key, noise_key = jax.random.split(jax.random.key(7))
    x0 = mixture.sample(x0_key, n)
    return at.alpha * x0 + at.sigma * jax.random.normal(noise_key, x0.shape)


def conditioned(mixture, x_t, alpha, sigma):
    """Moments of (x_0, eps) given x_t, by conditioning the joint (x_0, eps, x_t) of a component.

    Returns:
        mean [B, 2D], covariance [B, 2D, 2D] and log-density [B].
    """
    weights, means, covs = (np.asarray(a) for a in (mixture.weights, mixture.means, mixture.covs))
    dim, logs, firsts, seconds = means.shape[1], [], [], []
    for weight, mean, cov in zip(weights, means, covs, strict=True):
        prior = np.block([[cov, np.zeros((dim, dim))], [np.zeros((dim, dim)), np.eye(dim)]])
        mix = np.hstack([alpha * np.eye(dim), sigma * np.eye(dim)])  # x_t = mix (x_0, eps)
        total = mix @ prior @ mix.T
        gain = prior @ mix.T @ np.linalg.inv(total)
        center = np.concatenate([mean, np.zeros(dim)])
        first = center + (x_t - mix @ center) @ gain.T
        var = prior - gain @ mix @ prior
        firsts.append(first)
        seconds.append(first[:, :, None] * first[:, None, :] + var)
        density = scipy.stats.multivariate_normal(alpha * mean, total).logpdf(x_t)
        logs.append(np.log(weight) + density)
    logs = np.stack(logs)
    share = scipy.special.softmax(logs, axis=0)
    first = np.einsum("mb,mbi->bi", share, np.stack(firsts))
    second = np.einsum("mb,mbij->bij", share, np.stack(seconds))
    cov = second - first[:, :, None] * first[:, None, :]
    return first, cov, scipy.special.logsumexp(logs, axis=0)


@pytest.mark.parametrize(
    ("components", "dim"),
    [*(pytest.param(1, dim, marks=pytest.mark.slow) for dim in (1, 4)), (3, 3)],
)
@pytest.mark.parametrize(("alpha", "sigma"), LEVELS)
def test_moments_equal_dense_conditioning(components, dim, alpha, sigma):
    mixture = exact.gaussian_mixture(*numbers(components, dim))
    x = states(mixture, level(alpha, sigma))
    mean, cov, log_prob = conditioned(mixture, np.asarray(x), alpha, sigma)
    ours = ask(mixture, x, level(alpha, sigma))
    # float64, one solve of matrices with condition numbers below 1e2; numpy's side cancels more
    close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)
    close(ours.denoised.x0, mean[:, :dim])
    close(ours.denoised.eps, mean[:, dim:])
    close(ours.eps2, (np.einsum("bii->bi", cov) + mean**2)[:, dim:])
    close(ours.log_prob, log_prob)
    close(ours.posterior.mean, mean[:, :dim])
    close(ours.posterior.cov, cov[:, :dim, :dim])


@pytest.mark.parametrize(("alpha", "sigma"), NOISY[:4])
def test_one_dimension_equals_quadrature(alpha, sigma):
    # The trapezoid of an analytic integrand that vanishes at the ends converges exponentially;
    # the narrowest factor has deviation .045 / .999, 90 nodes wide.
    x0 = np.linspace(-2.5, 2.5, 10001)
    prior = scipy.stats.norm([[-0.7], [0.7]], 0.1).pdf(x0).mean(0)
    x = np.asarray([-1.3, -0.2, 0.0, 0.4, 0.9]) * np.hypot(alpha, sigma)
    eps = (x[:, None] - alpha * x0) / sigma
    joint = prior * scipy.stats.norm.pdf(eps) / sigma
    density = np.trapezoid(joint, x0)

    def mean(f):
        return np.trapezoid(joint * f, x0) / density

    ours = ask(bimodal(), jnp.asarray(x)[:, None], level(alpha, sigma))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12)
    close(ours.log_prob, np.log(density))
    close(ours.denoised.x0[:, 0], mean(x0))
    close(ours.denoised.eps[:, 0], mean(eps))
    close(ours.eps2[:, 0], mean(eps**2))
    close(ours.posterior.cov[:, 0, 0], mean(x0**2) - mean(x0) ** 2)


def test_entropy_and_variance_of_the_published_mixture():
    # Bumps 14 deviations apart: the closed form of two disjoint Gaussians to e^-25.
    x = np.linspace(-1.7, 1.7, 6801)
    log_p = np.asarray(jax.jit(bimodal().log_prob)(jnp.asarray(x)[:, None]))
    entropy = -np.trapezoid(np.exp(log_p) * log_p, x)
    assert entropy == pytest.approx(-0.190499, abs=5e-7)
    assert entropy == pytest.approx(np.log(2) + np.log(2 * np.pi * np.e * 0.01) / 2, abs=1e-9)
    np.testing.assert_allclose(bimodal().cov, [[0.5]], rtol=1e-14)  # .49 + .01


@pytest.mark.parametrize("c", [0.25, 1.0])
@pytest.mark.parametrize(("alpha", "sigma"), LEVELS)
def test_gaussian_data_have_the_closed_forms(c, alpha, sigma):
    mixture = exact.gaussian(np.zeros(4), c * np.eye(4))
    x, v = states(mixture, level(alpha, sigma)), alpha**2 * c + sigma**2
    ours = ask(mixture, x, level(alpha, sigma))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-13, atol=1e-15)
    close(ours.denoised.x0, alpha * c / v * x)
    close(ours.denoised.eps, sigma / v * x)
    close(ours.score, -x / v)
    close(ours.eps2, sigma**2 / v**2 * x**2 + alpha**2 * c / v)
    close(ours.posterior.cov, np.broadcast_to(sigma**2 * c / v * np.eye(4), (len(x), 4, 4)))


def test_the_ends_are_exact(mixture):
    x = states(mixture, level(1.0, 1.0))
    clean = ask(mixture, x, level(0.5, 0.0))
    np.testing.assert_allclose(clean.denoised.x0, 2 * x, rtol=1e-12)
    np.testing.assert_array_equal(clean.denoised.eps, np.zeros_like(x))
    np.testing.assert_array_equal(clean.posterior.covs, np.zeros((5, 3, 3, 3)))
    noise = ask(mixture, x, level(0.0, 2.0))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-14)
    close(noise.denoised.x0, np.broadcast_to(mixture.mean, x.shape))
    close(noise.denoised.eps, x / 2)
    close(noise.score, -x / 4)
    close(noise.eps2, x**2 / 4)
    close(noise.posterior.cov, np.broadcast_to(mixture.cov, (5, 3, 3)))


@jax.jit
def derivatives(mixture, x, at):
    gradient = jax.grad(lambda x: mixture.log_prob(x, at).sum())(x)
    return gradient, jax.vmap(jax.jacfwd(lambda x: mixture.score(x[None], at)[0]))(x)


@pytest.mark.parametrize(("alpha", "sigma"), LEVELS)
def test_score_is_the_gradient_and_tweedie_holds(mixture, alpha, sigma):
    x = states(mixture, level(alpha, sigma))
    ours = ask(mixture, x, level(alpha, sigma))
    gradient, curvature = derivatives(mixture, x, level(alpha, sigma))
    np.testing.assert_allclose(ours.score, gradient, rtol=1e-10, atol=1e-12)
    x0, eps = ours.denoised.x0, ours.denoised.eps
    np.testing.assert_allclose(alpha * x0 + sigma * eps, x, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(alpha * x0, x + sigma**2 * ours.score, rtol=1e-10, atol=1e-10)
    # Second order: alpha^2 Cov[x_0 | x_t] = sigma^2 (I + sigma^2 grad score). The right side
    # cancels, so it holds up to sigma^2 roundings.
    second = sigma**2 * (np.eye(3) + sigma**2 * np.asarray(curvature))
    atol = 1e-12 * max(1, sigma**2)
    np.testing.assert_allclose(alpha**2 * ours.posterior.cov, second, rtol=1e-9, atol=atol)


@pytest.mark.parametrize(("alpha", "sigma"), NOISY[:3])
def test_posterior_density_obeys_bayes(mixture, alpha, sigma):
    x_t, x0 = states(mixture, level(alpha, sigma)), mixture.sample(jax.random.key(3), 5)
    ours = ask(mixture, x_t, level(alpha, sigma))
    log_posterior = jax.jit(jax.vmap(lambda p, x: p.log_prob(x[None])[0]))(ours.posterior, x0)
    likelihood = scipy.stats.norm(alpha * np.asarray(x0), sigma).logpdf(x_t).sum(1)
    bayes = ask(mixture, x0, level(1.0, 0.0)).log_prob + likelihood - ours.log_prob
    np.testing.assert_allclose(log_posterior, bayes, rtol=1e-10)
    # E[eps^2 | x_t] is a moment of that density, eps = (x_t - alpha x_0) / sigma; the division
    # by sigma = .0447 twice costs three digits.
    eps = (x_t - alpha * ours.posterior.mean) / sigma
    var = (alpha / sigma) ** 2 * jnp.diagonal(ours.posterior.cov, axis1=1, axis2=2)
    np.testing.assert_allclose(ours.eps2, eps**2 + var, rtol=1e-10)


def assert_moments(draws, mean, cov):
    """Mean and covariance within 4 standard errors."""
    gaps = draws - np.asarray(mean)
    assert (abs(gaps.mean(0)) < 4 * np.sqrt(np.diag(cov) / len(draws))).all()
    products = gaps[:, :, None] * gaps[:, None, :]
    assert (abs(products.mean(0) - cov) < 4 * products.std(0) / np.sqrt(len(draws))).all()


def test_samples_have_the_moments_and_the_shares():
    # A component far away carries its weight in the count of draws near it.
    weights, means, covs = numbers()
    means[0] += 100
    mixture, n = exact.gaussian_mixture(weights, means, covs), 40000
    x = np.asarray(mixture.sample(jax.random.key(0), n))
    far = x[:, 0] > 50
    assert abs(far.mean() - weights[0]) < 4 * np.sqrt(weights[0] * (1 - weights[0]) / n)
    assert_moments(x, mixture.mean, mixture.cov)
    assert_moments(x[far], means[0], covs[0])
    x = np.asarray(bimodal().sample(jax.random.key(1), 4000))[:, 0]
    bumps = scipy.stats.norm([[-0.7], [0.7]], 0.1)
    assert scipy.stats.kstest(x, lambda v: bumps.cdf(v).mean(0)).pvalue > 0.01


def assert_trees_close(a, b):
    # the same float64 arithmetic in another order
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13), a, b)


@pytest.mark.slow
def test_jit_equals_eager_and_a_batch_of_levels_equals_a_loop(mixture):
    alpha, sigma = (jnp.asarray(v) for v in zip(*LEVELS, strict=True))
    x = states(mixture, level(1.0, 1.0), len(LEVELS))
    at = NoiseLevel(t=alpha, alpha=alpha, sigma=sigma)
    together = eager(mixture, x, at)
    assert_trees_close(ask(mixture, x, at), together)
    for i in range(len(LEVELS)):
        alone = ask(mixture, x[i : i + 1], jax.tree.map(lambda a, i=i: a[i], at))
        assert_trees_close(alone, jax.tree.map(lambda a, i=i: a[i : i + 1], together))


def test_vmap_over_mixtures_equals_a_loop():
    weights, means, covs = numbers()
    mixtures = [exact.gaussian_mixture(weights, k * means, (k + 1) * covs) for k in range(3)]
    x, at = states(mixtures[0], level(0.6, 0.8)), level(0.6, 0.8)
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *mixtures)
    together = jax.vmap(ask, in_axes=(0, None, None))(stacked, x, at)
    apart = jax.tree.map(lambda *a: jnp.stack(a), *[ask(m, x, at) for m in mixtures])
    assert_trees_close(together, apart)


def test_factories_take_traced_numbers():
    x, c = jnp.asarray([[0.3, -1.0]]), np.asarray([0.25, 4.0])
    build = jax.jit(jax.vmap(lambda c: exact.gaussian(jnp.zeros(2), c * jnp.eye(2)).log_prob(x)[0]))
    truth = [scipy.stats.multivariate_normal(np.zeros(2), v * np.eye(2)).logpdf(x) for v in c]
    np.testing.assert_allclose(build(jnp.asarray(c)), truth, rtol=1e-12)


@jax.jit
def summary(x, alpha, sigma, weights, means, halves):
    """One number that every answer and every argument moves."""
    mixture = exact.GaussianMixture(weights, means, halves + jnp.swapaxes(halves, 1, 2))
    answers = eager(mixture, x, NoiseLevel(alpha, alpha, sigma))
    return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(answers))


slopes = jax.jit(jax.grad(summary, argnums=range(6)))


@pytest.mark.parametrize(("alpha", "sigma"), LEVELS)
def test_gradients_are_finite_and_equal_differences(mixture, alpha, sigma):
    # Equal eigenvalues and a scale of zero are where a careless gradient is nan.
    halves = mixture.covs.at[0].set(0.3 * jnp.eye(3)) / 2
    x, scales = states(mixture, level(alpha, sigma)), (jnp.asarray(alpha), jnp.asarray(sigma))
    arguments = x, *scales, mixture.weights, mixture.means, halves
    battery.assert_gradients(summary, slopes, arguments)


def test_float32_keeps_its_digits_close_to_the_data(mixture):
    narrow = jax.tree.map(lambda a: a.astype(jnp.float32), mixture)
    for alpha, sigma in [(1.0, 1e-6), (1.0, 1e-2), (0.6, 0.8), (1e-4, 1.0), (1.0, 80.0)]:
        at = level(alpha, sigma)
        x = states(mixture, at)
        near = ask(narrow, *jax.tree.map(lambda a: a.astype(jnp.float32), (x, at))).denoised
        truth = ask(mixture, x, at).denoised
        assert near.x0.dtype == near.eps.dtype == jnp.float32
        # a rounding of 6e-8 times condition numbers below 1e2
        np.testing.assert_allclose(near.x0, truth.x0, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(near.eps, truth.eps, rtol=1e-5, atol=1e-5)


def test_an_answer_has_the_wider_dtype(mixture):
    for x in (jnp.ones((5, 3), jnp.bfloat16), jnp.ones((5, 3))):
        answers = jax.eval_shape(eager, mixture, x, CLEAN)
        assert {leaf.dtype for leaf in jax.tree.leaves(answers)} == {jnp.dtype(jnp.float64)}
    narrow = jax.tree.map(lambda a: a.astype(jnp.float32), mixture)
    answers = jax.eval_shape(eager, narrow, jnp.ones((5, 3), jnp.bfloat16), CLEAN)
    assert {leaf.dtype for leaf in jax.tree.leaves(answers)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize(
    ("weights", "means", "covs", "message"),
    [
        ([0.5, 0.6], np.zeros((2, 1)), np.ones((2, 1, 1)), r"weights must sum to 1, got 1\.1"),
        ([1.5, -0.5], np.zeros((2, 1)), np.ones((2, 1, 1)), "weights must be positive"),
        ([np.nan, 1], np.zeros((2, 1)), np.ones((2, 1, 1)), "weights must be positive"),
        ([1.0], np.zeros((2, 1)), np.ones((2, 1, 1)), r"weights must be \[2\]"),
        ([0.5, 0.5], np.zeros(2), np.ones((2, 1, 1)), r"means must be \[M, D\]"),
        ([0.5, 0.5], np.full((2, 1), np.inf), np.ones((2, 1, 1)), "means must be finite"),
        ([0.5, 0.5], np.zeros((2, 2)), np.ones((2, 2)), r"covs must be \[M, D, D\]"),
        ([0.5, 0.5], np.zeros((2, 2)), np.ones((2, 1, 1)), r"covs must be \[2, 2, 2\]"),
        ([1.0], np.zeros((1, 2)), [[[1, 2], [2, 1]]], r"covs\[0\] must be positive definite"),
        ([1.0], np.zeros((1, 2)), [[[1, 0.5], [0, 1]]], r"covs\[0\] must be symmetric"),
        ([1.0], np.zeros((1, 1)), [[[np.nan]]], r"covs\[0\] must be finite"),
        ([], np.zeros((0, 1)), np.zeros((0, 1, 1)), "not empty"),
    ],
)
def test_factories_say_what_is_wrong(weights, means, covs, message):
    with pytest.raises(ValueError, match=message):
        exact.gaussian_mixture(weights, means, covs)


def test_gaussian_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"mean must be \[D\]"):
        exact.gaussian(0.0, [[1.0]])
    with pytest.raises(ValueError, match=r"cov must be \[2, 2\] as mean is"):
        exact.gaussian([0.0, 0.0], [[1.0]])


def test_states_and_levels_of_the_wrong_shape_are_refused(mixture):
    with pytest.raises(ValueError, match=r"x_t must be \[B, 3\], got shape \(2, 1, 3\)"):
        mixture.denoise(jnp.zeros((2, 1, 3)), CLEAN)
    with pytest.raises(ValueError, match=r"x_t must be \[B, 3\], got shape \(2, 1\)"):
        mixture.score(jnp.zeros((2, 1)), CLEAN)
    with pytest.raises(ValueError, match=r"level.sigma must be \[\] or \[2\], got shape \(3,\)"):
        mixture.log_prob(jnp.zeros((2, 3)), NoiseLevel(0.0, 1.0, jnp.ones(3)))
