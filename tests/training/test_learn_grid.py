"""Learned grids on Gaussians, whose flow and best grids are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import exact, grids, samplers, schedules
from jaxdiff.samplers import ddim, dpmpp_2m, euler, sample
from jaxdiff.training import learn_grid, to_data, to_reference
from jaxdiff.training.learn_grid import from_gaps, gaps_of
from tests.battery import SCHEDULES
from tests.samplers.linear import moments

C = 0.25


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "cosine",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("linear_vp", "edm")),
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("rectified", "betas_linear")),
    ],
)
def test_gaps_give_the_grid_back(name, x64):
    """To the rounding of the schedule's inverse; and any gaps give levels in order."""
    schedule = SCHEDULES[name]
    for grid in (grids.uniform(schedule, 6), grids.uniform_log_snr(schedule, 5, end=None)):
        back = from_gaps(gaps_of(grid), grid)
        np.testing.assert_array_equal(
            back.levels.t[:: grid.num_steps], grid.levels.t[:: grid.num_steps]
        )
        # a last gap of 0 is raised to 1e-4 of the range, which shifts the others by as much
        np.testing.assert_allclose(back.levels.sigma, grid.levels.sigma, rtol=2e-2)
        assert back.num_steps == grid.num_steps
        noise = jax.random.normal(jax.random.key(0), gaps_of(grid).shape)
        anyhow = from_gaps(3 * noise, grid).levels
        assert np.all(np.diff(anyhow.log_snr[1:]) > 0)


@pytest.mark.slow
def test_reaches_the_best_two_steps(x64):
    """Two DDIM steps on N(0, C): the whole error is a function of one level, searched directly.

    DDIM on a Gaussian is x_s / x_t = (alpha_s A + sigma_s k), so a scan over 20,000 middles gives
    the best one; learned to 1 % of the least error.
    """
    schedule, model = schedules.linear_vp(), exact.gaussian(jnp.zeros(1), C * jnp.eye(1))
    grid = grids.uniform(schedule, 2)

    def gain(t):
        t, m = (schedule(a) for a in (jnp.asarray(1.0), t))
        v = lambda a: a.alpha**2 * C + a.sigma**2  # noqa: E731
        first = (m.alpha * t.alpha * C + m.sigma * t.sigma) / v(t)
        return first * m.alpha * C / v(m)

    start = schedule(jnp.asarray(1.0))
    truth = np.sqrt(C / float(start.alpha**2 * C + start.sigma**2))
    errors = np.square(gain(jnp.linspace(0.001, 0.999, 20_000)) - truth)
    objective = to_reference(
        jax.random.key(0), model.denoise, grids.uniform_log_snr(schedule, 400), (32, 1)
    )
    learned = learn_grid(
        jax.random.key(1), model.denoise, grid, (32, 1), objective,
        sampler=euler(), iterations=200, lr=0.1,
    )  # fmt: skip
    before, after = (float((gain(g.levels.t[1]) - truth) ** 2) for g in (grid, learned.grid))
    assert before > 2 * errors.min()
    assert after < 1.01 * errors.min()


@pytest.mark.slow
def test_learns_eta_where_the_small_variance_is_right(x64):
    """On N(0, C) a coarse DDIM has too little variance and DDPM's large variance too much: the
    eta that the energy distance prefers gives a variance nearer to C than either end."""
    model = exact.gaussian(jnp.zeros(1), jnp.eye(1))
    grid = grids.uniform(schedules.linear_vp(), 6)
    data = model.sample(jax.random.key(3), 4000)
    learned = learn_grid(
        jax.random.key(1), model.denoise, grid, (256, 1), to_data(data),
        sampler=ddim(0.5, "large"), also={"sampler.eta": (0.0, 1.0)}, iterations=150, lr=0.1,
    )  # fmt: skip
    of = lambda grid, s: abs(moments(model.denoise, grid, s, 1)[1][0, 0] - 1)  # noqa: E731
    assert of(learned.grid, learned.sampler) < 0.5 * of(grid, ddim(0.0))
    assert 0 < float(learned.numbers["sampler.eta"]) < 1
    assert float(learned.sampler.eta) == float(learned.numbers["sampler.eta"])


