"""The predictors of score_sde against their formulas in numpy, on Gaussian data N(0, C).

Truth: the published iterations from betas and sigmas alone; the recursion of the variance, since
each step is linear in x there; the exact flow x_0 = x_T sqrt(C / v(T)).
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxdiff import exact, grids, schedules
from jaxdiff.samplers import (
    ddpm,
    euler_maruyama,
    langevin,
    predictor_corrector,
    reverse_diffusion,
    sample,
)
from jaxdiff.typing import Denoised
from tests.samplers.linear import moments

pytestmark = pytest.mark.usefixtures("strict", "x64")

C = 0.25
LOW, HIGH = 0.1, 20.0  # the betas of linear_vp and sub_vp


def gaussian(x, level):
    """The exact model of N(0, C I)."""
    v = level.alpha**2 * C + level.sigma**2
    return Denoised(level.alpha * C / v * x, level.sigma / v * x)


def replay(sampler, grid, steps, *, dim=3):
    """The sampler's x_0, and that of `steps`: functions of (x, noise) in numpy, one a step."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(grid.num_steps, 1, 2, dim))
    x = float(grid.prior_std) * rng.normal(size=(2, dim))
    given = {"x_T": jnp.asarray(x), "noise": jnp.asarray(noise)}
    found = sample(None, gaussian, grid, x.shape, sampler=sampler, **given)
    for step, z in zip(steps, noise[:, 0], strict=True):
        x = step(x, z)
    return found, x


def vp_steps(betas, kind):
    """The iterations for VP from betas, noisiest first; the last is noiseless."""
    bars = np.cumprod(1 - betas)

    def step(n):
        beta, noise = betas[n], float(n > 0)
        score = lambda x: -x / (bars[n] * C + 1 - bars[n])  # noqa: E731
        if kind == "ancestral":
            return lambda x, z: (
                (x + beta * score(x)) / np.sqrt(1 - beta) + noise * np.sqrt(beta) * z
            )
        f = lambda x: np.sqrt(1 - beta) * x - x  # noqa: E731
        return lambda x, z: x - f(x) + beta * score(x) + noise * np.sqrt(beta) * z

    return [step(n) for n in range(len(betas))[::-1]]


def ve_steps(sigmas, kind):
    """The iterations for VE from rising sigmas; the last goes to sigma = 0."""

    def step(high, low):
        drop = high**2 - low**2
        var = drop * low**2 / high**2 if kind == "ancestral" else drop * (low > 0)
        return lambda x, z: x - drop * x / (C + high**2) + np.sqrt(var) * z

    return [step(high, low) for low, high in itertools.pairwise([0.0, *sigmas])][::-1]


@pytest.mark.parametrize(
    ("sampler", "kind"), [(reverse_diffusion(), "reverse"), (ddpm("large"), "ancestral")]
)
def test_formula_for_vp(sampler, kind):
    """x - f + G**2 score + G z with f = sqrt(1 - beta) x - x, and the ancestral one with std
    sqrt(beta); 30 steps in float64 keep 12 digits."""
    betas = schedules.linear_betas(30)
    grid = grids.from_steps(schedules.from_betas(betas), np.arange(30.0, 0, -1))
    found, truth = replay(sampler, grid, vp_steps(betas, kind))
    np.testing.assert_allclose(found, truth, rtol=1e-12)


@pytest.mark.parametrize(
    ("sampler", "kind"), [(reverse_diffusion(), "reverse"), (ddpm(), "ancestral")]
)
def test_formula_for_ve(sampler, kind):
    """f = 0 and G**2 = sigma_t**2 - sigma_s**2; the ancestral std is
    sqrt(sigma_s**2 (sigma_t**2 - sigma_s**2) / sigma_t**2)."""
    grid = grids.uniform(schedules.ve(0.01, 50.0), 30)
    found, truth = replay(sampler, grid, ve_steps(np.asarray(grid.levels.sigma)[-2::-1], kind))
    np.testing.assert_allclose(found, truth, rtol=1e-11, atol=1e-13)


def beta_integral(t):
    return LOW * t + (HIGH - LOW) * t**2 / 2


def vp_sde(t):
    """f, g**2, alpha, sigma as printed for VP."""
    beta, mean = LOW + (HIGH - LOW) * t, np.exp(-beta_integral(t) / 2)
    return -beta / 2, beta, mean, np.sqrt(1 - mean**2)


def sub_vp_sde(t):
    """The same for sub-VP."""
    f, beta, mean, _ = vp_sde(t)
    return f, beta * (1 - mean**4), mean, 1 - mean**2


def ve_sde(t):
    """The same for VE with sigma from 0.01 to 50."""
    sigma = 0.01 * 5000**t
    return 0.0, 2 * sigma**2 * np.log(5000), 1.0, sigma


