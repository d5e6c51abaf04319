"""Truth: the papers' formulas in long double, products of betas in 60 digits, published anchors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
from jax.test_util import check_grads

from jaxdiff import schedules
from jaxdiff.typing import Schedule
from tests import battery, dense

pytestmark = pytest.mark.usefixtures("strict")

PI = 4 * np.arctan(np.longdouble(1))


def beta_integral(t):
    """The integral of Song et al.'s beta(t), .1 at 0 and 20 at 1, by quadrature."""
    beta = lambda u: 0.1 + u * (20 - 0.1)  # noqa: E731
    return np.asarray([scipy.integrate.quad(beta, 0, v, epsabs=0)[0] for v in t])


def linear_vp(t):
    return np.exp(-beta_integral(t) / 2), np.sqrt(-np.expm1(-beta_integral(t)))


def sub_vp(t):
    return np.exp(-beta_integral(t) / 2), -np.expm1(-beta_integral(t))


def cosine(t, shift=1):
    f = [np.cos((np.longdouble(u) + 0.008) / (1 + np.longdouble(0.008)) * PI / 2) for u in (*t, 0)]
    f = np.asarray(f) ** 2
    bar = f[:-1] / f[-1]
    norm = bar + shift**2 * (1 - bar)
    return np.sqrt(bar / norm), np.sqrt(shift**2 * (1 - bar) / norm)


def rectified(t, shift=1):
    sigma = shift * t / (1 + (shift - 1) * t)  # Esser et al. 2024, eq. 23
    return (1 - t) / (1 + (shift - 1) * t), sigma


def shifted_linear_vp(t, shift=0.5):
    alpha, sigma = linear_vp(t)
    return alpha / np.hypot(alpha, shift * sigma), shift * sigma / np.hypot(alpha, shift * sigma)


