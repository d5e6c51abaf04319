"""DDPM and DDIM against closed forms: the Gaussian table, Ho et al.'s algorithm, the exact flow."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import exact, grids, schedules
from jaxdiff.denoiser import clip_x0
from jaxdiff.samplers import ddim, ddpm, sample
from jaxdiff.typing import Denoised

pytestmark = pytest.mark.usefixtures("strict", "x64")

# Variance of samples after K even steps on N(0, c I), c = .25: derived as an exact linear
# recursion in the project's specification of DDPM (Ho's linear betas, N = 1000).
TABLE = {
    5: (0.0440, 0.5584, 0.0507, 0.0497),
    10: (0.1042, 0.3585, 0.1308, 0.1261),
    20: (0.1505, 0.2985, 0.1853, 0.1784),
    50: (0.1964, 0.2679, 0.2227, 0.2172),
    100: (0.2190, 0.2587, 0.2360, 0.2324),
    1000: (0.2461, 0.2508, 0.2485, 0.2480),
}
COLUMNS = {"small": ddpm(), "large": ddpm("large"), "ddim": ddim(), "half": ddim(0.5)}


def chain():
    return schedules.from_betas(schedules.linear_betas())


def gaussian(c):
    """The exact model of N(0, c I), written out; linear in x."""

    def denoise(x, level):
        v = level.alpha**2 * c + level.sigma**2
        return Denoised(level.alpha * c / v * x, level.sigma / v * x)

    return denoise


def sample_variance(grid, sampler, c):
    """The variance of a sample, exactly: the sampler is linear in x_T and in each step's noise."""
    steps, run = (
        grid.num_steps,
        lambda x, n: sample(None, gaussian(c), grid, x.shape, sampler=sampler, x_T=x, noise=n),
    )
    of_start = run(jnp.ones((1, 1)), jnp.zeros((steps, 1, 1, 1)))
    unit = jnp.eye(steps)[:, None, :, None]  # example k gets noise 1 at step k alone
    of_noise = run(jnp.zeros((steps, 1)), unit)
    return float(jnp.sum(of_start**2) + jnp.sum(of_noise**2))


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize(
    "steps", [pytest.param(k, marks=[] if k in (10, 1000) else [pytest.mark.slow]) for k in TABLE]
)
def test_gaussian_table(steps, column):
    """To the four printed digits."""
    found = sample_variance(grids.linspace(chain(), steps), COLUMNS[column], 0.25)
    assert abs(found - TABLE[steps][list(COLUMNS).index(column)]) < 5.01e-5


