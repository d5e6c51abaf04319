"""Truth: conditioning of joint Gaussians in 60 digits; the closed form of what DPS samples.

On Gaussian data every model here is affine in x_t, so a sampler is an affine map of x_T: the unit
vectors give its mean and covariance without a random draw.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import dawsn

from jaxdiff import grids, guidance, sample, samplers, schedules
from jaxdiff.exact import gaussian
from jaxdiff.guidance import measurement
from jaxdiff.typing import Denoised, NoiseLevel
from tests.dense import conditional
from tests.guidance import mixture

pytestmark = pytest.mark.usefixtures("x64", "strict")

DIM, SEEN, STD = 3, 2, 0.3
MEAN = np.array([0.5, -0.3, 0.2])
COV = np.array([[1.0, 0.6, -0.2], [0.6, 0.8, 0.1], [-0.2, 0.1, 0.4]])
A = np.array([[1.0, 0.5, 0.0], [-0.3, 0.2, 1.0]])
Y = np.array([0.7, -0.4])
LEVELS = {
    "vp": (schedules.linear_vp(), (0.01, 0.3, 1.0)),
    "edm": (schedules.edm(), (0.002, 1.0, 80.0)),
    "rectified": (schedules.rectified(), (0.1, 0.9, 0.99)),
}


def posterior_mean(x, alpha, sigma, *, mean, cov, std):
    """E[x_0 | x_t, y] of one x_t, from the joint law of x_0 and both noises."""
    sizes = (DIM, DIM, SEEN)
    joint = np.zeros((sum(sizes),) * 2)
    joint[:DIM, :DIM] = cov
    joint[DIM:, DIM:] = np.diag(np.repeat([1.0, std**2], sizes[1:]))
    noised = np.concatenate([alpha * np.eye(DIM), sigma * np.eye(DIM), np.zeros((DIM, SEEN))], 1)
    seen = np.concatenate([A, np.zeros((SEEN, DIM)), np.eye(SEEN)], axis=1)
    wanted = np.eye(DIM, sum(sizes))
    start = np.concatenate([mean, np.zeros(DIM + SEEN)])
    both = np.concatenate([noised, seen]), np.concatenate([x, Y])
    return conditional(start, joint, *both, wanted)[0]


def measured(method, batch, *arguments, mean=MEAN, cov=COV, **options):
    y = jnp.tile(jnp.asarray(Y)[None], (batch, 1))
    return method(gaussian(mean, cov), y, measurement.matrix(A), *arguments, **options)


def ask(denoise, x, level):
    return jax.jit(lambda d, x, at: d(x, at))(denoise, x, level)


@pytest.mark.parametrize("std", [STD, 0.0])
def test_mmps_is_exact_on_gaussian_data(std):
    """At every level, with as many iterations as y has numbers; the measurement exact or not."""
    x = np.random.default_rng(0).normal(size=(9, DIM))
    parts = [schedule(jnp.asarray(times)) for schedule, times in LEVELS.values()]
    level = jax.tree.map(lambda *a: jnp.concatenate(a), *parts)
    x = x * np.hypot(level.alpha, level.sigma)[:, None]
    d = ask(measured(guidance.mmps, 9, std, iterations=SEEN), jnp.asarray(x), level)
    for i in range(9):
        at = float(level.alpha[i]), float(level.sigma[i])
        wanted = posterior_mean(x[i], *at, mean=MEAN, cov=COV, std=std)
        # At sigma = .002 the system is a difference of nearly equal things, to 1e-5 of itself.
        np.testing.assert_allclose(d.x0[i], wanted, rtol=1e-8, atol=1e-9)
    joined = level.alpha[:, None] * d.x0 + level.sigma[:, None] * d.eps
    np.testing.assert_allclose(joined, x, atol=1e-12)


def test_pigdm_is_exact_on_white_data():
    """Whatever the measurement; on other data it is not, which the bound says."""
    level, white = schedules.linear_vp()(jnp.asarray([0.05, 0.3, 0.8])), 0.49 * np.eye(DIM)
    x = np.random.default_rng(0).normal(size=(3, DIM))
    options = {"data_std": 0.7, "iterations": SEEN}
    for cov, exact in ((white, True), (COV, False)):
        d = ask(measured(guidance.pigdm, 3, STD, cov=cov, **options), jnp.asarray(x), level)
        at = zip(x, level.alpha, level.sigma, strict=True)
        wanted = [posterior_mean(*args, mean=MEAN, cov=cov, std=STD) for args in at]
        if exact:
            np.testing.assert_allclose(d.x0, wanted, rtol=1e-10, atol=1e-10)
        else:
            assert np.abs(d.x0 - np.stack(wanted)).max() > 0.1


def test_mmps_with_fewer_iterations_approaches():
    """Exact from the second on, as y has two numbers."""
    level = schedules.linear_vp()(jnp.asarray(0.3))
    x = np.random.default_rng(0).normal(size=(1, DIM))
    at = float(level.alpha), float(level.sigma)
    wanted = posterior_mean(x[0], *at, mean=MEAN, cov=COV, std=STD)[None]
    error = [
        np.abs(
            ask(measured(guidance.mmps, 1, STD, iterations=n), jnp.asarray(x), level).x0 - wanted
        )
        for n in (1, 4)
    ]
    assert error[0].max() > 1e-3
    assert error[1].max() < 1e-12  # resting, not dividing rounding by rounding


def test_a_derivative_that_is_no_covariance_is_solved_by_least_residuals():
    """x0 = x B with B neither symmetric nor positive, as a network's is; by numpy's solve.

    One iteration leaves the least residual on the line of b: b - M b <b, M b> / |M b|^2.
    """
    b = np.array([[0.9, 0.8, -0.1], [-0.7, -0.2, 0.3], [0.4, 0.5, -0.6]])
    level = NoiseLevel(*(jnp.asarray(a) for a in (0.5, 0.6, 0.8)))
    x, y = np.random.default_rng(0).normal(size=(4, DIM)), jnp.tile(jnp.asarray(Y)[None], (4, 1))

    def denoise(x, level):
        x0 = x @ jnp.asarray(b)
        return Denoised(x0, (x - level.alpha * x0) / level.sigma)

    system = 0.64 / 0.6 * A @ b @ A.T + STD**2 * np.eye(SEEN)
    assert np.linalg.eigvalsh(system + system.T).min() < 0
    residual = Y[None] - x @ b @ A.T
    image = residual @ system.T
    line = (residual * image).sum(1, keepdims=True) / (image**2).sum(1, keepdims=True)
    for n, weighed in ((1, line * residual), (2, np.linalg.solve(system, residual.T).T)):
        guided = guidance.mmps(denoise, y, measurement.matrix(A), STD, iterations=n)
        wanted = x @ b + 0.64 / 0.6 * weighed @ A @ b.T
        np.testing.assert_allclose(ask(guided, jnp.asarray(x), level).x0, wanted, rtol=1e-9)


def moments(denoise, grid, dim):
    """Mean and covariance of what DPM-Solver++(3M) samples, from the images of unit vectors."""
    x_T = jnp.concatenate([jnp.zeros((1, dim)), jnp.eye(dim)])
    out = sample(None, denoise, grid, x_T.shape, sampler=samplers.dpmpp_3m(), x_T=x_T)
    factor = (out[1:] - out[:1]).T * grid.prior_std
    return np.asarray(out[0]), np.asarray(factor @ factor.T)


def test_mmps_samples_the_exact_posterior():
    """Mean and covariance, against Kalman's gain.

    100 steps of a third-order solver leave some 1e-3, 3e-4 of it for starting at alpha = .0066.
    """
    gain = COV @ A.T @ np.linalg.inv(A @ COV @ A.T + STD**2 * np.eye(SEEN))
    denoise = measured(guidance.mmps, DIM + 1, STD, iterations=SEEN)
    grid = grids.uniform_log_snr(schedules.linear_vp(), 100)
    mean, cov = moments(denoise, grid, DIM)
    np.testing.assert_allclose(mean, MEAN + gain @ (Y - A @ MEAN), atol=2e-3)
    np.testing.assert_allclose(cov, COV - gain @ A @ COV, atol=2e-3)


def test_the_bias_of_dps_is_known_on_white_data():
    """x_0 ~ N(0, 1), y = x_0 + std noise: the probability flow in alpha has a closed form.

    There x0 = alpha x, so that dx / d alpha = (y - alpha x) / std^2, and from alpha = a on

        x(1) = exp(-(1 - a^2) / (2 std^2)) x_T + (y / std^2) int_a^1 exp(-(1 - u^2) / (2 std^2)) du

    with the integral by Dawson's function F. It overshoots y, and its spread is far too small.
    """
    std, y = 0.5, 1.0
    root = np.sqrt(2) * std
    schedule = schedules.linear_vp()
    grid = grids.uniform_log_snr(schedule, 100)
    a = float(grid.levels.alpha[0])
    shrink = np.exp(-(1 - a**2) / (2 * std**2))
    wanted = y / std**2 * root * (dawsn(1 / root) - shrink * dawsn(a / root))
    denoise = guidance.dps(gaussian([0.0], [[1.0]]), jnp.full((2, 1), y), lambda x: x, std)
    mean, cov = moments(denoise, grid, 1)
    # the third-order solver's own error, as above
    np.testing.assert_allclose(mean, wanted, atol=2e-3)
    np.testing.assert_allclose(cov, shrink**2, atol=2e-3)
    assert mean[0] > 1.25 * y  # the posterior's is .8 y
    assert cov[0, 0] < 0.1 * std**2 / (1 + std**2)


def bent(x):
    return jnp.sin(2 * x[:, :2]) + x[:, 1:] ** 2


def smooth(x, level):
    """A model that is no Gaussian's."""
    x0 = jnp.tanh(x @ jnp.asarray(COV)) * level.alpha
    return Denoised(x0, (x - level.alpha * x0) / level.sigma)


