"""Truth: dense conditioning in 60 digits, exact denoisers, the published table of variances."""

import decimal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import exact, gaussian, parametrization, reverse
from jaxdiff.reverse import large, small
from jaxdiff.typing import Denoised, NoiseLevel
from tests import battery, dense

pytestmark = pytest.mark.usefixtures("strict", "x64")

MEAN, COV = np.asarray([0.3, -0.2]), np.asarray([[0.5, 0.2], [0.2, 0.3]])
# float64: some ten roundings, divided by the smallest 1 - r of the pairs, about .01
RTOL = 1e-12


p_reverse = jax.jit(reverse.p_reverse)
denoise = jax.jit(exact.GaussianMixture.denoise)
posterior_cov = jax.jit(lambda source, x, level: source.posterior(x, level).cov)


def data():
    return exact.gaussian(MEAN, COV)


def implicit(alpha_t, sigma_t, alpha_s, sigma_s, eta):
    """x_0, x_s, x_t as maps of (x_0, eps, e), for the non-Markovian family of DDIM, eq. 7."""
    a_t, sd_t, a_s, sd_s, eta = dense.decimals([alpha_t, sigma_t, alpha_s, sigma_s, eta])
    zero, one = dense.decimals([0, 1])
    with decimal.localcontext(prec=60):
        fresh = eta * sd_s * dense.root(1 - (a_t * sd_s / (a_s * sd_t)) ** 2)
        kept = dense.root(sd_s**2 - fresh**2)
        return tuple(
            np.asarray([row]) for row in ([one, zero, zero], [a_s, kept, fresh], [a_t, sd_t, zero])
        )


def conditioned(t, s, x_t, eta):
    """E[x_s | x_t], Cov[x_s | x_t] and Var[x_s | x_t, x_0] of 2-D data, for each pair.

    At eta = 1 from the Markov chain itself, else from the implicit family.
    """
    mean, cov = np.concatenate([MEAN, np.zeros(4)]), np.eye(6)
    cov[:2, :2] = COV
    rows = []
    for i, numbers in enumerate(zip(t.alpha, t.sigma, s.alpha, s.sigma, strict=True)):
        maps = dense.markov(*numbers) if eta == 1 else implicit(*numbers, eta)
        x_0, x_s, to_t = (np.kron(row, np.eye(2, dtype=int).astype(object)) for row in maps)
        first, second = dense.conditional(mean, cov, to_t, x_t[i], x_s)
        seen, value = np.concatenate([to_t, x_0]), [*x_t[i], 0.0, 0.0]
        known = dense.conditional(mean, cov, seen, value, x_s)[1]
        rows.append((first, second, known[0, 0]))
    return (np.asarray(a) for a in zip(*rows, strict=True))


@battery.each_schedule
@pytest.mark.parametrize("eta", [0.0, pytest.param(0.5, marks=pytest.mark.slow), 1.0])
def test_step_with_the_exact_denoiser_is_dense_conditioning(schedule, eta):
    t, s = battery.pairs(schedule)
    x_t = states(t)
    denoised = denoise(data(), x_t, t)
    ours = p_reverse(denoised, x_t, t=t, s=s, eta=eta)
    mean, cov, known = conditioned(t, s, np.asarray(x_t), eta)
    scale = np.abs(s.alpha[:, None] * denoised.x0) + np.abs(s.sigma[:, None] * denoised.eps)
    assert (np.abs(ours.mean - mean) <= RTOL * scale).all()  # the two terms may cancel
    # at eta = 0 sixty digits leave 1e-60 of nothing
    np.testing.assert_allclose(ours.var[:, 0], known, rtol=RTOL, atol=1e-50)
    # the whole of equation (4): l^2 + c^2 Cov[x_0 | x_t], where c cancels as s nears t
    c = s.alpha - t.alpha / t.sigma * np.sqrt(np.maximum(s.sigma**2 - known, 0))
    spread = c[:, None, None] ** 2 * posterior_cov(data(), x_t, t)
    whole = known[:, None, None] * np.eye(2) + spread
    np.testing.assert_allclose(whole, cov, rtol=1e-9, atol=1e-12)


def states(t):
    """x_t of typical size, [P, 2]."""
    key = jax.random.key(2)
    noise = jax.random.normal(key, (len(t.t), 2))
    return t.alpha[:, None] * jnp.asarray(MEAN)[None] + jnp.hypot(t.alpha, t.sigma)[:, None] * noise


@battery.each_schedule
def test_eta_one_is_the_posterior_with_x0_in_place(schedule):
    t, s = battery.pairs(schedule)
    x0, x_t = jnp.full((len(t.t), 2), 0.4), jnp.full((len(t.t), 2), 1.1)
    eps = (x_t - t.alpha[:, None] * x0) / t.sigma[:, None]
    ours, truth = (
        p_reverse(Denoised(x0, eps), x_t, t=t, s=s),
        gaussian.q_posterior(x0, x_t, t=t, s=s),
    )
    # x_t enters by way of eps, where alpha x_0 was subtracted
    scale = np.abs(s.alpha[:, None] * x0) + np.abs(s.sigma[:, None] * eps)
    assert (np.abs(ours.mean - truth.mean) <= RTOL * scale).all()
    np.testing.assert_allclose(ours.var, truth.var, rtol=RTOL)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("variance", [small(), large()])
