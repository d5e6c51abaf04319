"""What every sampler must be able to do; a new sampler is one row of the registry.

Truth: central differences for gradients, loops for vmap, float64 for float32. The model is a small
network with a bounded x_0, quick to compile, since any model must do. A sampler with several
regimes has a row of `HYPERPARAMETERS` for each.
"""

import functools
import itertools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import grids, make_denoiser, schedules
from jaxdiff.samplers import (
    SAMPLERS,
    colour_basis,
    draw_noise,
    example_keys,
    langevin,
    make_sampler,
    predictor_corrector,
    repaint,
    replacement,
    replacement_corrector,
    sample,
)
from jaxdiff.samplers.base import _run
from tests.battery import PARAMETRIZATIONS, SCHEDULES

pytestmark = pytest.mark.usefixtures("strict")

HYPERPARAMETERS = {
    "ddpm": [{}, {"variance": "large"}, {"variance": "large", "last_noise": 1.0}],
    "ddim": [{}, {"eta": 0.5}, {"eta": 1.0}],
    "dpm_solver": [{"order": 2}, {"order": 3}],
    "dpmpp_2m": [{"form": "midpoint"}, {"form": "heun"}],
    "dpmpp_3m": [{"form": "corrected"}, {"form": "ported", "warm_down": True}],
    "restart": [{"low": 1.5, "high": 3.0, "steps": 2, "repeats": 2}],
    "predictor_corrector": [{}, {"corrector": langevin(0.1, 2)}],
    "euler_maruyama": [{}, {"lam": 0.3}],
    "unipc": [{"order": 2, "variant": "bh1"}, {"order": 3, "variant": "bh2"}],
    "deis": [{"order": 3, "clock": "t"}, {"order": 3, "clock": "log_rho"}],
    "heun": [{}, {"s_churn": 4.0, "s_min": 0.05, "s_max": 50.0, "s_noise": 1.003}],
}
MASK, KNOWN = np.array([1, 0, 1]), np.array([0.5, np.nan, -0.2])
COMBINED = {  # what needs arguments of the data, and one sampler on top of another
    "replacement": lambda: replacement(make_sampler("dpmpp_2m"), KNOWN, MASK),
    "repaint": lambda: repaint(None, KNOWN, MASK, jump=2, repeats=2),
    "replacement-colour": lambda: predictor_corrector(
        replacement(make_sampler("reverse_diffusion"), KNOWN, MASK, colour_basis()),
        replacement_corrector(None, KNOWN, MASK, colour_basis(), repeats=2),
    ),
    "unic-deis": lambda: make_sampler("unic", sampler=make_sampler("deis"), order=3),
    "restart-dpm2_ancestral": lambda: make_sampler(
        "restart", sampler=make_sampler("dpm2_ancestral"), low=1.5, high=3.0, repeats=1
    ),
}
ROWS = {
    "-".join([name, *(str(v) for v in hyper.values() if np.isscalar(v))]): functools.partial(
        make_sampler, name, **hyper
    )
    for name in SAMPLERS
    for hyper in HYPERPARAMETERS.get(name, [{}])
} | COMBINED
# One of each kind by default, all of them with `-m slow`: each row is a dozen compiles.
QUICK = {"ddpm", "ddim-0.5", "dpmpp_2m-midpoint", "dpmpp_2m_sde"}
QUICK |= {"deis-3-t", "heun-4.0-0.05-50.0-1.003"}
each_row = pytest.mark.parametrize(
    "row",
    [pytest.param(row, marks=[] if row in QUICK else [pytest.mark.slow]) for row in ROWS],
)
STEPS, SHAPE = 8, (4, 3)


def network(params, x, feature):
    h = jnp.tanh(x @ params["in"] + feature[:, None] * params["time"])
    return jnp.tanh(h @ params["out"])


def model(scale=1.0, parametrization="x0"):
    rng = np.random.default_rng(0)
    shapes = {"in": (3, 8), "time": (1, 8), "out": (8, 3)}
    params = {n: jnp.asarray(scale * rng.normal(size=s) / 2, float) for n, s in shapes.items()}
    return make_denoiser(
        network, params, parametrization=parametrization, time_feature="quarter_log_sigma"
    )


def grid_of(beta_max=20.0, steps=STEPS):
    return grids.uniform(schedules.linear_vp(0.1, beta_max), steps)


def scaled(sampler, factor):
    """The sampler with each number multiplied; masks stay."""
    number = lambda a: jnp.issubdtype(jnp.result_type(a), jnp.floating)  # noqa: E731
    return jax.tree.map(lambda a: jnp.asarray(factor * a) if number(a) else a, sampler)