@pytest.mark.parametrize("normalised", [False, True])
def test_dps_adds_the_gradient_of_its_likelihood(normalised):
    """Of a measurement that is not linear, by central differences of step 1e-6 (error 1e-9)."""
    level = NoiseLevel(*(jnp.asarray(a) for a in (0.5, 0.6, 0.8)))
    x, h = np.random.default_rng(0).normal(size=(1, DIM)), 1e-6

    def log_likelihood(x):
        size = np.linalg.norm(Y[None] - bent(smooth(jnp.asarray(x), level).x0))
        return -size if normalised else -(size**2) / (2 * STD**2)

    y = jnp.asarray(Y)[None]
    if normalised:
        guided = guidance.dps_normalised(smooth, y, bent, zeta=1.5)
    else:
        guided = guidance.dps(smooth, y, bent, STD, scale=1.5)
    shift = guided(jnp.asarray(x), level).eps - smooth(jnp.asarray(x), level).eps
    steps = h * np.eye(DIM)[:, None]
    slopes = [(log_likelihood(x + d) - log_likelihood(x - d)) / (2 * h) for d in steps]
    np.testing.assert_allclose(shift[0] / -0.8, 1.5 * np.array(slopes), rtol=1e-6)


def test_an_affine_measurement_is_linearised_exactly():
    """mmps of A x + c given y + c is that of A x given y."""
    level, x = schedules.linear_vp()(jnp.asarray(0.3)), jnp.ones((1, DIM))
    shift = jnp.asarray([[3.0, -2.0]])
    moved = lambda x: measurement.matrix(A)(x) + shift  # noqa: E731
    y = jnp.asarray(Y)[None]

    @jax.jit
    def ask_both(x, level):
        plain = measured(guidance.mmps, 1, STD, iterations=2)
        other = guidance.mmps(gaussian(MEAN, COV), y + shift, moved, STD, iterations=2)
        return plain(x, level), other(x, level)

    plain, other = ask_both(x, level)
    np.testing.assert_allclose(other.x0, plain.x0, rtol=1e-10)


