"""Where diffusers (0.42) is wrong or cannot go: their value, and the truth that ours meets.

Truth: closed forms of Gaussian data and of an x0 that is a function of the log-SNR alone. Skipped
unless diffusers is there: `pip install jaxdiff[parity]`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("diffusers")

import torch

from jaxdiff import grids, samplers, schedules
from jaxdiff.samplers import sample
from jaxdiff.typing import Denoised, Grid, NoiseLevel
from tests.samplers import replay

pytestmark = [
    pytest.mark.usefixtures("x64", "double"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]

double = replay.double
C = 0.25
SDE_3 = {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}


def chain():
    return schedules.from_betas(schedules.linear_betas())


def gaussian(x, level):
    """The exact model of N(0, C I)."""
    v = level.alpha**2 * C + level.sigma**2
    return Denoised(level.alpha * C / v * x, level.sigma / v * x)


def their_gaussian(scheduler):
    bar = scheduler.alphas_cumprod
    return lambda x, t: x * (1 - bar[int(t)]) ** 0.5 / (bar[int(t)] * C + 1 - bar[int(t)])


def test_ddim_on_linspace_steps_past_its_own_timesteps(monkeypatch):
    """Theirs steps to t - N // K, while the next timestep is (N - 1) / (K - 1) away.

    The state then holds other noise than the network is told. Truth: x_0 = x_T sqrt(v_0 / v_T) on
    N(0, C I), which a first-order method nears as 1 / K: at 600 steps 0.5 % are missing, theirs is
    32 % off. (In short runs the noise left over makes up for some of what that method misses.)
    Known to them: issues 11347 and 12633.
    """
    count = 600
    source = replay.wide(monkeypatch, "DDIM")
    scheduler = replay.make("DDIM", count, timestep_spacing="linspace")
    path = replay.step_through(
        scheduler,
        source,
        np.ones((1, 1)),
        np.zeros((count, 1, 1)),
        model=their_gaussian(scheduler),
    )
    schedule = chain()
    wrong = grids.from_steps(schedule, [1000, 1000 - 1000 // count], end=None)
    grid = grids.linspace(schedule, count)
    assert grid.levels.t[1] == 998 != wrong.levels.t[1]
    run = lambda grid: sample(  # noqa: E731
        None, gaussian, grid, (1, 1), x_T=jnp.ones((1, 1)),
        noise=jnp.zeros((grid.num_steps, 1, 1, 1)),
    )  # fmt: skip
    np.testing.assert_allclose(path[1], run(wrong), rtol=1e-12)
    v = schedule(1000.0).alpha ** 2 * C + schedule(1000.0).sigma ** 2
    truth = jnp.sqrt(C / v)
    theirs, ours = (abs(float(x[0, 0] / truth) - 1) for x in (path[-1], run(grid)))
    assert ours < 0.006
    assert theirs > 0.3


def test_trailing_may_have_a_step_too_many():
    """np.arange(1000, 0, -1000 / K) has K + 1 entries for 62 of K = 1..1000, and ends at -1.

    That is taken for an index from the end: the noisiest level.
    """
    scheduler = replay.make("DDIM", 61, timestep_spacing="trailing")
    assert len(scheduler.timesteps) == 62
    assert scheduler.timesteps[-1] == -1
    grid = grids.trailing(chain(), 61)
    assert grid.num_steps == 61
    np.testing.assert_array_equal(scheduler.timesteps[:-1], grid.levels.t[:-1] - 1)


def test_linspace_of_one_step_begins_at_the_clean_end():
    """np.linspace(0, 999, 1) is 0, where pure noise is taken for almost clean data."""
    assert replay.make("DDPM", 1, timestep_spacing="linspace").timesteps.tolist() == [0]
    assert grids.linspace(chain(), 1).levels.t.tolist() == [1000, 0]


def test_karras_without_a_clean_end_repeats_its_last_level():
    """A model call for a step of no length; ours takes K steps in K calls."""
    for name, config in (("DEIS", {}), ("DPMSolverMultistep", {"final_sigmas_type": "sigma_min"})):
        scheduler = replay.make(name, 10, use_karras_sigmas=True, **config)
        assert scheduler.sigmas[-1] == scheduler.sigmas[-2]
    levels = grids.karras(chain(), 10, end=None).levels
    assert jnp.all(jnp.diff(levels.sigma) < 0)


def test_first_level_is_searched_by_a_rounded_timestep():
    """Cosine betas with Karras spacing: two levels have timestep 999, and theirs begins with the
    second, so that the last step has no level to go to."""
    scheduler = replay.make("DEIS", 10, use_karras_sigmas=True, beta_schedule="squaredcos_cap_v2")
    assert scheduler.timesteps[0] == scheduler.timesteps[1]
    x = torch.ones(1, 1)
    scheduler.step(x, scheduler.timesteps[0], x)
    assert scheduler.step_index == 2
    t = grids.karras(schedules.from_betas(schedules.cosine_betas()), 10).levels.t
    assert jnp.all(jnp.diff(t) < 0)


# -- the third-order SDE solver


class Drift:
    """x0 = sin(lam), whatever x: then z = x / alpha has z' = 2 (sin(lam) - z) in the mean,

    z = (4 sin(lam) - 2 cos(lam)) / 5 + c exp(-2 lam)
    """

    def __init__(self, count):
        self.lam = np.linspace(-6, 2, count + 1)
        rho = np.exp(-self.lam)
        alpha = 1 / np.sqrt(1 + rho**2)
        self.levels = NoiseLevel(*(jnp.asarray(a) for a in (rho, alpha, rho * alpha)))
        self.particular = (4 * np.sin(self.lam) - 2 * np.cos(self.lam)) / 5
        self.start = np.full((1, 1, 1), alpha[0] * self.particular[0])  # c = 0

    def theirs(self, monkeypatch):
        source = replay.wide(monkeypatch, "DPMSolverMultistep")
        scheduler = replay.make(
            "DPMSolverMultistep",
            len(self.lam) - 1,
            **SDE_3,
            prediction_type="sample",
            lower_order_final=False,
            final_sigmas_type="sigma_min",
        )
        scheduler.sigmas = torch.from_numpy(np.exp(-self.lam))
        replay.begin(scheduler)
        lam = iter(self.lam)
        model = lambda x, t: torch.full_like(x, np.sin(next(lam)))  # noqa: E731
        nothing = np.zeros((len(self.lam), 1, 1, 1))
        return np.ravel(replay.step_through(scheduler, source, self.start, nothing, model=model))

    def ours(self, form):
        def denoise(x, level):
            x0 = jnp.full_like(x, 1) * jnp.sin(level.log_snr / 2)
            return Denoised(x0, (x - level.alpha * x0) / level.sigma)

        path = sample(
            None,
            denoise,
            Grid(self.levels),
            (1, 1, 1),
            sampler=samplers.dpmpp_3m_sde(form=form),
            x_T=jnp.asarray(self.start),
            noise=jnp.zeros((len(self.lam) - 1, 1, 1, 1, 1)),
            keep_path=True,
        )
        return np.ravel(path)

    def error(self, path):
        return abs(path[-1] / self.levels.alpha[-1] - self.particular[-1])


def test_third_order_sde_has_a_wrong_sign(monkeypatch):
    """sde-dpmsolver++ of order 3: the weight of D2 is w - 1/2 where it should be w + 1/2, with
    w = (1 - exp(-2 h) - 2 h) / (2 h)**2, so it nears -1 instead of 0 for short steps.

    Where it is first taken (step 2) theirs is ours as ported less alpha D2, exactly; so it is of
    first order. Came with pull request 9104.
    """
    drift = Drift(32)
    theirs, ported = drift.theirs(monkeypatch), drift.ours("ported")
    np.testing.assert_allclose(theirs[:3], ported[:3], rtol=1e-12)
    a, b, c = np.sin(drift.lam[2::-1])
    d2 = ((a - b) - (b - c)) / 2  # h = h_0 = h_1
    np.testing.assert_allclose(theirs[3], ported[3] - drift.levels.alpha[3] * d2, rtol=1e-11)


def test_third_order_sde_by_slopes(monkeypatch):
    """Errors of the mean at 64 and 128 steps: order 1 theirs, 2 as ported, 3 corrected.

    The first-order first step leaves h**2 exp(-16), nothing beside them.
    """
    drifts = [Drift(count) for count in (64, 128)]
    with monkeypatch.context() as patch:
        errors = {"theirs": [d.error(d.theirs(patch)) for d in drifts]}
    for form in ("ported", "corrected"):
        errors[form] = [d.error(d.ours(form)) for d in drifts]
    slopes = {name: np.log2(e[0] / e[1]) for name, e in errors.items()}
    assert slopes["theirs"] < 1.2, slopes
    assert 1.7 < slopes["ported"] < 2.3, slopes
    assert slopes["corrected"] > 2.7, slopes
    assert errors["theirs"][1] > 20 * errors["ported"][1]


@pytest.mark.parametrize("name", ["DPMSolverMultistep", "EDMDPMSolverMultistep"])
def test_third_order_sde_fails_where_no_branch_is(monkeypatch, name):
    """sde-dpmsolver of order 3, and sde-dpmsolver++ of order 3 on EDM's levels."""
    config = SDE_3 if name.startswith("EDM") else {**SDE_3, "algorithm_type": "sde-dpmsolver"}
    source = replay.wide(monkeypatch, name)
    scheduler = replay.make(name, 10, **config, final_sigmas_type="sigma_min")
    grid = replay.grid_of(scheduler)
    sampler = samplers.dpmpp_3m_sde()
    path, x_T, noise = replay.ours(scheduler, sampler, grid)
    with pytest.raises(UnboundLocalError):
        replay.theirs(scheduler, source, grid, x_T, noise)
    assert np.all(np.isfinite(path))