def combinations():
    """Every sampler with every schedule, grids and parametrizations in turn: all pairs occur.

    By default each sampler once. Where there is no chain, Karras stands in for whole-step grids.
    """
    names, kinds, predictions = list(SCHEDULES), list(grids.GRIDS), list(PARAMETRIZATIONS)
    for i, row in enumerate(ROWS):
        for j, schedule in enumerate(names):
            marks = [] if (i - j) % len(names) == 0 else [pytest.mark.slow]
            kind, prediction = (
                kinds[(i + j) % len(kinds)],
                predictions[(i + 3 * j) % len(predictions)],
            )
            yield pytest.param(row, schedule, kind, prediction, id=f"{row}-{schedule}", marks=marks)


def check_finite_or_refused(row, schedule, kind, prediction, key):
    """Finite samples on every path; or, at zero terminal SNR, what the sampler and the network
    declare, before any compile."""
    parts = row.split("-")[: None if row in COMBINED else 1]
    refuses = any("alpha = 0" in SAMPLERS[p].refuses for p in parts if p in SAMPLERS)
    chain = schedules.whole_steps(SCHEDULES[schedule])
    make = grids.GRIDS[kind if chain or kind in EVERYWHERE else "karras"]
    grid = make(SCHEDULES[schedule], STEPS)
    denoise = model(parametrization=PARAMETRIZATIONS[prediction])
    draw = lambda: sample(key, denoise, grid, SHAPE, sampler=ROWS[row]())  # noqa: E731
    silent = bool(grid.levels.alpha[0] <= 0)
    if silent and (refuses or prediction in ("eps", "score")):
        with pytest.raises(ValueError, match="alpha = 0"):
            draw()
        return
    x = draw()
    assert x.shape == SHAPE
    assert np.all(np.isfinite(x)), (row, schedule, kind, prediction)


EVERYWHERE = ("uniform", "uniform_log_snr", "karras", "quadratic")


@pytest.mark.slow
@pytest.mark.parametrize(("row", "schedule", "kind", "prediction"), list(combinations()))
def test_finite_or_refused_on_every_schedule(row, schedule, kind, prediction, key):
    check_finite_or_refused(row, schedule, kind, prediction, key)


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
def test_finite_or_refused_on_the_whole_product(row, key):
    """Schedules x grids x parametrizations, some 850 for each sampler."""
    for schedule, prediction in itertools.product(SCHEDULES, PARAMETRIZATIONS):
        chain = schedules.whole_steps(SCHEDULES[schedule])
        for kind in grids.GRIDS if chain else EVERYWHERE:
            check_finite_or_refused(row, schedule, kind, prediction, key)


@each_row
def test_jit_is_eager(row, key):
    """The rounding of fused float32 arithmetic over 8 steps stays below 1e-5."""
    sampler = ROWS[row]()
    eager = sample(key, model(), grid_of(), SHAPE, sampler=sampler)
    inside = jax.jit(lambda m, g, s: sample(key, m, g, SHAPE, sampler=s))
    np.testing.assert_allclose(inside(model(), grid_of(), sampler), eager, atol=1e-5)


@each_row
def test_float32_is_close_to_float64(row):
    """8 steps on unit-scale data lose some 1e-6 each; 1e-4 is 10 times their sum."""
    found = {}
    x_T = np.random.default_rng(0).normal(size=SHAPE)
    noise = np.random.default_rng(1).normal(size=(STEPS, ROWS[row]().noises, *SHAPE))
    for wide in (False, True):
        with jax.enable_x64(wide):
            sampler = ROWS[row]()
            draws = jnp.asarray(noise, float)
            start = jnp.asarray(x_T, float)
            x = sample(None, model(), grid_of(), SHAPE, sampler=sampler, x_T=start, noise=draws)
            assert x.dtype == start.dtype
            found[wide] = np.asarray(x)
    np.testing.assert_allclose(found[False], found[True], atol=1e-4)


@each_row
def test_noise_given_replays_noise_drawn(row, key):
    """`draw_noise` is what the scan draws: the same program but for where the noise comes from."""
    sampler, grid = ROWS[row](), grid_of()
    noise = draw_noise(key, grid, sampler, SHAPE)
    assert noise.shape == (STEPS, sampler.noises, *SHAPE)
    drawn = sample(key, model(), grid, SHAPE, sampler=sampler)
    given = sample(key, model(), grid, SHAPE, sampler=sampler, noise=noise)
    np.testing.assert_allclose(given, drawn, atol=1e-5)


