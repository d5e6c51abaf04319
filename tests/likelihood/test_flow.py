"""log p by the probability flow.

Truth: the closed form of a Gaussian with its prior mismatch, the exact density of mixtures,
central differences, and estimators that must agree within their own errors.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff as jd
from jaxdiff import models, sde
from jaxdiff.likelihood import exact, hutchinson, hutchpp, log_prob
from jaxdiff.samplers.adaptive import integrator
from tests.likelihood.mixture import ENTROPY, mixture

C = 0.25
PLANE = jd.exact.gaussian_mixture(
    jnp.array([0.3, 0.7]),
    jnp.array([[0.8, 0.0], [-0.6, 0.4]]),
    jnp.array([[[0.05, 0.03], [0.03, 0.08]], [[0.1, -0.04], [-0.04, 0.05]]]),
)
CASES = {"linear_vp": (jd.linear_vp(), 1e-5), "sub_vp": (jd.sub_vp(), 1e-3), "ve": (jd.ve(), 0.0)}


@pytest.mark.parametrize(
    "name", ["linear_vp", *(pytest.param(n, marks=pytest.mark.slow) for n in ("sub_vp", "ve"))]
)
def test_gaussian_to_a_ten_thousandth_nat(name, key):
    """N(0, c): at the start N(0, v(0)), and at the end the prior in place of N(0, v(1)).

    1e-4 nats, the tolerance of 1e-5 times two dimensions and some thirty steps; float32.
    """
    schedule, start = CASES[name]
    data = jd.exact.gaussian(jnp.zeros(2), C * jnp.eye(2))
    x = data.sample(key, 32)
    found = log_prob(None, data, x, schedule, start=start)
    first, last = (schedule(jnp.float32(t)) for t in (start, schedule.t_max))
    v0, v1 = (level.alpha**2 * C + level.sigma**2 for level in (first, last))
    x_T = first.alpha * x * jnp.sqrt(v1 / v0)
    own = -0.5 * jnp.log(2 * jnp.pi * v0) - 0.5 * (first.alpha * x) ** 2 / v0
    prior = schedule.prior_std**2
    mismatch = 0.5 * (jnp.log(v1 / prior) - x_T**2 * (1 / prior - 1 / v1))
    want = jnp.sum(own + mismatch + jnp.log(first.alpha), axis=1)
    np.testing.assert_allclose(found.per_example, want, atol=1e-4)


@pytest.mark.slow
def test_mixture_has_its_density_and_entropy(key):
    """4,000 draws: each example's log-density to 1e-2 nats (a variance of 1e-6 at the start, of the
    components' .01, counts 1e-4 of a square of some 20; the solver's tolerance, the rest), the mean
    to 1e-3 and, within its error, the entropy."""
    x = mixture().sample(key, 4000)
    found = log_prob(None, mixture(), x, jd.linear_vp(), start=1e-5)
    np.testing.assert_allclose(found.per_example, mixture().log_prob(x), atol=1e-2)
    np.testing.assert_allclose(found.mean, mixture().log_prob(x).mean(), atol=1e-3)
    low, high = found.interval(0.999)
    assert low < -ENTROPY < high
    assert float(found.errors.probes) == 0 == float(found.errors.dequantisation)


@pytest.mark.slow
def test_other_clocks_other_steps(key):
    """Sigma clock, a grid's own steps, an implicit solver: one number, to their tolerances."""
    x, schedule = PLANE.sample(key, 4), jd.linear_vp()
    want = PLANE.log_prob(x)
    times = jnp.linspace(1e-3, 1, 200)
    model, clock = sde.in_sigma_clock(PLANE, schedule)
    found = {
        "clock": log_prob(None, model, x, clock),
        "steps": log_prob(None, PLANE, x, schedule, how=integrator("heun", steps=times)),
    }
    for name, estimate in found.items():
        # at the start sigma**2 is 1e-4, of the narrowest direction's .03
        np.testing.assert_allclose(estimate.per_example, want, atol=0.03, err_msg=name)
    np.testing.assert_allclose(
        found["clock"].per_example, found["steps"].per_example, atol=2e-3
    )  # 200 steps of second order


@pytest.mark.slow
@pytest.mark.parametrize(
    "divergence",
    [
        hutchinson(32),
        pytest.param(hutchinson(32, "gaussian"), marks=pytest.mark.slow),
        pytest.param(hutchpp(1), marks=pytest.mark.slow),
        pytest.param(hutchpp(2), marks=pytest.mark.slow),
    ],
    ids=["rademacher", "gaussian", "hutchpp-1", "hutchpp-2"],
)
def test_probes_agree_with_the_exact_trace(divergence, key):
    x, schedule = PLANE.sample(key, 64), jd.linear_vp()
    want = log_prob(None, PLANE, x, schedule)
    found = log_prob(key, PLANE, x, schedule, divergence=divergence)
    error = float(found.errors.of_this_set)
    # with probes of full rank hutchpp is exact, and what is left the solver's tolerance
    assert abs(float(found.mean - want.mean)) < 4 * (error if error == error else 0.1) + 1e-3
    if divergence.values > 1 and divergence.values != 2:
        apart = np.asarray(found.values[:, 0] - want.values[:, 0])
        each = apart.std(axis=1, ddof=1) / divergence.values**0.5
        assert np.mean(np.abs(apart.mean(axis=1)) < 4 * each + 1e-3) > 0.9