def test_a_clean_target_is_x0_itself(eta, variance):
    schedule = battery.SCHEDULES["linear_vp"]
    t, s = (schedule(jnp.asarray(v)) for v in ([0.001, 0.5, 1.0], [0.0] * 3))
    denoised = denoise(data(), states(t), t)
    ours = p_reverse(denoised, states(t), t=t, s=s, eta=eta, variance=variance)
    np.testing.assert_array_equal(ours.mean, denoised.x0)
    truth = 0 if isinstance(variance, type(small())) else eta**2 * t.sigma[:, None] ** 2
    np.testing.assert_allclose(ours.var, np.broadcast_to(truth, ours.var.shape), rtol=1e-14)


ZERO_SNR = ["cosine", "rectified", "shifted_rectified", "betas_zero_snr"]


@pytest.mark.parametrize("name", ["v", "x0", "flow", "edm"])
@pytest.mark.parametrize("schedule", ZERO_SNR)
@pytest.mark.parametrize("eta", [pytest.param(0.0, marks=pytest.mark.slow), 0.5, 1.0])
def test_networks_start_from_zero_terminal_snr(name, schedule, eta):
    schedule, network = battery.SCHEDULES[schedule], parametrization.resolve(name)
    high = float(schedule.t_max)
    t, s = (
        schedule(jnp.asarray([high] * 3) * jnp.asarray(f)) for f in ([1.0] * 3, [0.9, 0.5, 0.01])
    )
    assert not t.alpha.any()
    x_t = states(t)
    truth = denoise(data(), x_t, t)
    y = parametrization.target(network, truth.x0, truth.eps, t)
    denoised = parametrization.to_denoised(network, y, x_t, t)
    ours = p_reverse(denoised, x_t, t=t, s=s, eta=eta)
    mean, _, known = conditioned(t, s, np.asarray(x_t), eta)
    np.testing.assert_allclose(ours.mean, mean, rtol=RTOL, atol=RTOL)
    np.testing.assert_allclose(ours.var[:, 0], known, rtol=RTOL, atol=1e-50)


def ho(steps):
    return battery.SCHEDULES["betas_linear"](jnp.asarray(steps, float))


@pytest.mark.parametrize(
    ("s", "t", "beta_tilde", "beta", "optimal"),
    [
        (1, 2, 5.4532e-5, 1.1992e-4, 1.198768e-4),
        (1, 112, 9.9931e-5, 0.126308, 0.0916088),
        (445, 556, 0.611305, 0.674481, 0.627628),
        (889, 1000, 0.879528, 0.879788, 0.879593),
    ],
)
def test_variances_of_the_published_pairs(s, t, beta_tilde, beta, optimal):
    # linear betas, N = 1000, data N(0, .25); printed to five or six digits
    t, s = ho([t]), ho([s])
    source, x = exact.gaussian([0.0], [[0.25]]), jnp.ones((1, 1))
    denoised = denoise(source, x, t)
    var = {v: p_reverse(denoised, x, t=t, s=s, variance=v()).var.item() for v in (small, large)}
    assert var[small] == pytest.approx(beta_tilde, rel=1e-5)
    assert var[large] == pytest.approx(beta, rel=5e-5)
    c = s.alpha * gaussian.snr_drop(t, s)
    whole = var[small] + float(c[0] ** 2 * posterior_cov(source, x, t)[0, 0, 0])
    assert whole == pytest.approx(optimal, rel=1e-5)


@jax.jit
def unit_steps(source, times, eta, variance):
    """The reverse steps from x_t = 1: the mean of linear steps is their slope."""
    x, t, s = jnp.ones((len(times) - 1, 1)), ho(times[:-1]), ho(times[1:])
    return p_reverse(denoise(source, x, t), x, t=t, s=s, eta=eta, variance=variance)


def variance_after(num_steps, c, eta, variance):
    """The variance of samples of N(0, c), by the recursion of a linear reverse chain."""
    even = np.round(1 + np.arange(num_steps) * 999 / (num_steps - 1))[::-1]
    times = np.append(even, 0.0)  # Nichol and Dhariwal's spacing, noisiest first
    source = exact.gaussian([0.0], [[c]])
    step = unit_steps(source, times, eta, variance)
    slopes, fresh = np.asarray(step.mean)[:, 0], np.asarray(step.var)[:, 0]
    total = 1.0  # x_N ~ N(0, 1)
    for slope, var in zip(slopes[:-1], fresh[:-1], strict=True):
        total = slope**2 * total + var
    return slopes[-1] ** 2 * total  # the last step is noiseless


