"""Flow and SDEs by diffrax.

Truth: the exact flow and marginals of Gaussians and of a mixture, DDIM and Heun on fine grids,
finite differences, and Kolmogorov-Smirnov tests against the mixture's distribution.
"""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from scipy import stats

import jaxdiff as jd
from jaxdiff import sde
from jaxdiff.samplers import adaptive, heun
from jaxdiff.samplers.adaptive import integrator, simulate, solve_ode, solve_sde
from jaxdiff.schedules import cleanest_time

SCHEDULES = {
    "linear_vp": jd.linear_vp(),
    "sub_vp": jd.sub_vp(),
    "ve": jd.ve(),
    "edm": jd.edm(),
    "chain": jd.from_betas(jd.schedules.linear_betas(1000)),
}
C = 0.25
DATA = jd.exact.gaussian(jnp.zeros(2), C * jnp.eye(2))
QUICK = ("linear_vp",)


def some(names, quick=QUICK):
    """All of `names`, those that are not `quick` as slow tests."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


each_schedule = pytest.mark.parametrize("name", some(SCHEDULES))


def var(level):
    return level.alpha**2 * C + level.sigma**2


def exact_flow(x: Array, schedule, start, end) -> Array:
    """x(end) = x(start) sqrt(v(end) / v(start))."""
    return x * jnp.sqrt(var(schedule(end)) / var(schedule(start)))


def ends(schedule):
    return jnp.float32(schedule.t_max), jnp.float32(cleanest_time(schedule))


def start_of(schedule, key, shape=(8, 2)):
    return schedule.prior_std * jax.random.normal(key, shape)


@each_schedule
def test_flow_is_the_exact_one_both_ways(name, key):
    schedule = SCHEDULES[name]
    x_T = start_of(schedule, key)
    top, bottom = ends(schedule)
    found = solve_ode(DATA, schedule, x_T)
    # ten times the tolerance of 1e-5, as errors of some twenty steps add up; a chain's rate jumps
    # at whole numbers, for which smooth rules take a hundred steps that err by the tolerance
    # itself, 1e-5 (1 + |x|), and on one side: 3e-3, halved on the way to data, doubled back
    atol = 1.5e-3 if name == "chain" else 1e-4
    np.testing.assert_allclose(found.x, exact_flow(x_T, schedule, top, bottom), atol=atol)
    back = solve_ode(DATA, schedule, found.x, start=bottom, end=top)
    # the way back magnifies by as much, and on a chain adds an error of its own
    scale = max(1, float(schedule.prior_std) / 0.5) * (2 if name == "chain" else 1)
    np.testing.assert_allclose(back.x, x_T, atol=atol * scale)


ODE = ["dopri5", "dopri8", "bosh3", "heun", "midpoint", "kvaerno3", "kvaerno5"]


@pytest.mark.slow
@pytest.mark.parametrize("solver", ODE)
def test_every_solver_keeps_its_tolerance(solver, key):
    schedule = SCHEDULES["linear_vp"]
    x_T = start_of(schedule, key, (2, 2))
    found = solve_ode(DATA, schedule, x_T, how=integrator(solver, rtol=1e-4, atol=1e-4))
    want = exact_flow(x_T, schedule, *ends(schedule))
    np.testing.assert_allclose(found.x, want, atol=2e-3)  # as above


@pytest.mark.slow
def test_agrees_with_ddim_and_heun(key):
    """Each solves the flow by itself: DDIM to O(1/K), Heun's method to O(1/K**2)."""
    mixture = jd.exact.gaussian_mixture(
        jnp.array([0.3, 0.7]),
        jnp.array([[1.0, 0.0], [-1.0, 0.5]]),
        0.1 * jnp.stack([jnp.eye(2)] * 2),
    )
    schedule = SCHEDULES["linear_vp"]
    x_T = start_of(schedule, key, (32, 2))
    end = cleanest_time(schedule)
    found = solve_ode(mixture, schedule, x_T).x
    level = schedule(end)
    grid = jd.grids.uniform(schedule, 1000)
    # the grids end clean by Euler's step x0(x_end): take the same from the solver's end
    found = mixture(found, level).x0
    for sampler, tolerance in ((jd.ddim(), 2e-2), (heun(), 4e-3)):
        x = jd.sample(key, mixture, grid, (32, 2), sampler=sampler, x_T=x_T)
        error = float(jnp.sqrt(jnp.mean((x - found) ** 2)))
        assert error < tolerance, (sampler, error)


