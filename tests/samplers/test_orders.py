"""Order of convergence of every deterministic solver on the exact flow of a Gaussian, float64.

Truth: for data N(0, c I) the probability flow is x_s = x_t sqrt(v(s) / v(t)), v = alpha**2 c +
sigma**2. Levels are evenly spaced in log SNR and end in noise, so that nothing is clipped. Slopes
are log2 of the ratio of errors at K and 2 K steps; a multistep solver's first step is of first
order and adds a term that falls as h**2 times its own size, and leading terms of a Gaussian's flow
can cancel, hence the wider bounds above order 2.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import grids, samplers, schedules
from jaxdiff.samplers import sample
from jaxdiff.typing import Denoised, Grid

pytestmark = pytest.mark.usefixtures("strict", "x64")

C = 0.25
ROWS = {
    "ddim": (samplers.ddim(), 1),
    "euler": (samplers.euler(), 1),
    "dpm_solver-2": (samplers.dpm_solver(2), 2),
    "dpm_solver-3": (samplers.dpm_solver(3), 3),
    "dpm_solver_2m-midpoint": (samplers.dpm_solver_2m(), 2),
    "dpm_solver_2m-heun": (samplers.dpm_solver_2m("heun"), 2),
    "dpm_solver_3m": (samplers.dpm_solver_3m(), 3),
    "dpmpp_2s": (samplers.dpmpp_2s(), 2),
    "dpmpp_3s": (samplers.dpmpp_3s(), 3),
    "dpmpp_2m-midpoint": (samplers.dpmpp_2m(), 2),
    "dpmpp_2m-heun": (samplers.dpmpp_2m("heun"), 2),
    "dpmpp_3m-ported": (samplers.dpmpp_3m("ported"), 2),
    "dpmpp_3m-corrected": (samplers.dpmpp_3m("corrected"), 3),
    "unipc-1": (samplers.unipc(1), 2),
    "unipc-2-bh1": (samplers.unipc(2, "bh1"), 3),
    "unipc-2-bh2": (samplers.unipc(2, "bh2"), 3),
    "unipc-3": (samplers.unipc(3), 4),
    "unip-3": (samplers.unipc(3, corrector=False), 3),
    "unic-1-euler": (samplers.unic(samplers.euler(), 1), 2),
    "unic-2-2m": (samplers.unic(samplers.dpmpp_2m(), 2), 3),
    "unic-2-2s": (samplers.unic(samplers.dpmpp_2s(), 2), 3),
    "unic-3-deis": (samplers.unic(samplers.deis(3), 3), 4),
    "deis-2": (samplers.deis(2), 2),
    "deis-3": (samplers.deis(3), 3),
    "deis-3-log_rho": (samplers.deis(3, clock="log_rho"), 3),
    "lms-3": (samplers.lms(3), 3),
    "heun": (samplers.heun(), 2),
    "dpm2": (samplers.dpm2(), 2),
}


def gaussian(x, level):
    """The exact model of N(0, C I)."""
    v = level.alpha**2 * C + level.sigma**2
    return Denoised(level.alpha * C / v * x, level.sigma / v * x)


def error(sampler, steps, schedule, t_last):
    grid = grids.uniform_log_snr(schedule, steps, t_last=t_last, end=None)
    x_T = jnp.ones((1, 1))
    noise = jnp.zeros((steps, sampler.noises, 1, 1))
    x = sample(None, gaussian, grid, (1, 1), sampler=sampler, x_T=x_T, noise=noise)
    v = grid.levels.alpha**2 * C + grid.levels.sigma**2
    return abs(float(x[0, 0]) - float(jnp.sqrt(v[-1] / v[0])))


QUICK = {"ddim", "heun", "dpm2", "dpm_solver-3", "dpm_solver_3m", "dpmpp_2s", "dpmpp_2m-midpoint"}
QUICK |= {"dpmpp_3m-corrected", "unipc-2-bh2", "unipc-3", "unic-2-2m", "deis-3", "lms-3"}


@pytest.mark.parametrize(
    "row", [pytest.param(r, marks=[] if r in QUICK else [pytest.mark.slow]) for r in ROWS]
)
def test_order(row):
    sampler, order = ROWS[row]
    schedule = schedules.linear_vp()
    coarse, fine = (error(sampler, steps, schedule, 0.02) for steps in (64, 128))
    slope = np.log2(coarse / fine)
    assert order - 0.3 < slope, f"order {order} claimed, measured {slope:.2f}"
    assert slope < order + (0.3 if order < 3 else 1.2)


def test_the_ported_third_order_is_second():
    """What other libraries carry lacks a factor 2 in its second difference; ours names it."""
    schedule = schedules.linear_vp()
    errors = {
        form: [error(samplers.dpmpp_3m(form), n, schedule, 0.02) for n in (128, 256)]
        for form in ("ported", "corrected")
    }
    slopes = {form: np.log2(e[0] / e[1]) for form, e in errors.items()}
    assert 1.8 < slopes["ported"] < 2.2
    assert slopes["corrected"] > 2.7


@pytest.mark.parametrize("schedule", [schedules.linear_vp(), schedules.edm(0.01, 20.0)])
def test_limits(schedule):
    """DPM-Solver++(1), LMS(1), DEIS(1), UniP-1 and Euler without churn are all DDIM, to 1e-12."""
    grid = grids.karras(schedule, 12)
    x_T = jnp.linspace(-1, 1, 5)[:, None] * schedule.prior_std
    run = lambda sampler: sample(  # noqa: E731
        None, gaussian, grid, (5, 1), sampler=sampler, x_T=x_T,
        noise=jnp.zeros((12, sampler.noises, 5, 1)),
    )  # fmt: skip
    truth = run(samplers.ddim())
    same = [samplers.dpmpp_1s(), samplers.lms(1), samplers.deis(1), samplers.euler()]
    for sampler in [*same, samplers.unipc(1, corrector=False)]:
        np.testing.assert_allclose(run(sampler), truth, rtol=1e-10, atol=1e-12)
    # the SDE solver without noise is the ODE solver
    np.testing.assert_allclose(
        run(samplers.dpmpp_2m_sde(0.0)), run(samplers.dpmpp_2m()), rtol=1e-12, atol=1e-13
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "sampler",
    [
        samplers.dpmpp_2m_sde(),
        samplers.dpmpp_3m_sde(),
        samplers.dpm2_ancestral(),
        samplers.heun(s_churn=30.0),
    ],
    ids=["2m_sde", "3m_sde", "dpm2_ancestral", "heun_churn"],
)
def test_stochastic_solvers_keep_the_variance(sampler):
    """On N(0, c I) a sampler is linear in x_T and each noise: its variance, exactly, nears c.

    At 200 steps the weak error of these solvers is below 1 % of c; at 50 it is larger.
    """
    gaps = []
    for steps in (50, 200):
        grid = grids.karras(schedules.edm(0.002, 80.0), steps)
        run = lambda x, n, grid=grid: sample(  # noqa: E731
            None, gaussian, grid, x.shape, sampler=sampler, x_T=x, noise=n
        )
        of_start = 80.0 * run(jnp.ones((1, 1)), jnp.zeros((steps, 1, 1, 1)))
        of_noise = run(jnp.zeros((steps, 1)), jnp.eye(steps)[:, None, :, None])
        gaps.append(abs(float(jnp.sum(of_start**2) + jnp.sum(of_noise**2)) / C - 1))
    assert gaps[1] < 0.01
    assert gaps[1] < gaps[0]


@pytest.mark.slow
def test_warm_down_is_first_order_at_last():
    """With warm_down the last step into a noisy end is DDIM's, and the one before of order 2."""
    grid = grids.uniform_log_snr(schedules.linear_vp(), 8, t_last=0.02, end=None)
    x_T, shape = jnp.linspace(-1, 1, 5)[:, None], (5, 1)
    run = lambda s, **more: sample(None, gaussian, grid, shape, sampler=s, x_T=x_T, **more)  # noqa: E731
    tail = Grid(jax.tree.map(lambda a: a[-2:], grid.levels), grid.schedule)
    for make in (samplers.dpmpp_2m, samplers.dpmpp_3m, samplers.deis):
        path = run(make(warm_down=True), keep_path=True)
        last = sample(None, gaussian, tail, shape, sampler=samplers.ddim(), x_T=path[-2],
                      noise=jnp.zeros((1, 1, *shape)))  # fmt: skip
        np.testing.assert_allclose(path[-1], last, rtol=1e-12)
        usual = run(make(), keep_path=True)
        np.testing.assert_array_equal(path[:-2], usual[:-2])
        assert np.max(np.abs(path[-1] - usual[-1])) > 1e-6
    # the order of the step before the last: only there 3M with warm_down may differ from 3M
    path, usual = (run(samplers.dpmpp_3m(warm_down=w), keep_path=True) for w in (True, False))
    assert np.max(np.abs(path[-2] - usual[-2])) > 1e-7
    two = run(samplers.unipc(3, corrector=False, warm_down=True), keep_path=True)
    last = sample(None, gaussian, tail, shape, sampler=samplers.ddim(), x_T=two[-2],
                  noise=jnp.zeros((1, 1, *shape)))  # fmt: skip
    np.testing.assert_allclose(two[-1], last, rtol=1e-12)


def test_unipc_has_a_gradient_where_log_snr_is_zero():
    """Half-way on the rectified path, where alpha = sigma: central differences, to 1e-8."""
    grid = grids.uniform(schedules.rectified(), 4, t_first=0.5)
    f = lambda x: jnp.sum(sample(None, gaussian, grid, (2, 1), sampler=samplers.unipc(), x_T=x))  # noqa: E731
    x = jnp.array([[0.3], [-1.2]])
    slope = jax.grad(f)(x)
    truth = [(f(x + h) - f(x - h)) / 2e-5 for h in 1e-5 * jnp.eye(2)[:, :, None]]
    np.testing.assert_allclose(slope[:, 0], truth, rtol=1e-8)
