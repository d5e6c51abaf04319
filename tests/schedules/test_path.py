"""Truth: the closed forms of VP, sub-VP and VE, whose two functions are given by hand here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import arrays, grids, schedules, sde
from tests import battery

pytestmark = pytest.mark.usefixtures("strict")


@arrays.pytree
class Decay:
    """alpha = exp(-rate t**2), with the rate a leaf."""

    rate: jax.Array

    def __call__(self, t):
        return jnp.exp(-self.rate * t**2)


@arrays.pytree
class Rise:
    """The variance-preserving sigma beside it."""

    rate: jax.Array

    def __call__(self, t):
        return arrays.safe_sqrt(-jnp.expm1(-2 * self.rate * t**2))


def integral(t):
    return 0.1 * t + 9.95 * t**2


OWN = {
    "linear_vp": schedules.from_path(
        lambda t: jnp.exp(-integral(t) / 2), lambda t: jnp.sqrt(-jnp.expm1(-integral(t)))
    ),
    "sub_vp": schedules.from_path(
        lambda t: jnp.exp(-integral(t) / 2), lambda t: -jnp.expm1(-integral(t))
    ),
    "ve": schedules.from_path(lambda t: 1.0, lambda t: 0.01 * 5000**t),
    "edm": schedules.from_path(lambda t: 1.0, lambda t: t, t_min=0.002, t_max=80.0),
    "rectified": schedules.from_path(lambda t: 1 - t, lambda t: t),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", OWN)
def test_a_path_by_hand_is_the_schedule_of_that_name(name):
    own, named = OWN[name], battery.SCHEDULES[name]
    low, high = float(named.t_min), float(named.t_max)
    assert (own.t_min, own.t_max) == (low, high)
    t = jnp.asarray(low + (high - low) * np.asarray([1e-3, 0.02, 0.3, 0.7, 0.999]))
    level, wanted = own(t), named(t)
    np.testing.assert_allclose(level.alpha, wanted.alpha, rtol=1e-13)
    np.testing.assert_allclose(level.sigma, wanted.sigma, rtol=1e-13)
    for ours, closed in zip(sde.coefficients(own, t), sde.coefficients(named, t), strict=True):
        np.testing.assert_allclose(ours, closed, rtol=1e-10)
    np.testing.assert_allclose(jax.jit(own.time)(wanted.log_snr), t, rtol=1e-11)
    # they end where sampling begins
    assert float(own.prior_std) == pytest.approx(float(named.prior_std), rel=1e-4)


@pytest.mark.usefixtures("x64")
def test_time_beyond_the_path_is_its_nearest_end():
    time = jax.jit(OWN["linear_vp"].time)
    ends = time(jnp.asarray([np.inf, 200.0, -30.0, -np.inf]))
    np.testing.assert_allclose(ends, [0, 0, 1, 1], atol=1e-30)
    assert np.isnan(time(np.nan))
    assert time(0.3).shape == ()
    tiny = time(schedules.linear_vp()(1e-12).log_snr)
    np.testing.assert_allclose(tiny, 1e-12, rtol=1e-9)  # small times keep their digits


def inverse(rate, log_snr):
    return schedules.from_path(Decay(rate), Rise(rate)).time(log_snr)


def closed_inverse(rate, log_snr):
    """exp(-2 rate t**2) = sigmoid(log_snr)."""
    return jnp.sqrt(-jax.nn.log_sigmoid(log_snr) / (2 * rate))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "derivative", [jax.grad, pytest.param(jax.hessian, marks=pytest.mark.slow)]
)
def test_derivatives_of_the_inverse_are_those_of_its_closed_form(derivative):
    at = jnp.asarray([5.0, 1.3])
    ours, wanted = (
        jax.jit(derivative(lambda v, f=f: f(*v)))(at) for f in (inverse, closed_inverse)
    )
    np.testing.assert_allclose(ours, wanted, rtol=1e-10)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_gradients_of_the_inverse_equal_differences_and_vanish_beyond_the_path():
    slope = jax.jit(jax.grad(inverse, (0, 1)))
    both = jnp.asarray(5.0), jnp.asarray(1.3)
    battery.assert_gradients(jax.jit(inverse), slope, both)
    for beyond in (np.inf, -500.0):  # at the ends nothing moves and nothing is NaN
        assert slope(both[0], jnp.asarray(beyond)) == (0, 0)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_a_plain_function_may_close_over_a_traced_number():
    slope = jax.jit(jax.grad(lambda rate: battery.ddpm_limit(rate).time(1.3)))(5.0)
    np.testing.assert_allclose(slope, jax.grad(closed_inverse)(5.0, 1.3), rtol=1e-10)


@pytest.mark.slow
def test_vmap_over_paths_equals_a_loop():
    rates, log_snr = jnp.asarray([3.0, 5.0, 8.0]), jnp.asarray([-2.0, 1.3])
    alone = jax.jit(inverse)
    together = jax.jit(jax.vmap(inverse, (0, None)))(rates, log_snr)
    assert together.dtype == jnp.float32
    for i, rate in enumerate(rates):
        np.testing.assert_allclose(together[i], alone(rate, log_snr), rtol=1e-5)


@pytest.mark.slow
def test_a_grid_is_spaced_on_it_and_a_second_path_does_not_recompile():
    grid = grids.uniform_log_snr(schedules.from_path(Decay(5.0), Rise(5.0)), 6)
    steps = np.diff(grid.levels.log_snr[:-1])
    np.testing.assert_allclose(steps, np.full(5, steps[0]), rtol=1e-3)  # float32 log SNR of 10
    traced = []

    @jax.jit
    def total(schedule):
        traced.append(None)
        return jnp.sum(schedule(jnp.asarray([0.2, 0.8])).sigma)

    for rate in (5.0, 6.0):
        total(schedules.from_path(Decay(rate), Rise(rate)))
    assert len(traced) == 1


def test_the_prior_follows_the_path_unless_given():
    assert schedules.from_path(lambda t: 1.0, lambda t: 3 * t).prior_std == 3
    assert schedules.from_path(lambda t: 1.0, lambda t: 3 * t, prior_std=3.2).prior_std == 3.2
    by_rate = jax.jit(jax.grad(lambda r: schedules.from_path(Decay(r), Rise(r)).prior_std))(1.0)
    end = np.exp(-2.0)
    assert float(by_rate) == pytest.approx(end / np.sqrt(1 - end), rel=1e-5)


def bump(t):
    return 0.2 + t - 0.6 * jnp.exp(-1000 * (t - 0.5) ** 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.from_path(lambda t: 1.0, bump), r"must grow with t, got 0\..* at t = 0"),
        (lambda: schedules.from_path(lambda t: 1.0, lambda t: 0.5), "must grow with t, got 0.5"),
        (lambda: schedules.from_path(lambda t: 1 + t, lambda t: t**0.25), "must grow"),
        (lambda: schedules.from_path(lambda t: t, lambda t: t**2), r"alpha\(t_min\)"),
        (lambda: schedules.from_path(lambda t: 0.5 - t, lambda t: t), r"alpha\(t\) .* got -0"),
        (lambda: schedules.from_path(lambda t: 1.0, lambda t: t - 0.1), r"sigma\(t\) .* at t = 0"),
        (lambda: schedules.from_path(lambda t: 1.0, lambda t: 1 / (1 - t)), r"sigma\(t\).*inf"),
        (lambda: schedules.from_path(lambda t: jnp.log(t), lambda t: t), r"alpha\(t\).*-inf"),
        (lambda: schedules.from_path(lambda t: 1.0, lambda t: t, t_min=1.0), "t_min must lie"),
        (lambda: schedules.from_path(lambda t: 1.0, lambda t: t, t_max=np.nan), "t_min must lie"),
        (lambda: schedules.from_path(lambda t: 1.0, lambda t: t, prior_std=0.0), "prior_std"),
        (lambda: OWN["rectified"](1.01), "t must lie in"),
        (lambda: OWN["edm"](0.001), "t must lie in"),
    ],
)
def test_bad_paths_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_no_function_is_refused():
    with pytest.raises(TypeError, match="function"):
        schedules.from_path(1.0, lambda t: t)
