"""Truth: the timesteps and sigmas of diffusers' schedulers, for our grids by their names.

Skipped unless diffusers is there: `pip install jaxdiff[parity]`. A timestep of theirs is our clock
less 1. Two families space in two ways: DDPM, DDIM and the schedulers of k-diffusion take K steps to
timestep 0 or near it and then to clean data; the multistep ones take K + 1 and leave out the last,
so that theirs with `sigma_min` is our grid with `end=None`.
"""

import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("diffusers")

from jaxdiff import grids, schedules
from jaxdiff.typing import CLEAN
from tests.samplers import replay

pytestmark = [
    pytest.mark.usefixtures("x64", "double"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]

double = replay.double
COUNTS = (1, 2, 4, 5, 8, 10, 13, 20, 50, 100, 999)
# of sigma / alpha: they take 1 - alpha_bar, which at step 1 leaves 12 digits of it
RELATIVE = 1e-11


def chain(betas="linear"):
    return schedules.from_betas(replay.BETAS[betas][1])


def rho(grid):
    return np.asarray(grid.levels.sigma / grid.levels.alpha)


@pytest.mark.parametrize("name", replay.BETAS)
def test_betas(monkeypatch, name):
    """To float64's rounding of 1 - f(n) / f(n - 1), which is 1e-16 of 1."""
    config, betas = replay.BETAS[name]
    replay.wide(monkeypatch, "DPMSolverMultistep")
    found = replay.make("DPMSolverMultistep", **config)
    np.testing.assert_allclose(found.betas, betas, rtol=1e-14, atol=1e-15)
    level = chain(name)(jnp.arange(1, 1001))
    np.testing.assert_allclose(found.sigmas, level.sigma / level.alpha, rtol=RELATIVE)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", ["DDPM", "DDIM", "Euler", "Heun", "EulerAncestral", "LMS"])
def test_whole_steps(name, count):
    options = {"leading": [{}, {"offset": 1}], "trailing": [{}], "linspace": [{}]}
    for spacing, cases in options.items():
        for options in cases:
            config = {"timestep_spacing": spacing, "steps_offset": options.get("offset", 0)}
            scheduler = replay.make(name, count, **config)
            found = np.asarray(scheduler.timesteps)[:: replay.evaluations(scheduler)]
            if spacing == "linspace" and (999 / max(count - 1, 1)) % 1:
                continue  # see the next test
            if (spacing, count) == ("linspace", 1):
                continue  # they begin a run of one step at timestep 0, from pure noise: a defect
            wanted = getattr(grids, spacing)(chain(), count, **options).levels.t[:-1] - 1
            np.testing.assert_array_equal(found, wanted, str(config))


@pytest.mark.parametrize("count", COUNTS[1:])
def test_linspace_rounds_the_one_based_step(count):
    """Theirs round the zero-based one (DDPM, DDIM) or not at all: equal but for exact halves."""
    exact = np.linspace(0, 999, count)[::-1]
    found = np.asarray(replay.make("DDIM", count, timestep_spacing="linspace").timesteps)
    ours = np.asarray(grids.linspace(chain(), count).levels.t[:-1]) - 1
    halves = exact % 1 == 0.5
    np.testing.assert_array_equal(found[~halves], ours[~halves])
    assert np.all(np.abs(found[halves] - ours[halves]) == 1)
    unrounded = np.asarray(replay.make("Euler", count, timestep_spacing="linspace").timesteps)
    np.testing.assert_allclose(unrounded, exact, rtol=1e-6)  # float32


@pytest.mark.parametrize("count", COUNTS[:-1])
@pytest.mark.parametrize("name", ["DPMSolverMultistep", "UniPC", "DEIS"])
def test_multistep_grids(monkeypatch, name, count):
    replay.wide(monkeypatch, name)
    noisy = {} if name == "DEIS" else {"final_sigmas_type": "sigma_min"}
    for spacing in ("leading", "linspace"):
        scheduler = replay.make(name, count, timestep_spacing=spacing, **noisy)
        grid = getattr(grids, spacing)(chain(), count, end=None)
        t, _ = replay.levels_of(scheduler)
        halves = (np.linspace(0, 999, count + 1)[::-1] % 1 == 0.5) & (spacing == "linspace")
        np.testing.assert_array_equal(t[~halves], grid.levels.t[~halves])
        np.testing.assert_allclose(
            np.asarray(scheduler.sigmas)[~halves], rho(grid)[~halves], rtol=RELATIVE
        )
    scheduler = replay.make(name, count, timestep_spacing="trailing", **noisy)
    t, _ = replay.levels_of(scheduler)
    np.testing.assert_array_equal(t[:-1], grids.trailing(chain(), count).levels.t[:-1])


@pytest.mark.parametrize("betas", replay.BETAS)
@pytest.mark.parametrize("name", ["DPMSolverMultistep", "UniPC", "Euler", "Heun", "LMS", "KDPM2"])
def test_karras(monkeypatch, name, betas):
    """The same levels; the clock between whole steps is another line.

    Ours is linear in log alpha-bar, theirs in log(sigma / alpha), and some round or cut theirs to
    whole steps: less than one step apart.
    """
    replay.wide(monkeypatch, name)
    scheduler = replay.make(name, 12, use_karras_sigmas=True, **replay.BETAS[betas][0])
    grid = grids.karras(chain(betas), 12)
    t, found = replay.levels_of(scheduler)
    # rho's own rounding, 1e-16, to the seventh power and through the table's inverse
    np.testing.assert_allclose(rho(grid), found, rtol=1e-10)
    assert np.max(np.abs(t - grid.levels.t)) < 1


@pytest.mark.parametrize("name", ["EDMEuler", "EDMDPMSolverMultistep"])
def test_edm(monkeypatch, name):
    replay.wide(monkeypatch, name)
    for count in COUNTS[1:-1]:
        grid = grids.karras(schedules.edm(0.002, 80.0), count)
        scheduler = replay.make(name, count)
        np.testing.assert_allclose(scheduler.sigmas, rho(grid), rtol=1e-12)
        quarter = 0.25 * np.log(grid.levels.t[:-1])
        np.testing.assert_allclose(scheduler.timesteps, quarter, rtol=0, atol=1e-12)
        assert grid.levels.t[-1] == CLEAN.t


def test_exponential(monkeypatch):
    """Their exponential spacing is ours in log-SNR."""
    replay.wide(monkeypatch, "DPMSolverMultistep")
    scheduler = replay.make("DPMSolverMultistep", 12, use_exponential_sigmas=True)
    found = rho(grids.uniform_log_snr(chain(), 12))
    np.testing.assert_allclose(found, scheduler.sigmas, rtol=1e-10)