def network(key, dims=3, width=16, dtype=jnp.float32):
    net = models.MLP(width=width)
    params = net.init(key, jnp.zeros((1, dims)), jnp.zeros(1))
    params = jax.tree.map(lambda a: a.astype(dtype) + 0.1, params)
    return jd.make_denoiser(net.apply, params, parametrization="v", time_feature="thousandths")


@pytest.mark.slow
@pytest.mark.parametrize("adjoint", ["checkpoint", "direct"])
def test_gradient_by_parameters(adjoint, key, x64):
    """Against a central difference along one direction, of the same eight steps."""
    x = jnp.linspace(-0.5, 0.5, 6).reshape(2, 3)
    denoiser = network(key, dtype=jnp.float64)
    direction = jax.tree.map(jnp.cos, denoiser.params)

    def value(shift, adjoint="direct"):
        moved = jax.tree.map(lambda p, d: p + shift * d, denoiser.params, direction)
        how = integrator("heun", steps=8, adjoint=adjoint)
        model = denoiser.with_params(moved)
        return log_prob(None, model, x, jd.linear_vp(), start=0.1, how=how).mean

    want = (value(1e-4) - value(-1e-4)) / 2e-4
    got = jax.grad(value)(0.0, adjoint)
    np.testing.assert_allclose(got, want, rtol=1e-6)  # h**2 = 1e-8, rounding 1e-16 over h


@pytest.mark.slow
def test_an_image_network_by_three_traces(key):
    net = models.UNet(channels=8, multipliers=(1, 2), blocks=1, attention=(), groups=4)
    x = jax.random.uniform(key, (8, 4, 4, 1), minval=-1.0)
    params = net.init(key, x, jnp.zeros(8))
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(key, p.shape), params)
    model = jd.make_denoiser(net.apply, params, parametrization="v", time_feature="thousandths")
    schedule, how = jd.linear_vp(), integrator("tsit5", rtol=1e-4, atol=1e-4)
    by = lambda divergence: log_prob(key, model, x, schedule, divergence=divergence, how=how)  # noqa: E731
    want = by(exact())
    for divergence in (hutchinson(64), hutchpp(5)):
        found = by(divergence)
        error = float(found.errors.of_this_set)
        assert 0 < error < 1
        assert abs(float(found.mean - want.mean)) < 4 * error + 1e-2


@pytest.mark.slow
def test_batches_change_nothing_but_steps(key):
    """Example i by (key, i): chunks agree to rounding where steps do."""
    x, schedule = PLANE.sample(key, 9), jd.linear_vp()
    how = {"divergence": hutchinson(3), "how": integrator("heun", steps=16)}
    whole = log_prob(key, PLANE, x, schedule, **how)
    keys = jd.samplers.example_keys(key, 5, first=4)
    part = log_prob(keys, PLANE, x[4:], schedule, **how)
    np.testing.assert_allclose(part.values, whole.values[4:], atol=1e-5)  # the same steps


@pytest.mark.slow
def test_jit_and_vmap(key):
    """A hundred schedules would be one program; here three."""
    x = PLANE.sample(key, 4)
    one = lambda beta: log_prob(None, PLANE, x, jd.linear_vp(0.1, beta), start=0.01).mean  # noqa: E731
    many = jax.jit(jax.vmap(one))(jnp.array([12.0, 16.0, 20.0]))
    np.testing.assert_allclose(many[1], one(16.0), atol=1e-4)


VP, X = jd.linear_vp(), jnp.array([[0.3, 0.1], [-0.5, 0.2]])
REFUSED = {
    "start must be a time with noise": lambda: log_prob(None, PLANE, X, VP, start=0.0),
    "x holds whole numbers": lambda: log_prob(None, PLANE, jnp.ones((2, 2), jnp.uint8), VP),
    "x must be float32 or float64, got bfloat16": lambda: log_prob(
        None, PLANE, X.astype("bfloat16"), VP
    ),
    "x must be finite": lambda: log_prob(None, PLANE, X.at[0].set(jnp.inf), VP),
    "x must have shape": lambda: log_prob(None, PLANE, X[:0], VP),
    "key must be given": lambda: log_prob(None, PLANE, X, VP, divergence=hutchinson()),
    "draws must be 1": lambda: log_prob(None, PLANE, X, VP, draws=3),
    "probes must be a whole number": lambda: hutchinson(0),
    "distribution must be rademacher or gaussian": lambda: hutchinson(2, "normal"),
    "start must lie below end": lambda: log_prob(
        None, PLANE, X, VP, how=integrator("heun", steps=jnp.linspace(1, 0.1, 5))
    ),
    "steps must end at t_max = 1": lambda: log_prob(
        None, PLANE, X, VP, how=integrator("heun", steps=jnp.linspace(0.1, 0.5, 5))
    ),
    "divergence must be one of": lambda: log_prob(None, PLANE, X, VP, divergence="trace"),
    "draws must be a whole number.* got 1.5": lambda: log_prob(None, PLANE, X, VP, draws=1.5),
}


@pytest.mark.parametrize("message", REFUSED)
def test_bad_input_is_named(message):
    with pytest.raises(ValueError, match=message):
        REFUSED[message]()


def test_a_failed_solve_is_named():
    how = integrator("bosh3", rtol=1e-12, atol=1e-12, max_steps=20)
    with pytest.raises(FloatingPointError, match=r"max_steps_reached|step_underflow"):
        log_prob(None, PLANE, X, VP, how=how)


def test_a_prior_narrower_than_the_data_is_warned_of():
    with pytest.warns(UserWarning, match=r"noise beyond the data's spread.*sigma_max"):
        log_prob(None, PLANE, X, jd.ve(0.01, 0.1), how=integrator("euler", steps=2))