FORMULAS = {
    "linear_vp": linear_vp,
    "cosine": cosine,
    "sub_vp": sub_vp,
    "ve": lambda t: (np.ones_like(t), 0.01 * 5000 ** np.asarray(t, np.longdouble)),
    "edm": lambda t: (np.ones_like(t), t),
    "rectified": rectified,
    "shifted_rectified": lambda t: rectified(t, 3),
    "shifted_cosine": lambda t: cosine(t, 2),
    "shifted_linear_vp": shifted_linear_vp,
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", FORMULAS)
def test_levels_are_the_papers(name):
    t = battery.noisy_times(battery.SCHEDULES[name])
    level = battery.SCHEDULES[name](jnp.asarray(t))
    alpha, sigma = FORMULAS[name](t)
    # shifted schedules pass an inverse, whose clock near zero SNR costs two digits
    rtol = 1e-11 if name.startswith("shifted") else 1e-13
    np.testing.assert_allclose(level.alpha, alpha.astype(float), rtol=rtol, atol=1e-17)
    np.testing.assert_allclose(level.sigma, sigma.astype(float), rtol=rtol)


@pytest.mark.usefixtures("x64")
@battery.each_betas
def test_chains_are_products_of_their_steps(betas):
    schedule, total = schedules.from_betas(betas), len(betas)
    bars = np.concatenate([dense.decimals([1]), np.cumprod(1 - dense.decimals(betas))])
    level = schedule(jnp.arange(total + 1))
    assert level.alpha.dtype == jnp.float64
    # 1000 sums of logs: rounding of the sum, at most 20, against the relative error of exp
    np.testing.assert_allclose(level.alpha**2, bars.astype(float), rtol=1e-13)
    np.testing.assert_allclose(level.sigma**2, (1 - bars).astype(float), rtol=1e-13)
    between = schedule(jnp.asarray([total / 2 - 0.25]))
    low, high = (float(bars[total // 2 - k]) for k in (1, 0))
    np.testing.assert_allclose(between.alpha**2, low**0.25 * high**0.75, rtol=1e-13)


@pytest.mark.usefixtures("x64")
def test_published_anchors():
    ho, su = (schedules.from_betas(battery.BETAS[name]) for name in ("linear", "su"))
    assert float(ho(1000).alpha) == pytest.approx(0.006353, abs=5e-7)
    assert float(ho(1000).alpha) ** 2 == pytest.approx(4.0358e-5, abs=5e-10)
    assert float(su(1000).alpha) == pytest.approx(0.006482, abs=5e-7)
    # E[score^2] = Gamma = 1 / (alpha^2 c + sigma^2) for data N(0, c), c = .25
    for n, gamma in [(1, 3.99880), (100, 3.05589), (500, 1.06263), (1000, 1.00003)]:
        level = ho(n)
        ours = 1 / (0.25 * level.alpha**2 + level.sigma**2)
        assert float(ours) == pytest.approx(gamma, abs=5e-6)
    # the largest beta of the cosine chain inflates its last step some 31.6 times
    assert 1 / np.sqrt(1 - battery.BETAS["cosine"][-1]) == pytest.approx(31.6, abs=0.05)


def test_beta_tables_have_the_published_ends():
    ends = {
        "linear": (1e-4, 0.02),  # Ho et al. 2020
        "linear_100": (1e-3, 0.2),
        "scaled_linear": (0.00085, 0.012),  # Stable Diffusion's configuration
        "sqrt_linear": (0.01, 0.02**0.5),
        "su": (2e-5, 0.02),
        "zero_snr": (1e-4, 1.0),  # Lin et al. 2023: the first step is kept, the last is 1
    }
    for name, (first, last) in ends.items():
        np.testing.assert_allclose(battery.BETAS[name][[0, -1]], (first, last), rtol=1e-12)
    assert battery.BETAS["cosine"].max() == 0.999
    # the middle of each table: even in beta, in its root, in its square
    odd = {
        name: getattr(schedules, f"{name}_betas")(21 + 980)
        for name in ("linear", "scaled_linear", "sqrt_linear", "sigmoid")
    }
    scale = 1000 / 1001
    assert odd["linear"][500] == pytest.approx(scale * (1e-4 + 0.02) / 2)
    assert odd["scaled_linear"][500] ** 0.5 == pytest.approx((0.00085**0.5 + 0.012**0.5) / 2)
    assert odd["sqrt_linear"][500] ** 2 == pytest.approx((1e-4 + 0.02) / 2)
    assert odd["sigmoid"][500] == pytest.approx((1e-4 + 0.02) / 2)
    assert odd["sigmoid"][0] == pytest.approx(1e-4 + 0.0199 / (1 + np.exp(6)))


@pytest.mark.usefixtures("x64")
@battery.each_schedule
def test_log_snr_falls_and_time_inverts_it(schedule):
    assert isinstance(schedule, Schedule)
    low, high = float(schedule.t_min), float(schedule.t_max)
    t = np.linspace(low, high, 402)[1:-1]  # off the whole steps too
    log_snr = schedule(jnp.asarray(t)).log_snr
    assert (np.diff(log_snr) < 0).all()
    # log SNR moves by 10 or so over the clock and its rounding is 1e-15; a hundredth of a step
    # of the clock near the noisy end of a shifted path still costs three digits
    np.testing.assert_allclose(schedule.time(log_snr), t, rtol=1e-11)
    level = schedule(jnp.asarray(low))
    if level.sigma == 0:
        assert float(level.alpha) == 1
        np.testing.assert_allclose(schedule.time(level.log_snr), 0, atol=1e-12)
    level = schedule(jnp.asarray(high))
    np.testing.assert_allclose(schedule.time(level.log_snr), high, rtol=1e-11)


@battery.each_schedule
def test_time_inverts_in_float32(schedule):
    low, high = float(schedule.t_min), float(schedule.t_max)
    t = jnp.linspace(low, high, 402)[1:-1]
    assert t.dtype == schedule(t).alpha.dtype == jnp.float32
    # a float32 log SNR of size 10 is good to 1e-6, which is 1e-4 of the clock where it is flat
    back = schedule.time(schedule(t).log_snr)
    np.testing.assert_allclose(back, t, rtol=1e-4, atol=1e-4 * (high - low))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["linear_vp", "cosine", "rectified", "betas_linear"])
def test_variance_is_preserved_where_it_should_be(name):
    schedule = battery.SCHEDULES[name]
    level = schedule(jnp.asarray(battery.noisy_times(schedule)))
    total = level.alpha + level.sigma if name == "rectified" else level.alpha**2 + level.sigma**2
    np.testing.assert_allclose(total, 1, rtol=1e-14)


@pytest.mark.parametrize(
    "name", ["cosine", "rectified", "shifted_cosine", "shifted_rectified", "betas_zero_snr"]
)
def test_zero_terminal_snr_is_exact(name):
    schedule = battery.SCHEDULES[name]
    level = schedule(schedule.t_max)
    assert float(level.alpha) == 0
    assert float(level.sigma) == pytest.approx(1, abs=1e-6)
    assert float(level.log_snr) == -np.inf


@battery.each_schedule
def test_the_prior_is_the_end_of_the_path(schedule):
    # x_T of data with mean 0 and variance 1 and x_T as drawn differ in scale by alpha_T at most
    level = schedule(schedule.t_max)
    assert float(schedule.prior_std) == pytest.approx(float(level.sigma), rel=3e-3)


def level_sum(schedule, t):
    level = schedule(t)
    return jnp.sum(jnp.sin(level.alpha) + jnp.cos(level.sigma / 10) + level.t / 1000)


@pytest.mark.usefixtures("x64")
@battery.each_schedule
def test_gradients_by_time_and_parameters(schedule):
    low, high = float(schedule.t_min), float(schedule.t_max)
    floats = jax.tree.map(lambda a: jnp.asarray(a, float), schedule)
    ends = jnp.asarray([low, (low + high) / 2, high])
    for gradient in jax.tree.leaves(jax.grad(level_sum, (0, 1))(floats, ends)):
        assert np.isfinite(gradient).all()  # at the clean end and at zero SNR too
    leaves, tree = jax.tree.flatten(floats)

    def inner(scalars, t):
        return level_sum(jax.tree.unflatten(tree, [*leaves[: -len(scalars)], *scalars]), t)

    scalars = [leaf for leaf in leaves if leaf.ndim == 0]  # tables come first
    inside = low + (high - low) * jnp.asarray([0.2031, 0.7033])  # off the corners of a chain
    if scalars:
        check_grads(inner, (scalars, inside), 1, ["rev"], rtol=1e-6, atol=1e-8, eps=1e-6)
    else:
        check_grads(lambda t: level_sum(floats, t), (inside,), 1, ["rev"], rtol=1e-6, eps=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_gradient_by_the_betas_of_a_chain():
    betas, steps = jnp.asarray(battery.BETAS["linear_100"]), jnp.asarray([0.0, 1.0, 40.3, 100.0])
    total = lambda betas: level_sum(schedules.from_betas(betas), steps)  # noqa: E731
    assert np.isfinite(jax.grad(total)(betas)).all()
    check_grads(total, (betas,), 1, ["rev"], rtol=1e-6, atol=1e-8, eps=1e-6)


@pytest.mark.usefixtures("x64")
def test_vmap_over_parameters_equals_a_loop():
    t, values = jnp.asarray([0.0, 0.4, 1.0]), np.asarray([15.0, 20.0, 25.0])
    together = jax.vmap(lambda b: schedules.linear_vp(0.1, b)(t))(jnp.asarray(values))
    for i, value in enumerate(values):
        alone = schedules.linear_vp(0.1, value)(t)
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-15), together, alone
        )
    tables = np.stack([battery.BETAS["linear"], battery.BETAS["su"]])
    steps = jnp.asarray([0.0, 1.0, 500.5, 1000.0])
    together = jax.vmap(lambda b: schedules.from_betas(b)(steps))(jnp.asarray(tables))
    for i, betas in enumerate(tables):
        alone = schedules.from_betas(betas)(steps)
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-12), together, alone
        )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.linear_vp(0.1, 5.0), "signal left"),
        (lambda: schedules.linear_vp(0.0, 20.0), "beta_min"),
        (lambda: schedules.linear_vp(0.1, 0.05), "beta_max"),
        (lambda: schedules.sub_vp(-1.0, 20.0), "beta_min"),
        (lambda: schedules.cosine(1.0), "offset"),
        (lambda: schedules.ve(0.0, 50.0), "sigma_min"),
        (lambda: schedules.ve(1.0, 0.5), "sigma_max"),
        (lambda: schedules.edm(np.nan, 80.0), "sigma_min"),
        (lambda: schedules.shifted(schedules.cosine(), 0.0), "shift"),
        (lambda: schedules.linear_betas(20), "num_steps"),
        (lambda: schedules.su_betas(0), "num_steps"),
        (lambda: schedules.from_betas(schedules.su_betas(100)), "signal left"),
        (lambda: schedules.from_betas([[0.1]]), "betas"),
        (lambda: schedules.from_betas([]), "betas"),
        (lambda: schedules.from_betas([0.0, 0.99]), "betas"),
        (lambda: schedules.from_betas([0.5, 1.5]), "betas"),
        (lambda: schedules.from_betas([np.nan, 0.999]), "betas"),
        (lambda: schedules.rescale_to_zero_terminal_snr([0.5, 1.0]), "betas"),
        (lambda: schedules.from_betas(schedules.linear_betas())(1001), "t must lie in"),
        (lambda: schedules.rectified()(1.01), "t must lie in"),
        (lambda: schedules.linear_vp()(-0.1), "t must lie in"),
        (lambda: schedules.cosine()(np.nan), "t must lie in"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