@pytest.mark.slow
def test_zero_terminal_snr_and_a_learned_grid_samples(key):
    """The first level of the cosine schedule has no signal: it stays, the rest moves."""
    schedule = schedules.cosine()
    model = exact.gaussian(jnp.zeros(2), C * jnp.eye(2))
    grid = grids.uniform(schedule, 4)
    fine = to_reference(key, model.denoise, grids.uniform(schedule, 100), (16, 2), batches=2)
    learned = learn_grid(key, model.denoise, grid, (16, 2), fine, iterations=20)
    assert float(learned.grid.levels.alpha[0]) == float(grid.levels.alpha[0])
    assert np.all(np.isfinite(learned.losses))
    x = sample(key, model.denoise, learned.grid, (8, 2), sampler=dpmpp_2m())
    assert np.all(np.isfinite(x))


def test_start_is_what_sample_draws(key):
    """Up to the rounding of one product."""
    grid = grids.uniform(schedules.edm(), 3)
    model = exact.gaussian(jnp.zeros(2), jnp.eye(2))
    path = sample(key, model.denoise, grid, (4, 2), sampler=euler(), keep_path=True)
    np.testing.assert_allclose(path[0], samplers.draw_start(key, grid, (4, 2)), rtol=3e-7)


MODEL = exact.gaussian(jnp.zeros(1), jnp.eye(1)).denoise
GRID = grids.uniform(schedules.linear_vp(), 3)


def learn(grid=GRID, **more):
    return learn_grid(jax.random.key(0), MODEL, grid, (2, 1), to_data(jnp.ones((3, 1))), **more)


CASES = {
    "no schedule": (
        lambda: learn(grids.from_levels(GRID.levels)),
        "grid must lie on a schedule",
    ),
    "one step": (lambda: learn(grids.uniform(schedules.linear_vp(), 1)), "two steps.*got 1"),
    "padded": (lambda: learn(grids.pad(GRID, 5)), "must not be padded"),
    "one example": (
        lambda: learn_grid(
            jax.random.key(0), MODEL, GRID, (1, 1), to_data(jnp.ones((3, 1))), iterations=1
        ),
        r"B >= 2.*got \[1, 1\]",
    ),
    "data of another shape": (
        lambda: learn_grid(
            jax.random.key(0), MODEL, GRID, (4, 1), to_data(jnp.ones((3, 2))), iterations=1
        ),
        r"examples \[2\].*got \[4, 1\]",
    ),
    "data in bytes": (lambda: to_data(np.ones((3, 2), np.uint8)), "x must be float.*uint8"),
    "no range": (
        lambda: learn(sampler=ddim(0.5), also={"sampler.eta": (0.5, 0.5)}),
        r"range of sampler\.eta must be finite and rise",
    ),
    "negative rate": (lambda: learn(lr=-1.0), "lr.*got -1"),
    "no batches": (
        lambda: to_reference(jax.random.key(0), MODEL, GRID, (2, 1), batches=0),
        "batches.*got 0",
    ),
    "what sample refuses": (
        lambda: learn(grids.uniform(schedules.cosine(), 4), sampler=samplers.heun()),
        "alpha = 0",
    ),
    "no iterations": (lambda: learn(iterations=0), "iterations.*got 0"),
    "unknown number": (
        lambda: learn(sampler=ddim(), also={"sampler.etta": (0, 1)}),
        r"sampler\.eta.*'sampler\.etta'",
    ),
    "number outside its range": (
        lambda: learn(sampler=ddim(0.9), also={"sampler.eta": (0, 0.5)}),
        r"sampler\.eta must be one number in \[0, 0\.5\]",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case):
    call, message = CASES[case]
    with pytest.raises(ValueError, match=message):
        call()