@pytest.mark.slow
def test_states_at_times_and_as_a_function(key):
    schedule = SCHEDULES["sub_vp"]
    x_T = start_of(schedule, key)
    times = jnp.array([0.9, 0.5, 0.1])
    how = integrator("tsit5", max_steps=128)
    found = solve_ode(DATA, schedule, x_T, times=times, how=how)
    path = solve_ode(DATA, schedule, x_T, dense=True, how=how).path
    for t, x in zip(times, found.x, strict=True):
        want = exact_flow(x_T, schedule, jnp.float32(1), t)
        np.testing.assert_allclose(x, want, atol=1e-3)  # interpolation is of fourth order
        np.testing.assert_allclose(path(t), want, atol=1e-3)


@pytest.mark.slow
def test_sigma_clock_has_the_same_flow(key):
    schedule = SCHEDULES["linear_vp"]
    x_T = start_of(schedule, key)
    model, clock = sde.in_sigma_clock(DATA, schedule)
    top, bottom = (schedule(t) for t in ends(schedule))
    found = solve_ode(model, clock, x_T / top.alpha)
    want = exact_flow(x_T, schedule, *ends(schedule))
    np.testing.assert_allclose(found.x * bottom.alpha, want, atol=3e-4)


@pytest.mark.slow
def test_latents_are_identifiable(key):
    """Two exact models of one distribution, one as a mixture of three equal parts: one latent."""
    other = jd.exact.gaussian_mixture(
        jnp.ones(3) / 3, jnp.zeros((3, 2)), C * jnp.stack([jnp.eye(2)] * 3)
    )
    schedule = SCHEDULES["linear_vp"]
    x = DATA.sample(key, 8)
    where = {"start": cleanest_time(schedule), "end": schedule.t_max}
    a, b = (solve_ode(model, schedule, x, **where).x for model in (DATA, other))
    np.testing.assert_allclose(a, b, atol=1e-4)  # the tolerance of each
    assert stats.kstest(np.asarray(a).ravel(), "norm").pvalue > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("adjoint", ["checkpoint", "direct", "backsolve"])
def test_gradients_by_every_adjoint(adjoint, x64):
    """Of an end state by beta_max: the exact flow's own derivative, float64."""
    x_T = jnp.linspace(0.5, 1.5, 4).reshape(2, 2)
    steps = 64 if adjoint == "direct" else None
    how = integrator("tsit5", rtol=1e-8, atol=1e-8, steps=steps, adjoint=adjoint)

    def end(beta_max):
        return solve_ode(DATA, jd.linear_vp(0.1, beta_max), x_T, end=0.3, how=how).x.sum()

    def exact(beta_max):
        return exact_flow(x_T, jd.linear_vp(0.1, beta_max), 1.0, 0.3).sum()

    want = jax.grad(exact)(12.0)
    assert abs(want) > 1e-3
    np.testing.assert_allclose(jax.grad(end)(12.0), want, rtol=1e-6)  # the solver's tolerance
    if adjoint == "direct":
        forward = jax.jvp(end, (12.0,), (1.0,))[1]
        np.testing.assert_allclose(forward, want, rtol=1e-6)


def test_vmaps_over_tolerances_and_schedules(key):
    x_T = start_of(SCHEDULES["linear_vp"], key)
    tolerances = jnp.array([1e-2, 1e-3, 1e-5])
    solve = lambda tol, beta: solve_ode(  # noqa: E731
        DATA, jd.linear_vp(0.1, beta), x_T, how=integrator("tsit5", rtol=tol, atol=tol)
    )
    found = jax.jit(jax.vmap(solve))(tolerances, jnp.array([20.0, 20.0, 15.0]))
    assert np.all(np.diff(found.steps[:2]) > 0), "a smaller tolerance takes more steps"
    assert np.all(found.status == 0)
    want = solve(tolerances[2], 15.0)
    np.testing.assert_allclose(found.x[2], want.x, atol=1e-5)


