"""Truth: the papers' f and g**2 in numpy; the Fokker-Planck equation of exact densities."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import exact, schedules, sde
from jaxdiff.typing import NoiseLevel
from tests import battery

pytestmark = pytest.mark.usefixtures("x64", "strict")

CHAIN = schedules.linear_betas(100)


def vp(t):
    beta = 0.1 + 19.9 * t
    return -beta / 2, beta


def sub_vp(t):
    beta, integral = 0.1 + 19.9 * t, 0.1 * t + 9.95 * t**2
    return -beta / 2, beta * (1 - np.exp(-2 * integral))


def cosine(t):
    unit = np.pi / 2 / 1.008
    tangent = unit * np.tan((t + 0.008) * unit)
    return -tangent, 2 * tangent


def chain(t):
    log = np.log1p(-CHAIN[np.ceil(t).astype(int) - 1])
    return log / 2, -log


FORMULAS = {
    "linear_vp": (schedules.linear_vp(), vp),
    "sub_vp": (schedules.sub_vp(), sub_vp),
    "ve": (schedules.ve(), lambda t: (0 * t, 2 * np.log(5000) * (0.01 * 5000**t) ** 2)),
    "cosine": (schedules.cosine(), cosine),
    "rectified": (schedules.rectified(), lambda t: (-1 / (1 - t), 2 * t / (1 - t))),
    "edm": (schedules.edm(), lambda t: (0 * t, 2 * t)),
    "chain": (schedules.from_betas(CHAIN), chain),
    "path": (battery.ddpm_limit(), lambda t: (-10 * t, 20 * t)),
}
each = pytest.mark.parametrize("name", FORMULAS)


def times(schedule, fractions=(0.0037, 0.0513, 0.213, 0.5037, 0.8037, 0.9737)):
    low, high = float(schedule.t_min), float(schedule.t_max)
    return low + (high - low) * np.asarray(fractions)


@each
@pytest.mark.parametrize("way", [sde.coefficients, sde.by_autodiff])
def test_coefficients_are_the_papers(name, way):
    schedule, formula = FORMULAS[name]
    t = times(schedule)
    f, g2 = way(schedule, jnp.asarray(t))
    assert f.dtype == g2.dtype == jnp.float64
    # sigma**2 = 4e-4 of the first time loses three digits of sixteen in its slope
    np.testing.assert_allclose(f, formula(t)[0], rtol=1e-10)
    np.testing.assert_allclose(g2, formula(t)[1], rtol=1e-10)


def test_a_chain_tells_the_step_that_leads_up_to_a_time():
    f, g2 = sde.coefficients(schedules.from_betas(CHAIN), jnp.arange(1, 101))
    np.testing.assert_allclose(f, 0.5 * np.log1p(-CHAIN), rtol=1e-10)
    np.testing.assert_allclose(g2, -np.log1p(-CHAIN), rtol=1e-10)
    assert sde.coefficients(schedules.ve(), 0.3)[0].shape == ()


def test_float32_coefficients():
    t = times(schedules.sub_vp()).astype(np.float32)  # exact from here on
    f, g2 = sde.coefficients(schedules.sub_vp(), jnp.asarray(t))
    assert f.dtype == g2.dtype == jnp.float32
    np.testing.assert_allclose(g2, sub_vp(t.astype(float))[1], rtol=1e-5)


# -- the exact density obeys the Fokker-Planck equation of each

ONE = ([0.5, 0.5], [[-0.7], [0.7]], [[[0.01]], [[0.01]]])
TWO = ([0.3, 0.7], [[-0.6, 0.2], [0.5, -0.4]], [[[0.2, 0.05], [0.05, 0.1]], 0.15 * np.eye(2)])
WEIGHTS = np.asarray([1, -8, 0, 8, -1]) / 12  # of f(-2h) .. f(2h): f'h with an error h**4/30 f(5)
TWICE = np.asarray([-1, 16, -30, 16, -1]) / 12  # f'' h**2, with an error h**4/90 f(6)


@functools.cache
def models(numbers):
    """Denoise and density of a mixture, each one program for all schedules of one shape."""
    mixture = exact.gaussian_mixture(*(ONE, TWO)[numbers])
    density = jax.jit(lambda x, level: jnp.exp(mixture.log_prob(x, level)))
    return mixture, jax.jit(mixture.denoise), density


def points(level, dim, n=24):
    """[n, dim] where the density of either mixture at a level is not small."""
    reach = float(level.alpha + 1.5 * level.sigma)
    return reach * np.random.default_rng(0).uniform(-1, 1, size=(n, dim))


def transport(numbers, schedule, t, drift, g2_over_2):
    """dp/dt, and dp/dt + div(drift p) - g2_over_2 laplace(p), at points [n]."""
    _, _, density = models(numbers)
    dim, level = numbers + 1, schedule(jnp.asarray(t))
    x = points(level, dim)
    h = 2e-3 * float(jnp.sqrt(0.01 * level.alpha**2 + level.sigma**2)) / 0.1
    h_t = 2e-4 * t  # scales of the clock are decades of sigma where t is small
    moments = [density(x, schedule(jnp.asarray(t + k * h_t))) for k in (-2, -1, 0, 1, 2)]
    change = np.tensordot(WEIGHTS, np.asarray(moments), 1) / h_t
    residual = change
    for axis in np.eye(dim):
        places = [jnp.asarray(x + k * h * axis) for k in (-2, -1, 0, 1, 2)]
        p = np.asarray([density(place, level) for place in places])
        flux = np.asarray([np.asarray(drift(place)) @ axis for place in places]) * p
        residual = residual + np.tensordot(WEIGHTS, flux, 1) / h
        residual = residual - g2_over_2 * np.tensordot(TWICE, p, 1) / h**2
    return change, residual


def assert_transported(numbers, schedule, t, drift, g2_over_2):
    change, residual = transport(numbers, schedule, t, drift, g2_over_2)
    # steps of a fiftieth of the narrowest width, to fourth order: (1/50)**4 times some tens
    assert np.abs(residual).max() < 1e-3 * np.abs(change).max()


def transported(*fast):
    """Every schedule and both mixtures, by default those named."""
    rows = [(name, numbers) for numbers in (0, 1) for name in FORMULAS]
    return pytest.mark.parametrize(
        ("name", "numbers"),
        [
            pytest.param(*row, marks=[] if row in fast else pytest.mark.slow, id=f"{row[0]}-{dim}d")
            for row in rows
            for dim in [row[1] + 1]
        ],
    )


@transported(*((name, 0) for name in ("linear_vp", "sub_vp", "ve")))
def test_forward_sde_moves_the_exact_density(name, numbers):
    schedule = FORMULAS[name][0]
    forward = sde.forward(schedule)
    for t in times(schedule, (0.0537, 0.213, 0.5037, 0.8037)):
        now = jnp.asarray(t)
        drift = functools.partial(forward.drift, now)
        assert_transported(numbers, schedule, t, drift, float(forward.diffusion(now)) ** 2 / 2)


def test_a_wrong_diffusion_would_be_seen():
    schedule = schedules.linear_vp()
    forward, t = sde.forward(schedule), 0.213
    drift = functools.partial(forward.drift, jnp.asarray(t))
    wrong = 1.01 * float(forward.diffusion(jnp.asarray(t))) ** 2 / 2
    change, residual = transport(0, schedule, t, drift, wrong)
    assert np.abs(residual).max() > 3e-3 * np.abs(change).max()


@transported(("linear_vp", 0), ("ve", 0))
def test_probability_flow_and_reverse_sdes_move_it_back(name, numbers):
    schedule, denoise = FORMULAS[name][0], models(numbers)[1]
    flow = sde.probability_flow(denoise, schedule)
    for t in times(schedule, (0.213, 0.8037)):
        now = jnp.asarray(t)
        assert_transported(numbers, schedule, t, functools.partial(flow, now), 0)
        for lam in (0.6, 1.0):
            back = sde.reverse(denoise, schedule, lam)
            # backwards in time noise spreads the density towards t = 0: the sign of g**2 turns
            spread = -(float(back.diffusion(now)) ** 2) / 2
            assert spread < 0
            assert_transported(numbers, schedule, t, functools.partial(back.drift, now), spread)


@pytest.mark.parametrize("name", ["linear_vp", pytest.param("ve", marks=pytest.mark.slow)])
def test_reverse_at_lam_zero_is_the_flow_and_at_one_andersons(name):
    schedule, (mixture, denoise, _) = FORMULAS[name][0], models(1)
    t = jnp.asarray(times(schedule)[2])
    x = jnp.asarray(points(schedule(t), 2))
    still = sde.reverse(denoise, schedule, 0.0)
    flow = sde.probability_flow(denoise, schedule)(t, x)
    np.testing.assert_allclose(still.drift(t, x), flow, rtol=1e-12)
    assert float(still.diffusion(t)) == 0
    f, g2 = sde.coefficients(schedule, t)
    wanted = f * x - g2 * mixture.score(x, schedule(t))
    close = {"rtol": 1e-9, "atol": 1e-9 * np.abs(wanted).max()}  # f x cancels against the score
    np.testing.assert_allclose(sde.reverse(denoise, schedule).drift(t, x), wanted, **close)


def test_the_flow_is_finite_at_zero_terminal_snr():
    schedule, denoise = schedules.cosine(), models(1)[1]
    x = jnp.asarray([[0.3, -1.0]])
    flow = sde.probability_flow(denoise, schedule)(jnp.asarray(1.0), x)
    # alpha' x0 + sigma' eps with x0 the mean of the data, sigma' = 0
    slope = -np.pi / 2 / 1.008 / np.cos(0.008 * np.pi / 2 / 1.008)
    np.testing.assert_allclose(flow, slope * models(1)[0].mean[None], rtol=1e-12)


# -- the clock sigma / alpha


@pytest.mark.parametrize("name", ["sub_vp", "ve", pytest.param("chain", marks=pytest.mark.slow)])
def test_in_the_sigma_clock_the_flow_is_eps(name):
    schedule, denoise = FORMULAS[name][0], models(1)[1]
    t = jnp.asarray(times(schedule)[2])
    level = schedule(t)
    x = jnp.asarray(points(level, 2))
    own, clock = sde.in_sigma_clock(denoise, schedule)
    rho = level.sigma / level.alpha
    straight = sde.probability_flow(own, clock)(rho, x / level.alpha)
    # the way through time(log_snr) costs some digits
    np.testing.assert_allclose(straight, denoise(x, level).eps, rtol=1e-8)
    # and it is the flow of the original, by the chain rule: d(x / alpha) = eps d rho
    rate = jax.jvp(schedule, (t,), (jnp.ones_like(t),))[1]
    of_rho = rate.sigma / level.alpha - rho * rate.alpha / level.alpha
    moved = sde.probability_flow(denoise, schedule)(t, x) - rate.alpha / level.alpha * x
    np.testing.assert_allclose(moved / level.alpha, straight * of_rho, rtol=1e-8)


@pytest.mark.parametrize("name", ["linear_vp", "ve"])
def test_the_sigma_clock_is_a_schedule(name):
    schedule = FORMULAS[name][0]
    _, clock = sde.in_sigma_clock(models(1)[1], schedule)
    first, last = schedule(schedules.cleanest_time(schedule)), schedule(schedule.t_max)
    assert float(clock.t_min) == pytest.approx(float(first.sigma / first.alpha))
    assert float(clock.t_max) == pytest.approx(float(last.sigma / last.alpha))
    assert float(clock.prior_std) == pytest.approx(float(schedule.prior_std / last.alpha))
    t = jnp.asarray([0.01, 0.5, 20.0])
    np.testing.assert_allclose(clock.time(clock(t).log_snr), t, rtol=1e-12)
    for ours, autodiff in zip(sde.coefficients(clock, t), sde.by_autodiff(clock, t), strict=True):
        np.testing.assert_allclose(ours, autodiff, rtol=1e-12)


# -- transformations, bad input


def test_coefficients_under_jit_vmap_and_grad():
    t = jnp.asarray([0.1, 0.7])
    total = jax.jit(lambda b: sum(map(jnp.sum, sde.coefficients(schedules.sub_vp(0.1, b), t))))
    values = jnp.asarray([15.0, 20.0])
    together = jax.jit(jax.vmap(total))(values)
    np.testing.assert_allclose(together, [total(b) for b in values], rtol=1e-12)
    slope = jax.jit(jax.grad(total))
    battery.assert_gradients(total, lambda b: (slope(b),), (jnp.asarray(20.0),))
    through = lambda rate: jnp.sum(sde.coefficients(battery.ddpm_limit(rate), t)[1])  # noqa: E731
    # g**2 = 4 rate t
    np.testing.assert_allclose(jax.jit(jax.grad(through))(5.0), 4 * 0.8, rtol=1e-10)


@pytest.mark.slow
def test_fields_take_a_gradient_by_the_model_and_by_lam():
    schedule, t, x = schedules.linear_vp(), jnp.asarray(0.4), jnp.asarray([[0.3, -1.0]])

    @jax.jit
    def total(means, lam):
        mixture = exact.GaussianMixture(jnp.asarray([1.0]), means, jnp.eye(2)[None])
        back = sde.Reverse(mixture, schedule, lam)
        return jnp.sum(jnp.sin(back.drift(t, x))) + back.diffusion(t)

    arguments = (jnp.asarray([[0.2, 0.1]]), jnp.asarray(0.5))
    battery.assert_gradients(total, jax.jit(jax.grad(total, (0, 1))), arguments)


def test_bad_input_is_refused():
    denoise = models(1)[1]
    for lam in (-0.1, 1.5, np.nan):
        with pytest.raises(ValueError, match="lam"):
            sde.reverse(denoise, schedules.linear_vp(), lam)
    with pytest.raises(ValueError, match="t must lie in"):
        sde.coefficients(schedules.rectified(), 1.5)
    for schedule in (schedules.cosine(), schedules.rectified()):
        with pytest.raises(ValueError, match="zero terminal SNR"):
            sde.in_sigma_clock(denoise, schedule)
    with pytest.raises(TypeError, match="function"):
        sde.probability_flow(3, schedules.linear_vp())
    assert isinstance(sde.in_sigma_clock(denoise, schedules.edm())[1](1.0), NoiseLevel)