@each_row
def test_example_depends_on_its_own_key_alone(row, key):
    """Batches of 1, 7 and 64, and chunks of a job, give the same examples up to rounding."""
    sampler = ROWS[row]()
    draw = lambda keys, n: sample(keys, model(), grid_of(), (n, 3), sampler=sampler)  # noqa: E731
    whole = draw(key, 64)
    for n in (1, 7):
        np.testing.assert_allclose(draw(key, n), whole[:n], atol=1e-5)
    np.testing.assert_allclose(draw(example_keys(key, 7, 40), 7), whole[40:47], atol=1e-5)


@each_row
def test_one_compile(row, key):
    """Other hyperparameters, grid values and parameters of the same shapes compile nothing."""
    sampler = ROWS[row]()
    sample(key, model(), grid_of(), SHAPE, sampler=sampler)
    before = _run._cache_size()
    other = scaled(sampler, 0.9)
    sample(jax.random.key(7), model(0.9), grid_of(19.0), SHAPE, sampler=other)
    assert _run._cache_size() == before


@pytest.mark.slow
@each_row
def test_vmap_over_padded_grids_is_a_loop(row, key):
    """Grids of 3 and 8 steps, padded and stacked; noise is by step, so it is the same too."""
    sampler, lengths = ROWS[row](), (3, STEPS)
    made = [grid_of(steps=n) for n in lengths]
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *[grids.pad(g, STEPS) for g in made])
    run = lambda g: sample(key, model(), g, SHAPE, sampler=sampler)  # noqa: E731
    for found, grid in zip(jax.vmap(run)(stacked), made, strict=True):
        np.testing.assert_allclose(found, run(grid), atol=1e-5)


@each_row
def test_vmap_over_everything_is_a_loop(row):
    """A population over seeds, beta_max and every hyperparameter is one program."""
    sampler = ROWS[row]()

    def run(key, beta, sampler):
        return sample(key, model(), grid_of(beta), SHAPE, sampler=sampler)

    keys, betas = jax.random.split(jax.random.key(3), 3), jnp.asarray([12.0, 16.0, 20.0])
    members = [scaled(sampler, factor) for factor in (0.5, 0.8, 1.0)]
    together = jax.vmap(run)(keys, betas, jax.tree.map(lambda *a: jnp.stack(a), *members))
    for i, member in enumerate(members):
        np.testing.assert_allclose(together[i], run(keys[i], betas[i], member), atol=1e-5)


@pytest.mark.slow
@each_row
def test_gradients_are_central_differences(row, x64):
    """By beta_max, the network, x_T and each hyperparameter, through a clean end and padding.

    Central differences of step 1e-6 err by some 1e-9. Hyperparameters at an end of their range
    are differenced from that side, to second order.
    """
    leaves, structure = jax.tree.flatten(ROWS[row]())
    free = [i for i, leaf in enumerate(leaves) if np.ndim(leaf) == 0 and np.isfinite(leaf)]
    base = {"beta": jnp.asarray(20.0), "params": model().params}
    base["x_T"] = jax.random.normal(jax.random.key(1), SHAPE)
    weights = jnp.asarray(np.random.default_rng(0).normal(size=SHAPE))

    def f(base, numbers):
        now = [numbers[free.index(i)] if i in free else leaf for i, leaf in enumerate(leaves)]
        sampler = jax.tree.unflatten(structure, now)
        denoise, grid = (
            model().with_params(base["params"]),
            grids.pad(grid_of(base["beta"], 5), STEPS),
        )
        x = sample(jax.random.key(0), denoise, grid, SHAPE, sampler=sampler, x_T=base["x_T"])
        return jnp.sum(weights * x)

    numbers = [jnp.asarray(leaves[i], float) for i in free]
    value = jax.jit(f)
    slopes, _ = jax.flatten_util.ravel_pytree(jax.jit(jax.grad(f, argnums=(0, 1)))(base, numbers))
    flat, unravel = jax.flatten_util.ravel_pytree((base, numbers))
    assert np.all(np.isfinite(slopes))
    count, h = flat.size - len(numbers), 1e-6
    for i in [*range(0, count, 9), *range(count, flat.size)]:
        at = lambda d: value(*unravel(flat.at[i].add(d)))  # noqa: B023, E731
        if i >= count and flat[i] in (0, 1):
            d = h if flat[i] == 0 else -h
            truth = (4 * at(d) - at(2 * d) - 3 * at(0)) / (2 * d)
        else:
            truth = (at(h) - at(-h)) / (2 * h)
        np.testing.assert_allclose(slopes[i], truth, rtol=1e-6, atol=1e-7)