def euler_steps(law, times, lam):
    """The family's Euler-Maruyama; the last step, into the clean end, is E[x_0 | x_t]."""

    def step(t, s):
        f, g2, alpha, sigma = law(t)
        v, h = alpha**2 * C + sigma**2, t - s
        slope = f + (1 + lam**2) / 2 * g2 / v
        return lambda x, z: x - h * slope * x + lam * np.sqrt(g2 * h) * z

    _, _, alpha, sigma = law(times[-2])
    last = alpha * C / (alpha**2 * C + sigma**2)
    return [step(*pair) for pair in itertools.pairwise(times[:-1])] + [lambda x, z: last * x]


SDES = {
    "linear_vp": (schedules.linear_vp(LOW, HIGH), vp_sde),
    "sub_vp": (schedules.sub_vp(LOW, HIGH), sub_vp_sde),
    "ve": (schedules.ve(0.01, 50.0), ve_sde),
    "shifted": (schedules.shifted(schedules.linear_vp(LOW, HIGH), 0.5), vp_sde),
}


@pytest.mark.parametrize("name", [*list(SDES)[:3], pytest.param("shifted", marks=pytest.mark.slow)])
def test_euler_maruyama_is_the_formula(name):
    """With the f and g printed for each SDE, and the grid's own steps, at lam = 0.6.

    The levels of a shifted schedule lie on its base's path, at times of the base's clock.
    """
    schedule, law = SDES[name]
    grid = grids.uniform(schedule, 12)
    steps = euler_steps(law, np.asarray(grid.levels.t), 0.6)
    found, truth = replay(euler_maruyama(0.6), grid, steps)
    np.testing.assert_allclose(found, truth, rtol=1e-10)


def reverse_factors(t, s):
    """x_s = m x_t + std z on Gaussian data, of (alpha, sigma) pairs."""
    (a_t, s_t), (a_s, s_s) = t, s
    a = a_t / a_s
    var = s_t**2 - (a * s_s) ** 2
    return 2 - a - var / (a_t**2 * C + s_t**2), np.sqrt(var) * (s_s > 0)


def euler_factors(t, s):
    """The same for VP's reverse SDE; from alpha = exp(-B / 2) back to t."""
    (a_t, s_t), (a_s, s_s) = t, s
    if s_s == 0:
        return a_t * C / (a_t**2 * C + s_t**2), 0.0
    time = lambda a: (  # noqa: E731
        (np.sqrt(LOW**2 - 4 * (HIGH - LOW) * np.log(a)) - LOW) / (HIGH - LOW)
    )
    h, beta = time(a_t) - time(a_s), LOW + (HIGH - LOW) * time(a_t)
    return 1 + h * beta / 2 - h * beta / (a_t**2 * C + s_t**2), np.sqrt(beta * h)


def ancestral_factors(t, s):
    """The same for the posterior with x_0 = E[x_0 | x_t]."""
    (a_t, s_t), (a_s, s_s) = t, s
    r = (a_t * s_s / (a_s * s_t)) ** 2
    x0 = a_t * C / (a_t**2 * C + s_t**2)
    return a_t / a_s * (s_s / s_t) ** 2 + a_s * (1 - r) * x0, s_s * np.sqrt(1 - r)


PREDICTORS = {
    "reverse_diffusion": (reverse_diffusion(), reverse_factors),
    "euler_maruyama": (euler_maruyama(), euler_factors),
    "ddpm": (ddpm(), ancestral_factors),
}


def scales(grid):
    return list(zip(np.asarray(grid.levels.alpha), np.asarray(grid.levels.sigma), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["reverse_diffusion", "euler_maruyama"])
def test_variance_is_its_recursion_and_falls_to_that_of_the_data(name):
    """v <- m**2 v + std**2 at 40 steps, to 1e-11; at 80 and 160 its distance from C halves.

    The next term is of order 1/K, some tenth of the first at K = 80. Padding makes one program.
    """
    sampler, factors = PREDICTORS[name]
    errors = []
    for steps in (40, 80, 160):
        grid = grids.uniform(schedules.linear_vp(LOW, HIGH), steps)
        _, found = moments(gaussian, grids.pad(grid, 160), sampler, 1)
        errors.append(abs(found[0, 0] - C))
        v = 1.0
        for t, s in itertools.pairwise(scales(grid)):
            m, std = factors(t, s)
            v = m**2 * v + std**2
        np.testing.assert_allclose(found[0, 0], v, rtol=1e-11)
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    np.testing.assert_allclose(orders, 1, atol=0.15)


@pytest.mark.slow
def test_probability_flow_at_lam_zero():
    """x_0 = x_T sqrt(C / v(T)), to first order, whatever the noise."""
    schedule = schedules.linear_vp(LOW, HIGH)
    _, _, alpha, sigma = vp_sde(1.0)
    truth, errors = np.sqrt(C / (alpha**2 * C + sigma**2)), []
    for steps in (160, 320, 640):
        grid = grids.pad(grids.uniform(schedule, steps), 640)
        noise = jax.random.normal(jax.random.key(0), (640, 1, 1, 1))
        x = sample(
            None, gaussian, grid, (1, 1), sampler=euler_maruyama(0.0),
            x_T=jnp.ones((1, 1)), noise=noise,
        )  # fmt: skip
        errors.append(abs(float(x[0, 0]) - truth))
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), 1, atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["reverse_diffusion", "euler_maruyama", "ddpm"],
)
def test_corrector_with_each_predictor(name, key):
    """In many dimensions Langevin's step is a number, so the variance has a recursion with it too:

        d = 2 (alpha r)**2 w**2 / v,    v <- v (1 - d / w)**2 + 2 d,    w = alpha**2 C + sigma**2

    by |z|**2 = D, |score|**2 = D v / w**2. Of 20,000 coordinates the variance has a standard
    error of 1 %; three are allowed. What is reached lies nearer C than the predictor's alone.
    """
    predictor, factors = PREDICTORS[name]
    grid, r = grids.uniform(schedules.linear_vp(LOW, HIGH), 20), 0.2
    v = alone = 1.0
    for t, s in itertools.pairwise(scales(grid)):
        w = t[0] ** 2 * C + t[1] ** 2
        d = 2 * (t[0] * r) ** 2 * w**2 / v
        v = v * (1 - d / w) ** 2 + 2 * d
        m, std = factors(t, s)
        v, alone = m**2 * v + std**2, m**2 * alone + std**2
    sampler = predictor_corrector(predictor, langevin(r))
    x = np.asarray(sample(key, gaussian, grid, (1, 20_000), sampler=sampler))
    np.testing.assert_allclose(x.var(), v, rtol=0.03)
    assert abs(v - C) < abs(alone - C)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["reverse_diffusion", "euler_maruyama"])
