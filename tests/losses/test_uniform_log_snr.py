"""Truth: the law of log SNR by SciPy, VP's closed log SNR and its slope, products of betas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from jaxdiff import losses, schedules
from jaxdiff.denoiser import make_denoiser
from jaxdiff.losses.times import log_snr_rate

pytestmark = pytest.mark.usefixtures("strict")

N = 4000
BETAS = schedules.linear_betas(100)


draw = jax.jit(losses.uniform_log_snr, static_argnums=1)


def vp_log_snr(t):
    return -np.log(np.expm1(0.1 * t + 9.95 * t**2))


def vp_fall(t):
    """-d log_snr / dt = beta / (1 - exp(-B))."""
    return (0.1 + 19.9 * t) / -np.expm1(-(0.1 * t + 9.95 * t**2))


def test_log_snr_is_uniform_over_the_working_range(key):
    for schedule, log_snr in (
        (schedules.linear_vp(), vp_log_snr),
        (schedules.edm(), lambda t: -2 * np.log(t)),
    ):
        t, _ = draw(key, N, schedule)
        assert t.dtype == jnp.float32
        first, last = float(schedules.cleanest_time(schedule)), float(schedule.t_max)
        assert np.all((t >= np.float32(first)) & (t <= np.float32(last)))
        low, high = log_snr(last), log_snr(first)
        law = scipy.stats.uniform(low, high - low)
        assert scipy.stats.kstest(log_snr(np.asarray(t, float)), law.cdf).pvalue > 0.01


def test_importance_is_that_of_uniform_times(key):
    t, importance = draw(key, N, schedules.linear_vp())
    at = np.asarray(t, float)
    density = vp_fall(at) / (vp_log_snr(1e-3) - vp_log_snr(1.0))
    # float32 log SNR of 10 and its slope: four digits
    np.testing.assert_allclose(importance, 1 / (density * 0.999), rtol=1e-3)
    f = lambda t: np.exp(-3 * t) + np.sin(7 * t)  # noqa: E731
    values = np.asarray(importance) * f(at)
    truth = scipy.integrate.quad(f, 1e-3, 1)[0] / 0.999
    assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(N)
    assert abs(f(at).mean() - truth) > 4 * f(at).std() / np.sqrt(N)  # and unweighted it is not


def chain_falls(betas):
    """log_snr(n - 1) - log_snr(n) of n = 1..N, the first as the second."""
    bar = np.cumprod(1 - betas)
    with np.errstate(divide="ignore"):
        fall = -np.diff(np.log(bar) - np.log1p(-bar))
    return np.concatenate([fall[:1], fall])


def test_steps_of_a_chain_are_drawn_by_their_fall(key):
    t, importance = draw(key, N, schedules.from_betas(BETAS))
    steps, p = np.asarray(t, int), chain_falls(BETAS) / chain_falls(BETAS).sum()
    np.testing.assert_array_equal(steps, t)
    counts = np.bincount(steps, minlength=101)[1:]
    assert scipy.stats.chisquare(counts, N * p).pvalue > 0.01
    # differences of float32 log SNR of up to 9, some 1e-6 of falls from 0.02 on
    np.testing.assert_allclose(importance, 1 / (100 * p[steps - 1]), rtol=1e-3)


def test_a_chain_of_one_step_has_one_time(key):
    """Its only step counts as any does on average: 1."""
    chain = schedules.from_betas([0.999])
    one = jnp.ones(3)
    np.testing.assert_array_equal(log_snr_rate(chain, one), one)
    for got in losses.uniform_log_snr(key, 3, chain):
        np.testing.assert_array_equal(got, one)


@pytest.mark.slow
def test_zero_terminal_snr_is_left_out(key):
    chain = schedules.from_betas(schedules.rescale_to_zero_terminal_snr(BETAS))
    assert float(schedules.noisiest_time(chain)) == 99
    t, importance = draw(key, N, chain)
    assert set(np.unique(t)) <= set(range(1, 100))
    assert np.isfinite(importance).all()
    schedule = schedules.cosine()
    last = float(schedules.noisiest_time(schedule))
    assert last == pytest.approx(0.999)
    t, importance = draw(key, N, schedule)
    assert float(t.max()) <= np.float32(last)
    assert np.isfinite(importance).all()
    # the mean of 1 over the clock, less the thousandth that is left out
    values, whole = np.asarray(importance, float), 0.998 / 0.999
    assert abs(values.mean() - whole) < 4 * values.std() / np.sqrt(N)
    for schedule in (schedules.linear_vp(), schedules.ve(), schedules.from_betas(BETAS)):
        assert float(schedules.noisiest_time(schedule)) == float(schedule.t_max)


@pytest.mark.slow
def test_the_bound_has_less_variance_and_the_same_mean(key):
    schedule, c = schedules.linear_vp(), 0.25

    def optimal(params, x, t):
        level = schedule(t)
        return (level.sigma / (level.alpha**2 * c + level.sigma**2))[:, None] * x

    denoiser = make_denoiser(optimal, (), parametrization="eps", time_feature="clock")
    x0 = c**0.5 * jax.random.normal(jax.random.key(9), (2 * N, 2))

    @jax.jit
    def per_example():
        both = (losses.uniform, losses.uniform_log_snr)
        runs = [
            losses.denoising(key, denoiser, x0, schedule, times=times, weight=losses.vlb)[1]
            for times in both
        ]
        return [run["per_example"] for run in runs]

    # E (eps - eps_hat)**2 = c SNR / (1 + c SNR) is the slope of log(1 + c SNR) by log SNR
    ends = [np.log1p(c * np.exp(vp_log_snr(t))) for t in (1e-3, 1.0)]
    truth = 0.5 * (ends[0] - ends[1])
    spread = []
    for values in per_example():
        spread.append(np.std(values))
        assert abs(np.mean(values) - truth) < 4 * spread[-1] / np.sqrt(2 * N)
    assert spread[1] < 0.5 * spread[0]


@pytest.mark.slow
def test_times_move_with_a_learned_schedule(key):
    def total(beta_max):
        schedule = schedules.linear_vp(0.1, beta_max)
        t, importance = losses.uniform_log_snr(key, 5, schedule)
        # under the weight of the bound the two cancel: what is left is the range itself
        return jnp.mean(importance * log_snr_rate(schedule, t))

    value, slope = jax.jit(jax.value_and_grad(total))(20.0)
    assert float(value) == pytest.approx(vp_log_snr(1e-3) - vp_log_snr(1.0), rel=1e-5)
    # B = .1 t + (b - .1) t**2 / 2; d log expm1(B) = dB / -expm1(-B)
    by_b = [t**2 / 2 / -np.expm1(-(0.1 * t + 9.95 * t**2)) for t in (1e-3, 1.0)]
    assert float(slope) == pytest.approx(by_b[1] - by_b[0], rel=1e-3)