@pytest.mark.parametrize(
    ("num_steps", "columns"),
    [
        (5, (0.0440, 0.5584, 0.0507, 0.0497)),
        (10, (0.1042, 0.3585, 0.1308, 0.1261)),
        (20, (0.1505, 0.2985, 0.1853, 0.1784)),
        (50, (0.1964, 0.2679, 0.2227, 0.2172)),
        (100, (0.2190, 0.2587, 0.2360, 0.2324)),
        (1000, (0.2461, 0.2508, 0.2485, 0.2480)),
    ],
)
def test_the_published_table_of_sampled_variances(num_steps, columns):
    kinds = ((1.0, small()), (1.0, large()), (0.0, small()), (0.5, small()))
    for (eta, variance), printed in zip(kinds, columns, strict=True):
        ours = variance_after(num_steps, 0.25, eta, variance)
        assert ours == pytest.approx(printed, abs=5.1e-5)  # four printed digits


def test_the_published_variances_of_unit_data():
    for num_steps in (10, 100):
        assert variance_after(num_steps, 1.0, 1.0, large()) == pytest.approx(0.9999, abs=5.1e-5)
    assert variance_after(10, 1.0, 1.0, small()) == pytest.approx(0.5208, abs=5.1e-5)
    assert variance_after(10, 1.0, 0.0, small()) == pytest.approx(0.6636, abs=5.1e-5)


def test_each_fixed_variance_is_exact_for_its_data():
    # one point: beta-tilde; N(0, I) on a variance-preserving path: beta (Su, article 9152)
    t, s = battery.pairs(battery.SCHEDULES["betas_linear"])
    x = jnp.ones((len(t.t), 1))
    point = exact.gaussian([0.3], [[1e-30]])
    step = p_reverse(denoise(point, x, t), x, t=t, s=s)
    truth = gaussian.q_posterior(0 * x + 0.3, x, t=t, s=s)
    np.testing.assert_allclose(step.mean, truth.mean, rtol=1e-9)
    np.testing.assert_allclose(step.var, truth.var, rtol=RTOL)
    unit = exact.gaussian([0.0], [[1.0]])
    step = p_reverse(denoise(unit, x, t), x, t=t, s=s, variance=large())
    ratio = np.asarray(t.alpha / s.alpha)
    np.testing.assert_allclose(step.mean[:, 0], ratio, rtol=RTOL)
    np.testing.assert_allclose(step.var[:, 0], 1 - ratio**2, rtol=1e-11)


@pytest.mark.parametrize("variance", [small(), large()])
def test_gradient_by_eta_is_finite_and_equals_differences(variance):
    t = ho([1000.0, 500.0, 2.0, 1.0])
    s = ho([500.0, 499.0, 1.0, 0.0])
    x = states(t)
    denoised = denoise(data(), x, t)

    @jax.jit
    def total(eta):
        step = p_reverse(denoised, x, t=t, s=s, eta=eta, variance=variance)
        return jnp.sum(step.mean * 1.3 + jnp.sqrt(step.var + 0.1))

    slopes = jax.jit(jax.grad(total, (0,)))
    for eta in (0.0, 0.2, 0.99, 1.0):
        assert np.isfinite(slopes(eta)[0])
    battery.assert_gradients(total, slopes, (jnp.asarray(0.5),))
    etas = jnp.asarray([0.0, 0.3, 1.0])
    together = jax.vmap(total)(etas)
    np.testing.assert_allclose(together, [total(eta) for eta in etas], rtol=1e-14)


@pytest.mark.parametrize(
    "schedule", ["betas_linear", "betas_cosine", "betas_zero_snr", "linear_vp"]
)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_float32_chains_keep_four_digits(schedule, eta):
    schedule = battery.SCHEDULES[schedule]
    times = np.linspace(float(schedule.t_max), 0, 1001, dtype=np.float32)

    def chain(times):
        levels = schedule(times)
        t, s = (jax.tree.map(lambda a, p=part: a[p], levels) for part in (np.s_[:-1], np.s_[1:]))
        x = jnp.ones((1000, 1), times.dtype)
        # unit x0 and eps: the two coefficients, and no cancellation
        step = p_reverse(Denoised(x, x), x, t=t, s=s, eta=eta)
        return step.mean, jnp.sqrt(step.var)

    both = (chain(jnp.asarray(times, dtype)) for dtype in (jnp.float32, jnp.float64))
    for narrow, wide in zip(*both, strict=True):
        assert narrow.dtype == jnp.float32
        # roundings of 6e-8 over 1 - r, some .005 at the least
        np.testing.assert_allclose(narrow, wide, rtol=1e-4)


def test_levels_may_be_shared_or_one_an_example():
    t, s = NoiseLevel(0.8, 0.6, 0.8), NoiseLevel(0.3, 0.9, 0.4)
    t, s = (jax.tree.map(jnp.asarray, level) for level in (t, s))
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 4, 1))
    one = p_reverse(Denoised(*x), x[0], t=t, s=s, eta=0.7)
    many = jax.tree.map(lambda a: jnp.full(3, a), (t, s))
    each = p_reverse(Denoised(*x), x[0], t=many[0], s=many[1], eta=0.7)
    np.testing.assert_array_equal(one.mean, each.mean)
    np.testing.assert_array_equal(jnp.broadcast_to(one.var, (3, 1, 1, 1)), each.var)