def test_one_compile_for_one_shape(key):
    schedule, x_T = SCHEDULES["linear_vp"], start_of(SCHEDULES["linear_vp"], key)
    solve_ode(DATA, schedule, x_T)
    before = adaptive._ode._cache_size()
    solve_ode(DATA, jd.linear_vp(0.2, 15.0), 2 * x_T, end=0.01, how=integrator(rtol=1e-3))
    assert adaptive._ode._cache_size() == before


@pytest.mark.parametrize("solver", some(["euler", "heun", "tsit5"], ["tsit5"]))
def test_calls_are_counted(solver):
    """Of explicit methods: the model itself counts."""
    calls = []

    def model(x, level):
        jax.debug.callback(lambda: calls.append(1))
        return jd.Denoised(0 * x, x)

    found = solve_ode(model, jd.edm(), jnp.ones((1, 2)), how=integrator(solver, steps=5))
    jax.effects_barrier()
    assert len(calls) == int(found.calls)


MIXTURE = jd.exact.gaussian_mixture(
    jnp.array([0.5, 0.5]), jnp.array([[-0.7], [0.7]]), jnp.full((2, 1, 1), 0.01)
)


def distribution(x):
    return 0.5 * stats.norm.cdf(x, -0.7, 0.1) + 0.5 * stats.norm.cdf(x, 0.7, 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["linear_vp", "sub_vp", "ve"])
def test_flow_draws_the_mixture(name, key):
    schedule = SCHEDULES[name]
    x = solve_ode(MIXTURE, schedule, start_of(schedule, key, (20000, 1)))
    assert stats.kstest(np.asarray(x.x[:, 0]), distribution).pvalue > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", ["linear_vp", "sub_vp", "ve"])
def test_reverse_sde_draws_the_mixture_better_with_steps(name, key):
    schedule, distance = SCHEDULES[name], []
    for steps in (10, 100, 1000):
        x = solve_sde(key, MIXTURE, schedule, (20000, 1), how=integrator("euler", steps=steps)).x
        distance.append(stats.kstest(np.asarray(x[:, 0]), distribution).statistic)
    assert distance[2] < 0.02
    # of the mixture itself 20,000 draws have .0087 at most, 19 times of 20
    assert distance[0] > distance[1] > distance[2] - 0.0087, distance


SDE = ["euler", "sra1", "shark", "sea", "heun", "euler_heun"]


@pytest.mark.slow
@pytest.mark.parametrize("solver", SDE)
def test_every_sde_solver_ends_with_the_data_s_variance(solver, key):
    """2,000 draws know a deviation to 1.6 %; three of that, and Euler's 1 / K besides."""
    schedule = SCHEDULES["linear_vp"]
    x = solve_sde(key, DATA, schedule, (1000, 2), how=integrator(solver, steps=64)).x
    np.testing.assert_allclose(x.std(), C**0.5, rtol=0.08)


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["heun", "sra1", "shark"])
def test_adaptive_sde(solver, key):
    schedule = SCHEDULES["linear_vp"]
    how = integrator(solver, rtol=1e-2, atol=1e-2)
    found = solve_sde(key, DATA, schedule, (1000, 2), how=how)
    np.testing.assert_allclose(found.x.std(), C**0.5, rtol=0.05)  # three errors of 2,000 draws
    assert 10 < int(found.steps) < 500