def test_guidance_of_both_kinds_stacks():
    """A measurement given in two independent parts, one around the other, is the whole.

    Inner `mmps` is the exact model given its part, so that outer `mmps` conditions further.
    """
    level, x = schedules.linear_vp()(jnp.asarray(0.3)), jnp.asarray([[0.4, -1.0, 0.3]])
    inner = guidance.mmps(
        gaussian(MEAN, COV), jnp.asarray([[Y[0]]]), measurement.matrix(A[:1]), STD, iterations=1
    )
    outer = guidance.mmps(
        inner, jnp.asarray([[Y[1]]]), measurement.matrix(A[1:]), STD, iterations=1
    )
    wanted = posterior_mean(
        x[0], float(level.alpha), float(level.sigma), mean=MEAN, cov=COV, std=STD
    )
    np.testing.assert_allclose(ask(outer, x, level).x0[0], wanted, rtol=1e-9)


@pytest.mark.parametrize(
    "method",
    [pytest.param(guidance.mmps, marks=pytest.mark.slow), guidance.dps_normalised],
)
def test_an_image_given_as_y_counts_where_it_is_seen_alone(method):
    """Whatever stands at unseen pixels, NaN included, is not part of the measurement."""
    keep, level = jnp.array([1, 0]), schedules.linear_vp()(jnp.asarray(0.3))
    more = {"zeta": 0.5} if method is guidance.dps_normalised else {"std": 0.1}
    found = [
        method(mixture.whole().denoise, jnp.array([[0.4, unseen]]), measurement.mask(keep), **more)(
            jnp.ones((1, 2)), level
        ).x0
        for unseen in (0.0, 7.0, jnp.nan)
    ]
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])