@pytest.mark.parametrize(
    ("sampler", "wanted"), [(ddpm("large"), 0.9999), (ddpm(), 0.5208), (ddim(), 0.6636)]
)
def test_unit_gaussian(sampler, wanted):
    """c = 1 at K = 10 of the same table: "large" is then the exact variance."""
    assert abs(sample_variance(grids.linspace(chain(), 10), sampler, 1.0) - wanted) < 5.01e-5


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 7, 100])
def test_eta_one_is_the_algorithm_of_ddpm(steps, key):
    """Algorithm 2 of Ho et al. from betas alone, in numpy, with the same noise, to 1e-12.

    On a shorter grid beta is 1 - the ratio of the two alpha-bars, as Nichol and Dhariwal respace.
    """
    schedule = schedules.from_betas(schedules.linear_betas(100))
    grid = grids.linspace(schedule, steps)
    x_T, noise = (
        jax.random.normal(k, s)
        for k, s in zip(jax.random.split(key), [(3, 4), (steps, 1, 3, 4)], strict=True)
    )
    model = exact.gaussian(jnp.arange(4) / 4, 0.3 * jnp.eye(4) + 0.1)
    found = sample(None, model, grid, (3, 4), sampler=ddim(1.0), x_T=x_T, noise=noise)

    bar = np.concatenate([[1.0], np.cumprod(1 - schedules.linear_betas(100))])
    times = [int(t) for t in np.asarray(grid.levels.t)]
    x = np.asarray(x_T)
    for k, (t, s) in enumerate(itertools.pairwise(times)):
        eps = np.asarray(model(jnp.asarray(x), schedule(float(t))).eps)
        alpha, beta = bar[t] / bar[s], 1 - bar[t] / bar[s]
        mean = (x - beta / np.sqrt(1 - bar[t]) * eps) / np.sqrt(alpha)
        x = mean + np.sqrt(beta * (1 - bar[s]) / (1 - bar[t])) * np.asarray(noise[k, 0])
    np.testing.assert_allclose(found, x, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_ddim_is_first_order_on_the_exact_flow(key):
    """Gaussian flow: x_0 = x_T sqrt(v(0) / v(T)); halving the step halves the error."""
    x_T, schedule, c = jax.random.normal(key, (4, 1)), schedules.linear_vp(), 0.25
    end = schedule(schedule.t_max)
    truth = x_T * jnp.sqrt(c / (end.alpha**2 * c + end.sigma**2))
    errors = [
        float(
            jnp.max(
                jnp.abs(
                    sample(
                        None,
                        gaussian(c),
                        grids.uniform(schedule, n),
                        x_T.shape,
                        x_T=x_T,
                        noise=jnp.zeros((n, 1, 4, 1)),
                    )
                    - truth
                )
            )
        )
        for n in (160, 320, 640)
    ]
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    np.testing.assert_allclose(orders, 1, atol=0.05)  # the next term is O(1/K), 1/160 of it


@pytest.mark.parametrize("keep_eps", [False, True])
def test_conventions_after_clipping(keep_eps, key):
    """One step from betas alone: eps recomputed from the clipped x0, or the network's own kept."""
    schedule = chain()
    grid = grids.from_steps(schedule, [800.0, 500.0], end=None)
    x_T = 2 * jax.random.normal(key, (5, 3))
    model = gaussian(4.0)
    found = sample(
        None,
        clip_x0(model, -0.5, 0.5, keep_eps=keep_eps),
        grid,
        (5, 3),
        x_T=x_T,
        noise=jnp.zeros((1, 1, 5, 3)),
    )
    bar = np.cumprod(1 - schedules.linear_betas())
    t, s = bar[799], bar[499]
    d = model(x_T, schedule(800.0))
    x0 = np.clip(d.x0, -0.5, 0.5)
    assert np.any(x0 != d.x0)
    eps = d.eps if keep_eps else (np.asarray(x_T) - np.sqrt(t) * x0) / np.sqrt(1 - t)
    np.testing.assert_allclose(found, np.sqrt(s) * x0 + np.sqrt(1 - s) * eps, rtol=1e-12)


def test_last_noise():
    """Into the clean end "large" adds sqrt(beta) noise in full, in part, or by default not."""
    grid = grids.from_steps(chain(), [1.0])
    for share in (0.0, 0.5, 1.0):
        moved = sample(
            None, gaussian(1.0), grid, (1, 1), sampler=ddpm("large", last_noise=share),
            x_T=jnp.zeros((1, 1)), noise=jnp.ones((1, 1, 1, 1)),
        )  # fmt: skip
        np.testing.assert_allclose(moved, share * np.sqrt(1e-4), rtol=1e-12)


def test_eta_beyond_one_where_it_fits():
    """eta**2 (1 - r) <= 1: allowed on close levels, where the kernel keeps the marginal."""
    schedule = chain()
    close = grids.from_steps(schedule, [510.0, 500.0], end=None)
    t, s = (schedule(n) for n in (510.0, 500.0))
    r = (t.alpha * s.sigma / s.alpha / t.sigma) ** 2
    one = lambda x, n: sample(  # noqa: E731
        None, gaussian(0.0), close, (1, 1), sampler=ddim(2.0), x_T=x, noise=n
    )
    of_x = one(jnp.ones((1, 1)), jnp.zeros((1, 1, 1, 1)))
    of_n = one(jnp.zeros((1, 1)), jnp.ones((1, 1, 1, 1)))
    np.testing.assert_allclose(of_n**2, 4 * s.sigma**2 * (1 - r), rtol=1e-9)
    # data at 0: x_t ~ N(0, sigma_t**2) must become x_s ~ N(0, sigma_s**2)
    np.testing.assert_allclose(of_x**2 * t.sigma**2 + of_n**2, s.sigma**2, rtol=1e-12)
    with pytest.raises(ValueError, match="eta"):
        sample(
            jax.random.key(0),
            gaussian(1.0),
            grids.linspace(schedule, 10),
            (1, 1),
            sampler=ddim(2.0),
        )