@pytest.mark.slow
def test_paths_refine_and_know_only_their_key(key):
    """Additive noise: Euler's strong order is 1 on one path; other examples change nothing."""
    schedule = SCHEDULES["linear_vp"]

    def solve(n, steps):
        return solve_sde(key, DATA, schedule, (n, 2), how=integrator("euler", steps=steps)).x

    fine = solve(32, 512)
    errors = [float(jnp.sqrt(jnp.mean((solve(32, k) - fine) ** 2))) for k in (16, 64)]
    assert errors[0] > 2.5 * errors[1], errors
    np.testing.assert_allclose(solve(5, 16), solve(32, 16)[:5], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", some(["linear_vp", "sub_vp", "ve"], ["sub_vp"]))
def test_forward_sde_has_the_schedule_s_marginals(name, key):
    """From one point: mean and deviation by Euler, against alpha and sigma.

    1,000 draws know the deviation to 2.2 %, the mean to 3.2 % of it; Euler errs by 1 / 100.
    """
    schedule = SCHEDULES[name]
    first = schedule(jnp.float32(0))
    x = jnp.full((1000, 1), 0.8)
    times = jnp.array([0.25, 0.5, 1.0])
    found = simulate(key, schedule, x, how=integrator("euler", steps=100), times=times)
    for t, x_t in zip(times, found.x, strict=True):
        level = schedule(t)
        std = jnp.sqrt(level.sigma**2 - (level.alpha * first.sigma) ** 2)
        np.testing.assert_allclose(x_t.std(), std, rtol=0.08)
        assert abs(float(x_t.mean() - 0.8 * level.alpha)) < 0.1 * float(std) + 8e-3


@pytest.mark.slow
def test_no_noise_is_the_flow_and_gradients_go_through_noise(key):
    """lam = 0 is Euler on the flow; a gradient by lam is a central difference's."""
    schedule, shape = SCHEDULES["linear_vp"], (8, 2)
    how = integrator("euler", steps=16)
    end = lambda lam: solve_sde(key, DATA, schedule, shape, lam=lam, how=how).x  # noqa: E731
    x_T = jd.samplers.draw_start(key, jd.grids.uniform(schedule, 1), shape)
    flow = solve_ode(DATA, schedule, x_T, how=how).x
    np.testing.assert_allclose(end(0.0), flow, atol=1e-5)  # one walk by two programs
    got = jax.grad(lambda lam: end(lam).std())(0.5)
    want = (end(0.51).std() - end(0.49).std()) / 0.02
    np.testing.assert_allclose(got, want, rtol=0.02)  # h**2, and float32 over h


@pytest.mark.slow
@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_every_one_of_the_family_keeps_the_marginal(lam, key):
    """2,000 draws know a deviation to 1.6 %."""
    how = integrator("euler", steps=200)
    x = solve_sde(key, DATA, SCHEDULES["linear_vp"], (1000, 2), lam=lam, how=how).x
    np.testing.assert_allclose(x.std(), C**0.5, rtol=0.06)


def nan_model(x, level):
    return jd.Denoised(x * jnp.nan, x)


FAILURES = {
    "max_steps_reached": lambda x: solve_ode(DATA, jd.linear_vp(), x, how=integrator(max_steps=3)),
    "step_underflow": lambda x: solve_ode(nan_model, jd.linear_vp(), x),
    "not_finite": lambda x: solve_ode(nan_model, jd.linear_vp(), x, how=integrator(steps=4)),
}


@pytest.mark.parametrize("status", FAILURES)
def test_failures_are_named(status):
    with pytest.raises(FloatingPointError, match=f"solver status {status}"):
        FAILURES[status](jnp.ones((2, 2)))


def test_a_tolerance_too_tight_is_named():
    how = integrator("tsit5", rtol=1e-14, atol=1e-14, max_steps=200)
    with pytest.raises(FloatingPointError, match=r"max_steps_reached|step_underflow"):
        solve_ode(DATA, jd.linear_vp(), jnp.ones((2, 2)), how=how)


def test_under_jit_a_failure_is_a_status_and_nan():
    found = jax.jit(FAILURES["max_steps_reached"])(jnp.ones((2, 2)))
    assert int(found.status) == adaptive.Status.MAX_STEPS_REACHED
    assert np.isnan(found.x).all(), "what was reached by then is no answer"
    with pytest.raises(FloatingPointError, match="max_steps_reached"):
        found.check()


VP, X = jd.linear_vp(), jnp.ones((2, 2))
REFUSED = {
    "end must be a time with noise": lambda: solve_ode(DATA, VP, X, end=0.0),
    r"start must lie in \[0, 1\]": lambda: solve_ode(DATA, VP, X, start=1.5),
    "start and end must differ": lambda: solve_ode(DATA, VP, X, start=0.5, end=0.5),
    "x must be float32 or float64, got float16": lambda: solve_ode(DATA, VP, X.astype("float16")),
    "x must be finite": lambda: solve_ode(DATA, VP, X.at[0, 0].set(jnp.nan)),
    "x must be a batch": lambda: solve_ode(DATA, VP, jnp.ones((0, 2))),
    "in that order": lambda: solve_ode(DATA, VP, X, times=jnp.array([0.1, 0.5])),
    "solver must be one of": lambda: solve_ode(DATA, VP, X, how=integrator("rk45")),
    "solver must be one of .* here, got 'sra1'": lambda: solve_ode(
        DATA, VP, X, how=integrator("sra1")
    ),
    "solver euler has no error estimate": lambda: solve_ode(DATA, VP, X, how=integrator("euler")),
    "rtol must lie in": lambda: integrator(rtol=0.0),
    "steps must lie in": lambda: integrator(steps=0),
    "steps must all rise or all fall": lambda: integrator(steps=jnp.array([1.0, 0.5, 0.7])),
    "end must be that of steps": lambda: solve_ode(
        DATA, VP, X, end=0.2, how=integrator("heun", steps=jnp.array([1.0, 0.5, 0.1]))
    ),
    "adjoint direct is for fixed steps": lambda: integrator(adjoint="direct"),
    "adjoint must be one of": lambda: integrator(adjoint="reverse"),
    r"lam must lie in \[0, 1\]": lambda: solve_sde(jax.random.key(0), DATA, VP, (2, 2), lam=1.5),
    "start must lie above end": lambda: solve_sde(
        jax.random.key(0), DATA, VP, (2, 2), start=0.1, end=1.0
    ),
    "start must lie below end": lambda: simulate(jax.random.key(0), VP, X, start=1.0, end=0.1),
    "denoise must return x0 as": lambda: solve_ode(
        lambda x, level: jd.Denoised(x[:, :1], x), VP, X
    ),
    "steps must be a whole number": lambda: integrator(steps=2.7),
    "solver KenCarp5 is for fields in two parts": lambda: integrator(diffrax.KenCarp5()),
    "solver Euler has no error estimate": lambda: solve_ode(
        DATA, VP, X, how=integrator(diffrax.Euler())
    ),
    "start must be a time with signal": lambda: solve_sde(
        jax.random.key(0), DATA, jd.cosine(), (2, 2)
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_bad_input_is_named(message):
    with pytest.raises(ValueError, match=message):
        REFUSED[message]()


def test_a_class_is_no_solver():
    with pytest.raises(TypeError, match="solver must be a name or a solver of diffrax"):
        integrator(diffrax.Tsit5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rectified", "shifted_rectified", "shifted_cosine"])
def test_heun_keeps_its_order_from_no_signal(name, x64):
    """The flow begins at alpha = 0, where slopes must be those of the path: error / 4 by halving.

    Not of chains, whose slope jumps at whole numbers: there every solver is of first order.
    """
    schedule = {
        "rectified": jd.rectified(),
        "shifted_rectified": jd.shifted(jd.rectified(), 3.0),
        "shifted_cosine": jd.shifted(jd.cosine(), 0.25),
    }[name]
    x_T = jnp.array([[0.5, -1.0]])
    end = 0.3
    want = x_T * jnp.sqrt(var(schedule(end)) / var(schedule(jnp.asarray(schedule.t_max))))
    errors = []
    for steps in (20, 40, 80):
        found = solve_ode(DATA, schedule, x_T, end=end, how=integrator("heun", steps=steps))
        errors.append(float(jnp.max(jnp.abs(found.x - want))))
    assert errors[0] > 3.4 * errors[1] > 3.4 * 3.4 * errors[2], errors


def test_clocks_that_begin_below_zero(key):
    """VE in the clock log sigma."""
    schedule = jd.schedules.from_path(jnp.ones_like, jnp.exp, t_min=-4.0, t_max=3.0)
    x_T = start_of(schedule, key, (2, 2))
    found = solve_ode(DATA, schedule, x_T)
    want = exact_flow(x_T, schedule, jnp.float32(3), jnp.float32(-4))
    np.testing.assert_allclose(found.x, want, atol=2e-4)  # as above


@pytest.mark.slow
def test_any_solver_of_diffrax_will_do(key):
    """Ito-Milstein on additive noise is Euler-Maruyama."""
    schedule = SCHEDULES["linear_vp"]

    def solve(solver):
        return solve_sde(key, DATA, schedule, (3, 2), how=integrator(solver, steps=20)).x

    np.testing.assert_allclose(solve(diffrax.ItoMilstein()), solve("euler"), atol=1e-6)
