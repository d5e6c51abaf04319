"""Truth: dense conditioning of (x_0, x_s, x_t) in 60 digits, scipy, quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

from jaxdiff import gaussian, schedules
from jaxdiff.typing import NoiseLevel, Normal
from tests import battery, dense

pytestmark = pytest.mark.usefixtures("strict")

# float64: some ten roundings, divided by the smallest 1 - r of the pairs, about .01
RTOL = 1e-12


def states(t):
    """Positive x0 and x, [P, 1], so that sums of positive terms carry relative errors."""
    generator = np.random.default_rng(0)
    return (jnp.asarray(v) for v in generator.uniform(0.5, 1.5, (2, len(t.t), 1)))


def truths(t, s, ask):
    """`ask(i, x_0, x_s, x_t maps)` for each pair: mean and variance, [P] each."""
    columns = [np.asarray(a) for a in (t.alpha, t.sigma, s.alpha, s.sigma)]
    rows = [ask(i, *dense.markov(*numbers)) for i, numbers in enumerate(zip(*columns, strict=True))]
    return np.asarray([m[0] for m, _ in rows]), np.asarray([v[0, 0] for _, v in rows])


def assert_normal(ours, truth):
    np.testing.assert_allclose(jnp.squeeze(ours.mean, -1), truth[0], rtol=RTOL)
    np.testing.assert_allclose(jnp.squeeze(ours.var, -1), truth[1], rtol=RTOL)


# x_0 has a law in the joint, but conditioning on it must leave no trace of that law
MEAN, COV = np.asarray([0.3, 0.0, 0.0]), np.diag([0.7, 1.0, 1.0])


@pytest.mark.usefixtures("x64")
@battery.each_schedule
def test_kernels_equal_dense_conditioning(schedule):
    t, s = battery.pairs(schedule)
    x0, x = states(t)

    def marginal(i, x_0, x_s, x_t):
        return dense.conditional(MEAN, COV, x_0, [x0[i, 0]], x_t)

    def posterior(i, x_0, x_s, x_t):
        seen = np.concatenate([x_t, x_0])
        return dense.conditional(MEAN, COV, seen, [x[i, 0], x0[i, 0]], x_s)

    def transition(i, x_0, x_s, x_t):
        seen = x_s if s.sigma[i] == 0 else np.concatenate([x_s, x_0])  # x_0 adds nothing
        value = [x[i, 0], x0[i, 0]][: len(seen)]
        return dense.conditional(MEAN, COV, seen, value, x_t)

    assert_normal(gaussian.q_marginal(x0, t), truths(t, s, marginal))
    assert_normal(gaussian.q_transition(x, s=s, t=t), truths(t, s, transition))
    assert_normal(gaussian.q_posterior(x0, x, t=t, s=s), truths(t, s, posterior))


@pytest.mark.usefixtures("x64")
@battery.each_betas
def test_a_chain_is_the_product_of_its_steps(betas):
    schedule, total = schedules.from_betas(betas), len(betas)
    x = jnp.ones((1, 1))
    for s, t in [(0, 1), (1, 2), (0, total), (total // 3, total // 2), (total - 1, total)]:
        kept = np.prod(1 - dense.decimals(betas[s:t]))
        ours = gaussian.q_transition(x, s=schedule(s), t=schedule(t))
        np.testing.assert_allclose(float(ours.mean[0, 0]) ** 2, float(kept), rtol=RTOL)
        np.testing.assert_allclose(float(ours.var), float(1 - kept), rtol=RTOL)


@pytest.mark.usefixtures("x64")
@battery.each_schedule
def test_transitions_compose(schedule):
    levels = schedule(jnp.asarray(battery.noisy_times(schedule)))
    u, s, t = (jax.tree.map(lambda a, k=k: a[k : k + 6], levels) for k in range(3))
    x = jnp.ones((6, 1))
    first, second = gaussian.q_transition(x, s=u, t=s), gaussian.q_transition(x, s=s, t=t)
    whole = gaussian.q_transition(x, s=u, t=t)
    np.testing.assert_allclose(first.mean * second.mean, whole.mean, rtol=RTOL)
    var = second.mean**2 * first.var + second.var
    np.testing.assert_allclose(var, whole.var, rtol=RTOL)
    # ... from data, and back: averaging q(x_s | x_t, x_0) over q(x_t | x_0) is q(x_s | x_0)
    marginal = gaussian.q_marginal(x, s), gaussian.q_marginal(x, t)
    np.testing.assert_allclose(second.mean * marginal[0].mean, marginal[1].mean, rtol=RTOL)
    var = second.mean**2 * marginal[0].var + second.var
    np.testing.assert_allclose(var, marginal[1].var, rtol=RTOL)
    back = gaussian.q_posterior(x, marginal[1].mean, t=t, s=s)
    slope = gaussian.q_posterior(0 * x, x, t=t, s=s).mean
    np.testing.assert_allclose(back.mean, marginal[0].mean, rtol=RTOL)
    np.testing.assert_allclose(back.var + slope**2 * marginal[1].var, marginal[0].var, rtol=RTOL)


@pytest.mark.usefixtures("x64")
def test_samples_are_the_marginal():
    x0, noise = jnp.full((20000, 1), 2.0), jax.random.normal(jax.random.key(0), (20000, 1))
    level = NoiseLevel(0.5, 0.6, 0.8)
    x = np.asarray(gaussian.q_sample(x0, noise, level))[:, 0]
    assert scipy.stats.kstest(x, scipy.stats.norm(1.2, 0.8).cdf).pvalue > 0.01
    per_example = jax.tree.map(lambda a: jnp.full(20000, a), level)
    np.testing.assert_array_equal(gaussian.q_sample(x0, noise, per_example)[:, 0], x)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@battery.each_schedule
def test_float32_chains_keep_four_digits(schedule):
    # the times are float32 on both sides, and whole on a chain
    steps = schedules.whole_steps(schedule) or 1000
    times = np.linspace(float(schedule.t_max), float(schedule.t_min), steps + 1, dtype=np.float32)

    def chain(times):
        levels = schedule(times)
        t, s = (jax.tree.map(lambda a, p=part: a[p], levels) for part in (np.s_[:-1], np.s_[1:]))
        x = jnp.ones((steps, 1), times.dtype)
        posterior = (
            gaussian.q_posterior(0 * x, x, t=t, s=s),
            gaussian.q_posterior(x, 0 * x, t=t, s=s),
        )
        return gaussian.q_marginal(x, t), gaussian.q_transition(x, s=s, t=t), posterior

    # float32 roundings of 6e-8 divided by 1 - r, some .005 at the least; a shift goes through the
    # inverse of the base, whose clock is a poor coordinate near zero SNR
    rtol = 5e-4 if hasattr(schedule, "shift") else 1e-4

    def close(a, b):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, rtol=rtol)

    jax.tree.map(close, *(chain(jnp.asarray(times, d)) for d in (jnp.float32, jnp.float64)))


@pytest.mark.usefixtures("x64")
def test_kl_equals_quadrature_and_the_multivariate_formula():
    means_p, vars_p = np.asarray([0.0, 0.3, -2.0]), np.asarray([1.0, 0.2, 3.0])
    means_q, vars_q = np.asarray([0.0, -0.1, 1.0]), np.asarray([1.0, 0.5, 0.7])
    ours = gaussian.normal_kl(
        Normal(jnp.asarray([means_p]), jnp.asarray([vars_p])),
        Normal(jnp.asarray([means_q]), jnp.asarray([vars_q])),
    )[0]
    x = np.linspace(-30, 30, 60001)[:, None]  # a trapezoid of analytic tails: exact
    p, q = scipy.stats.norm(means_p, vars_p**0.5), scipy.stats.norm(means_q, vars_q**0.5)
    integral = np.trapezoid(p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), x, axis=0)
    np.testing.assert_allclose(ours, integral, rtol=1e-10, atol=1e-14)
    gap, inverse = means_q - means_p, np.diag(1 / vars_q)
    log_det = np.log(np.linalg.det(np.diag(vars_q)) / np.linalg.det(np.diag(vars_p)))
    whole = (np.trace(inverse @ np.diag(vars_p)) + gap @ inverse @ gap - 3 + log_det) / 2
    np.testing.assert_allclose(ours.sum(), whole, rtol=1e-13)


decoder = jax.jit(gaussian.discretized_log_prob)


def pixels():
    return np.arange(256) / 127.5 - 1


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("mean", [-1.3, -1.0, -0.2, 0.4999, 1.0])
@pytest.mark.parametrize("std", [1e-4, 3e-3, 0.1, 5.0])
def test_decoder_is_a_law_over_the_bins(mean, std):
    x = jnp.asarray(pixels())[None]
    normal = Normal(jnp.full((1, 256), mean), jnp.full((1, 1), std**2))
    log_prob = decoder(x, normal)[0]
    np.testing.assert_allclose(jnp.exp(log_prob).sum(), 1, rtol=1e-12)
    # differences of erf, open outermost bins; they cancel below 1e-5, where logs must go on
    edges = (pixels()[:-1] + 1 / 255 - mean) / std
    cdf = np.concatenate([[0], (1 + scipy.special.erf(edges / np.sqrt(2))) / 2, [1]])
    large = np.diff(cdf) > 1e-5
    np.testing.assert_allclose(np.exp(log_prob)[large], np.diff(cdf)[large], rtol=1e-10)


@pytest.mark.usefixtures("x64")
def test_decoder_goes_on_into_the_tails():
    # 50 deviations out: a bin's probability is the density at its near edge over z / std
    x, std = jnp.asarray([[pixels()[200]]]), 0.01
    for side in (1, -1):
        mean = float(x[0, 0]) + side * 50 * std
        normal = Normal(jnp.full((1, 1), mean), jnp.full((1, 1), std**2))
        near = scipy.special.log_ndtr(-(50 - 1 / 255 / std))
        far = scipy.special.log_ndtr(-(50 + 1 / 255 / std))
        truth = near + np.log1p(-np.exp(far - near))
        np.testing.assert_allclose(decoder(x, normal), truth, rtol=1e-12)

    @jax.jit
    def total(mean, log_std):
        normal = Normal(mean, jnp.exp(2 * log_std))
        return decoder(jnp.asarray(pixels())[None], normal).sum()

    for log_std in (-9.0, -3.0, 1.0):
        arguments = jnp.full((1, 256), 0.3), jnp.full((1, 1), log_std)
        assert all(np.isfinite(g).all() for g in jax.jit(jax.grad(total, (0, 1)))(*arguments))


def test_decoder_in_float32_is_a_law_too():
    x = jnp.asarray(pixels(), jnp.float32)[None]
    for std in (3e-3, 0.1, 5.0):
        normal = Normal(jnp.full((1, 256), 0.2), jnp.full((1, 1), std**2))
        total = jnp.exp(decoder(x, normal)).sum()
        # 256 differences of logs near 0, 1e-6 each at the worst
        np.testing.assert_allclose(total, 1, rtol=1e-4)


def test_decoder_of_any_deviation_is_the_integral_of_the_density():
    """A bin of bytes, from a hundredth of the width to far beyond what edges' CDFs can tell.

    Truth: SciPy's adaptive quadrature of its density in float64.
    """
    x, width = np.float32(0.2), 1 / 127.5  # 0.2 is a bin's centre
    # both sides of the switch too: 0.01569 = 2 width and, 4 deviations out, half a width squared
    stds = np.concatenate([np.geomspace(1e-3, 1e9, 25), [0.01568, 0.0157]]).astype(np.float32)
    std, z = (a.ravel() for a in np.meshgrid(stds, [-30.0, -3.9, -0.3, 0.0, 4.1, 20.0]))
    mean = np.clip(x - std * z, -1, 1).astype(np.float32)

    def truth(mean, std):
        density = lambda v: scipy.stats.norm.pdf(v, mean, std)  # noqa: E731
        ends = float(x) - width / 2, float(x) + width / 2
        inside = [mean] if ends[0] < mean < ends[1] else None
        return np.log(scipy.integrate.quad(density, *ends, points=inside, epsabs=0)[0])

    wanted = [truth(m, s) for m, s in zip(mean.astype(float), std.astype(float), strict=True)]
    law = lambda mean, var: decoder(jnp.full_like(mean, x), Normal(mean, var))  # noqa: E731
    got, back = jax.vjp(law, jnp.asarray(mean), jnp.asarray(std) ** 2)
    # z and var hold 1e-7 of themselves, log p the square of the first; the logs some 1e-6
    np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=2e-6)
    assert all(np.isfinite(g).all() for g in back(jnp.ones_like(got)))