# -- single schedulers


def test_bh1_into_a_clean_end(monkeypatch):
    """B = h is infinite there and meets a zero: NaN. Truth: the last step lands on its x0."""
    source = replay.wide(monkeypatch, "UniPC")
    scheduler = replay.make("UniPC", 10, solver_type="bh1")
    grid = replay.grid_of(scheduler)
    path, x_T, noise = replay.ours(scheduler, samplers.unipc(2, "bh1"), grid)
    wanted = replay.theirs(scheduler, source, grid, x_T, noise)
    np.testing.assert_allclose(path[:-1], wanted[:-1], rtol=1e-9)
    assert np.all(np.isnan(wanted[-1]))
    assert np.all(np.isfinite(path[-1]))


def test_a_corrected_solver_depends_on_what_the_network_is_said_to_predict(monkeypatch):
    """UniPC on another solver: one model, as eps and as x0, gives two paths of theirs, one of ours.

    Theirs corrects the state and then hands the solver the eps of the state before.
    """
    replay.wide(monkeypatch, "DPMSolverMultistep")
    source = replay.wide(monkeypatch, "UniPC")
    ends = {}
    for kind in ("epsilon", "sample"):
        solver = replay.make("DPMSolverMultistep", prediction_type=kind)
        for solver_p in (None, solver):
            scheduler = replay.make("UniPC", 10, prediction_type=kind, solver_p=solver_p)
            eps = replay.their_network(scheduler)
            bar = np.interp(np.arange(1000), np.arange(1000), scheduler.alphas_cumprod)

            def model(x, t, eps=eps, bar=bar, kind=kind):
                alpha, sigma = bar[int(t)] ** 0.5, (1 - bar[int(t)]) ** 0.5
                return eps(x, t) if kind == "epsilon" else (x - sigma * eps(x, t)) / alpha

            x_T = np.asarray(jax.random.normal(jax.random.key(0), replay.SHAPE))
            still = np.zeros((10, *x_T.shape))
            path = replay.step_through(scheduler, source, x_T, still, model=model)
            ends[kind, solver_p is None] = path[-1]
    # alone it does not matter, up to rounding over alpha = 0.006
    np.testing.assert_allclose(ends["sample", True], ends["epsilon", True], rtol=1e-9, atol=1e-9)
    assert np.max(np.abs(ends["sample", False] - ends["epsilon", False])) > 1e-3


