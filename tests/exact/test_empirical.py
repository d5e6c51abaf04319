"""Truth: the sums over the set in numpy, a mixture of points, tanh for two points, quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

from jaxdiff import arrays, exact, grids, losses, samplers, schedules
from jaxdiff.denoiser import as_denoiser
from jaxdiff.typing import Denoised, NoiseLevel
from tests import battery

pytestmark = pytest.mark.usefixtures("strict")

SHAPE = (2, 3)  # of an example
POINTS = np.random.default_rng(0).normal(size=(11, *SHAPE)).astype(np.float32)
STATES = np.random.default_rng(1).normal(size=(4, *SHAPE)).astype(np.float32)


def level(alpha, sigma):
    return NoiseLevel(*(jnp.asarray(a, float) for a in (0.0, alpha, sigma)))


def by_hand(x_t, alpha, sigma, points):
    """x0, eps, score and log p_t, in float64 without blocks."""
    x_t, points = np.asarray(x_t, float), np.asarray(points, float)
    squared = ((x_t[:, None] - alpha * points[None]) ** 2).reshape(len(x_t), len(points), -1)
    logs = -squared.sum(-1) / (2 * sigma**2)
    x0 = np.einsum("bn,n...->b...", scipy.special.softmax(logs, axis=1), points)
    norm = np.log(len(points)) + squared.shape[-1] / 2 * np.log(2 * np.pi * sigma**2)
    eps = (x_t - alpha * x0) / sigma
    return x0, eps, -eps / sigma, scipy.special.logsumexp(logs, axis=1) - norm


@jax.jit
def ask(model, x_t, at):
    d = model(x_t, at)
    return d.x0, d.eps, model.score(x_t, at), model.log_prob(x_t, at)


@pytest.mark.parametrize("block", [1, 4, 100])
def test_blocks_sum_to_the_softmax_of_the_whole_set(block):
    model = exact.empirical(POINTS, block=block)
    for alpha, sigma in ((1.0, 0.3), (0.6, 0.8), (0.01, 1.0), (1.0, 50.0)):
        ours = ask(model, jnp.asarray(STATES), level(alpha, sigma))
        wanted = by_hand(STATES, alpha, sigma, POINTS)
        for a, b in zip(ours, wanted, strict=True):
            assert a.dtype == jnp.float32
            # exponents of up to some 50 in float32
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5 * np.abs(b).max())


def test_each_example_may_have_its_own_level():
    model = exact.empirical(POINTS, block=4)
    alpha, sigma = np.asarray([1.0, 0.9, 0.5, 0.0]), np.asarray([0.5, 0.4, 0.8, 1.0])
    together = ask(model, jnp.asarray(STATES), level(alpha, sigma))
    for i in range(4):
        alone = by_hand(STATES[i : i + 1], alpha[i], sigma[i], POINTS)
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_allclose(a[i], b[0], rtol=1e-4, atol=1e-5)
    mean = POINTS.mean(axis=0)  # alpha = 0: every example is as likely
    np.testing.assert_allclose(together[0][3], mean, atol=1e-6)


def test_both_ends_are_finite():
    model = exact.empirical(POINTS, block=4)
    x0, eps, *_ = ask(model, jnp.asarray(STATES), level(1.0, 0.0))
    squared = ((STATES[:, None] - POINTS[None]) ** 2).sum((2, 3))
    np.testing.assert_array_equal(x0, POINTS[squared.argmin(axis=1)])
    np.testing.assert_array_equal(eps, 0)
    twice = exact.empirical(np.stack([POINTS[0], POINTS[1], POINTS[0]]), block=2)
    shared = ask(twice, jnp.asarray(POINTS[:1]), level(1.0, 0.0))[0]
    np.testing.assert_array_equal(shared, POINTS[:1])  # equals share, nothing is counted twice
    total = lambda sigma: jnp.sum(model(jnp.asarray(STATES), level(1.0, sigma)).x0)  # noqa: E731
    assert float(jax.jit(jax.grad(total))(0.0)) == 0  # the nearest stays the nearest


def test_near_neighbours_far_from_the_origin_keep_their_distances():
    # |x|**2 = 1e6: a product form would lose the distances of .01 in float32 altogether
    points = np.asarray([[1000.0], [1000.25]], np.float32)
    x = np.asarray([[1000.125 + 1 / 64]], np.float32)
    x0 = ask(exact.empirical(points), jnp.asarray(x), level(1.0, 0.0625))[0]
    wanted = 1000.125 + 0.125 * np.tanh(0.125 / 64 / 0.0625**2)
    assert float(x0[0, 0]) == pytest.approx(wanted, abs=1e-4)  # the spacing of floats there: 6e-5


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_it_is_a_mixture_of_points():
    points, x = POINTS.reshape(11, 6).astype(float), jnp.asarray(STATES.reshape(4, 6), float)
    narrow = exact.gaussian_mixture(
        np.full(11, 1 / 11), points, np.full((11, 1, 1), 1e-12) * np.eye(6)
    )
    at = level(0.7, 0.6)
    model = exact.empirical(points, block=4)
    for ours, theirs in (
        (model(x, at), narrow(x, at)),
        (model.score(x, at), narrow.score(x, at)),
        (model.log_prob(x, at), narrow.log_prob(x, at)),
    ):
        # variances of 1e-12 beside .36
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), ours, theirs)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_gradients_equal_differences():
    @jax.jit
    def total(x, alpha, sigma, points):
        model, at = exact.Empirical(points, 4), level(alpha, sigma)
        return jnp.sum(jnp.sin(model(x, at).x0)) + jnp.sum(jnp.sin(model.log_prob(x, at)))

    arguments = [jnp.asarray(a, float) for a in (STATES, 0.6, 0.5, POINTS)]
    battery.assert_gradients(total, jax.jit(jax.grad(total, (0, 1, 2, 3))), arguments)


@pytest.mark.slow
def test_samples_are_examples_of_the_set(key):
    schedule = schedules.linear_vp()
    points = POINTS.reshape(11, 6)
    model, grid = exact.empirical(points, block=4), grids.uniform_log_snr(schedule, 30)
    x = np.asarray(samplers.sample(key, model, grid, (32, 6), sampler=samplers.ddim()))
    near = np.abs(x[:, None] - points[None]).max(axis=2)
    assert near.min(axis=1).max() < 1e-3
    assert len(np.unique(near.argmin(axis=1))) > 5  # and not the same of them always


# -- the least loss


def two_points_error(alpha, sigma):
    """E (eps - E[eps | x_t])**2 of x_0 = -1 or 1: SNR E[1 - tanh(x_t alpha / sigma**2)**2]."""
    law = scipy.stats.norm(alpha, sigma)
    half = scipy.special.expit  # 1 - tanh(y)**2 = 4 half(2 y) half(-2 y)
    y = lambda x: 2 * x * alpha / sigma**2  # noqa: E731
    spread = lambda x: 4 * law.pdf(x) * half(y(x)) * half(-y(x))  # noqa: E731
    ends = alpha - 9 * sigma, alpha + 9 * sigma
    return (alpha / sigma) ** 2 * scipy.integrate.quad(spread, *ends, limit=200)[0]


SIMPLE = arrays.as_pytree(losses.simple)


@jax.jit
def loss_of(key, model, x0, weight=SIMPLE):
    given = key, as_denoiser(model), x0, schedules.linear_vp()
    return losses.denoising(*given, times=losses.stratified, weight=weight)[1]["per_example"]


@pytest.mark.slow
def test_the_loss_of_one_point_is_zero_and_of_two_an_integral(key):
    n = 20000
    one = np.full((1, 1), 0.3, np.float32)
    nothing = loss_of(key, exact.empirical(one), jnp.full((n, 1), 0.3, jnp.float32))
    # eps is known: what is left is float32 rounding over the least sigma, .01
    assert float(jnp.max(nothing)) < 1e-8
    two = np.asarray([[-1.0], [1.0]], np.float32)
    x0 = jnp.asarray(np.tile(two, (n // 2, 1)))
    losses_of_two = np.asarray(loss_of(key, exact.empirical(two), x0))

    def at(t):
        integral = 0.1 * t + 9.95 * t**2
        return two_points_error(np.exp(-integral / 2), np.sqrt(-np.expm1(-integral)))

    truth = scipy.integrate.quad(at, 1e-3, 1, limit=100, epsabs=1e-6)[0] / 0.999
    assert abs(losses_of_two.mean() - truth) < 4 * losses_of_two.std() / np.sqrt(n)
    assert truth > 0.01


@pytest.mark.slow
def test_no_model_is_below_it_on_the_set(key):
    points = np.tanh(np.random.default_rng(3).normal(size=(40, 8, 8, 1)) * 2).astype(np.float32)
    x0 = jnp.asarray(np.tile(points, (25, 1, 1, 1)))
    best = exact.empirical(points, block=16)

    def perturbed(x_t, at):
        d = best(x_t, at)
        return Denoised(d.x0, d.eps + 0.1 * jnp.sin(3 * x_t))

    others = {
        "perturbed": arrays.as_pytree(perturbed),
        "half of the set": exact.empirical(points[:20], block=16),
    }
    # simple weights let the rare cleanest times decide, whose gap is 1 / sigma**2 as large
    weight = losses.min_snr(1.0)
    least = np.asarray(loss_of(key, best, x0, weight))
    for name, model in others.items():
        gap = np.asarray(loss_of(key, model, x0, weight)) - least
        assert gap.mean() > 4 * gap.std() / np.sqrt(len(gap)), name


def test_a_batch_of_none_gives_none():
    model, none, at = exact.empirical(POINTS), STATES[:0], level(0.6, 0.8)
    assert model(none, at).x0.shape == model.score(none, at).shape == none.shape
    assert model.log_prob(none, at).shape == (0,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: exact.empirical(np.zeros((3, 2), np.uint8)), "x must be float32"),
        (lambda: exact.empirical(np.zeros((0, 2), np.float32)), r"got \[0, 2\]"),
        (lambda: exact.empirical(np.zeros(3, np.float32)), r"\[N, ...\]"),
        (lambda: exact.empirical(np.full((3, 2), np.nan, np.float32)), "finite"),
        (lambda: exact.empirical(POINTS, block=0), "block"),
        (lambda: exact.empirical(POINTS, block=np.nan), "block must be .* got nan"),
        (lambda: exact.empirical(POINTS).score(STATES, level(1.0, 0.0)), "level.sigma .* got 0"),
        (lambda: exact.empirical(POINTS).log_prob(STATES, level(1.0, 0.0)), "level.sigma"),
        (lambda: exact.empirical(POINTS)(jnp.ones((4, 6)), level(1.0, 1.0)), r"\[B, 2, 3\]"),
        (lambda: exact.empirical(POINTS)(STATES, level(np.ones(3), 1.0)), "level.alpha"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