@pytest.mark.parametrize("schedule", [schedules.linear_vp(), schedules.sub_vp(), schedules.ve()])
def test_samples_of_a_mixture_at_1000_steps(name, schedule, key):
    """Kolmogorov-Smirnov distance to .5 N(-.7, .01) + .5 N(.7, .01), SciPy's CDF, of 20,000.

    By chance alone it is below 1.63 / sqrt(20,000) = .0115 in 99 % of the cases, where 8 steps are
    not.
    """
    std = 0.1
    data = exact.gaussian_mixture([0.5, 0.5], [[-0.7], [0.7]], [[[std**2]], [[std**2]]])
    cdf = lambda x: (scipy.stats.norm.cdf((x[..., None] - [-0.7, 0.7]) / std)).mean(-1)  # noqa: E731
    distance = {}
    for steps in (8, 1000):
        sampler, grid = PREDICTORS[name][0], grids.uniform(schedule, steps)
        x = np.asarray(sample(key, data, grid, (20_000, 1), sampler=sampler))[:, 0]
        distance[steps] = scipy.stats.kstest(x, cdf).statistic
    assert distance[1000] < 0.0115 < distance[8], distance


@pytest.mark.slow
def test_gradient_by_lam_is_a_central_difference(key):
    """Under jit and vmap; a difference of step 1e-6 errs by some 1e-9. The noise is fixed."""
    grid = grids.uniform(schedules.sub_vp(), 6)

    def f(lam):
        x = sample(key, gaussian, grid, (2, 3), sampler=euler_maruyama(lam))
        return jnp.sum(x**2)

    lams = jnp.asarray([0.0, 0.5, 1.0])
    values = jax.jit(jax.vmap(f))(jnp.concatenate([lams - 1e-6, lams + 1e-6]))
    slopes = jax.jit(jax.vmap(jax.grad(f)))(lams)
    np.testing.assert_allclose(slopes, (values[3:] - values[:3]) / 2e-6, rtol=1e-6, atol=1e-7)


GRID = grids.karras(schedules.edm(), 4)
REFUSED = {
    "lam above 1": (lambda: euler_maruyama(1.5), r"lam.*\[0, 1\].*got 1.5"),
    "negative lam": (lambda: euler_maruyama(-0.1), "lam.*got -0.1"),
    "no schedule": (
        lambda: sample(None, gaussian, grids.from_levels(GRID.levels), (1, 1),
                       sampler=euler_maruyama(), x_T=jnp.ones((1, 1)), noise=None),
        "euler_maruyama needs a grid on a schedule.*reverse_diffusion",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case):
    call, message = REFUSED[case]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        call()


@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
def test_from_no_signal_the_first_step_has_the_marginal(lam, key):
    """Cosine's alpha is 0 at t_max: one step of equation (4) with eta = lam, in numpy."""
    grid = grids.from_steps(schedules.cosine(), [1.0, 0.4], end=None)
    data = exact.gaussian(jnp.zeros(1), jnp.full((1, 1), 0.25))
    x_T, z = jax.random.normal(key, (2, 5, 1))
    got = sample(
        None, data, grid, (5, 1), sampler=euler_maruyama(lam), x_T=x_T, noise=z[None, None]
    )
    alpha, sigma = (float(a[1]) for a in (grid.levels.alpha, grid.levels.sigma))
    # of data with mean 0 pure noise says x_0 = 0, eps = x_T
    want = alpha * 0 + sigma * (np.sqrt(1 - lam**2) * x_T + lam * z)
    np.testing.assert_allclose(got, want, rtol=1e-5)  # float32