def test_log_of_the_large_variance(monkeypatch):
    """fixed_large_log takes the root of a logarithm: NaN. Truth: the same as fixed_large."""
    source = replay.wide(monkeypatch, "DDPM")
    ends = []
    for kind in ("fixed_large", "fixed_large_log"):
        scheduler = replay.make("DDPM", 10, variance_type=kind)
        noise = np.ones((10, 1, 1, 1))
        ends.append(replay.step_through(scheduler, source, np.ones((1, 1, 4)), noise)[-1])
    assert np.all(np.isfinite(ends[0]))
    assert np.all(np.isnan(ends[1]))


def test_churn_is_not_shown_to_the_network(monkeypatch):
    """EDM's algorithm 2 asks the model at the noisier level it has gone up to; theirs before.

    One step on N(0, C I): theirs y + n + (rho_s - rho^) eps(y, rho), the truth eps(y + n, rho^).
    """
    source = replay.wide(monkeypatch, "Euler")
    scheduler = replay.make("Euler", 2)
    scheduler.sigmas = torch.from_numpy(np.asarray([1.0, 0.5, 0.0]))
    replay.begin(scheduler)
    y, n, hat = np.full((1, 1, 1), 1.5), np.ones((2, 1, 1, 1)), 1.2  # s_churn / 2 is 0.2
    up = y + np.sqrt(hat**2 - 1) * n[0]
    eps = lambda y, rho: y * rho / (C + rho**2)  # noqa: E731
    model = lambda _, t: torch.from_numpy(eps(y, 1.0))  # noqa: E731
    theirs = replay.step_through(scheduler, source, y, n, model=model, s_churn=0.4)[1]
    np.testing.assert_allclose(theirs, up + (0.5 - hat) * eps(y, 1.0), rtol=1e-12)
    rho = jnp.asarray([1.0, 0.5])
    ours = sample(
        None,
        gaussian,
        Grid(NoiseLevel(rho, jnp.ones(2), rho)),
        (1, 1, 1),
        sampler=samplers.euler(s_churn=0.2),  # of a grid of one step
        x_T=jnp.asarray(y),
        noise=jnp.ones((1, 1, 1, 1, 1)),
    )
    truth = up + (0.5 - hat) * eps(up, hat)
    np.testing.assert_allclose(ours, truth, rtol=1e-12)
    assert np.abs(theirs - truth).max() > 0.1


def test_states_in_float64_are_cast_to_float32():
    """Unless `replay.wide` lets them be. Their error at 10 steps is float32's, some 1e-6."""
    scheduler = replay.make("DPMSolverMultistep", 10)
    grid = replay.grid_of(scheduler)
    path, x_T, noise = replay.ours(scheduler, samplers.dpmpp_2m(), grid)
    wanted = replay.theirs(scheduler, replay.Noise(), grid, x_T, noise)
    error = np.max(np.abs(path - wanted))
    assert 1e-9 < error < 1e-4
