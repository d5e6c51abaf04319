"""What every sampler must be able to do; a new sampler is one row of the registry.

Truth: the exact mixture's denoiser, central differences, loops for vmap, float64 for float32. A
sampler with several regimes (stochastic or not) has a row of `CASES` for each.
"""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from tests.battery import SCHEDULES, each_schedule

from jaxdiff import exact, grids, schedules
from jaxdiff.samplers import SAMPLERS, draw_noise, example_keys, make_sampler, sample
from jaxdiff.samplers.base import _run

pytestmark = pytest.mark.usefixtures("strict")

HYPERPARAMETERS = {
    "ddpm": [{}, {"variance": "large"}, {"variance": "large", "last_noise": 1.0}],
    "ddim": [{}, {"eta": 0.5}, {"eta": 1.0}],
}
CASES = [(name, hyper) for name in SAMPLERS for hyper in HYPERPARAMETERS.get(name, [{}])]
each_sampler = pytest.mark.parametrize(
    ("name", "hyper"),
    [pytest.param(*case, id="-".join([case[0], *map(str, case[1].values())])) for case in CASES],
)
STEPS, SHAPE = 8, (4, 2)


def mixture():
    """Two unequal, correlated components in the plane."""
    return exact.gaussian_mixture(
        jnp.asarray([0.3, 0.7]),
        jnp.asarray([[1.0, -0.5], [-0.6, 0.4]]),
        jnp.asarray([[[0.3, 0.1], [0.1, 0.2]], [[0.1, -0.05], [-0.05, 0.4]]]),
    )


def grid_of(beta_max=20.0, steps=STEPS):
    return grids.uniform(schedules.linear_vp(0.1, beta_max), steps)


@each_sampler
@each_schedule
def test_finite_on_every_schedule(name, hyper, schedule, key):
    """Every path of noise levels, zero terminal SNR included, ends in finite samples."""
    x = sample(
        key, mixture(), grids.uniform(schedule, STEPS), SHAPE, sampler=make_sampler(name, **hyper)
    )
    assert x.shape == SHAPE
    assert np.all(np.isfinite(x))


@each_sampler
def test_jit_is_eager(name, hyper, key):
    """The rounding of fused float32 arithmetic over 8 steps stays below 1e-5."""
    sampler = make_sampler(name, **hyper)
    eager = sample(key, mixture(), grid_of(), SHAPE, sampler=sampler)
    inside = jax.jit(lambda m, g, s: sample(key, m, g, SHAPE, sampler=s))
    np.testing.assert_allclose(inside(mixture(), grid_of(), sampler), eager, atol=1e-5)


@each_sampler
def test_float32_is_close_to_float64(name, hyper):
    """8 steps on unit-scale data lose some 1e-6 each; 1e-4 is 10 times their sum."""
    found = {}
    x_T = np.random.default_rng(0).normal(size=SHAPE)
    noise = np.random.default_rng(1).normal(size=(STEPS, 8, *SHAPE))
    for wide in (False, True):
        with jax.enable_x64(wide):
            sampler = make_sampler(name, **hyper)
            dtype = jnp.float64 if wide else jnp.float32
            draws = jnp.asarray(noise[:, : sampler.noises], dtype)
            found[wide] = sample(
                None,
                mixture(),
                grid_of(),
                SHAPE,
                sampler=sampler,
                x_T=jnp.asarray(x_T, dtype),
                noise=draws,
            )
            assert found[wide].dtype == dtype
    np.testing.assert_allclose(found[False], found[True], atol=1e-4)


@each_sampler
def test_noise_given_replays_noise_drawn(name, hyper, key):
    """`draw_noise` is what the scan draws: the same program but for where the noise comes from."""
    sampler, grid = make_sampler(name, **hyper), grid_of()
    noise = draw_noise(key, grid, sampler, SHAPE)
    assert noise.shape == (STEPS, sampler.noises, *SHAPE)
    drawn = sample(key, mixture(), grid, SHAPE, sampler=sampler)
    given = sample(key, mixture(), grid, SHAPE, sampler=sampler, noise=noise)
    np.testing.assert_allclose(given, drawn, atol=1e-5)


@each_sampler
def test_example_depends_on_its_own_key_alone(name, hyper, key):
    """Batches of 1, 7 and 64, and chunks of a job, give the same examples up to rounding."""
    sampler = make_sampler(name, **hyper)
    draw = lambda keys, n: sample(keys, mixture(), grid_of(), (n, 2), sampler=sampler)  # noqa: E731
    whole = draw(key, 64)
    for n in (1, 7):
        np.testing.assert_allclose(draw(key, n), whole[:n], atol=1e-5)
    np.testing.assert_allclose(draw(example_keys(key, 7, 40), 7), whole[40:47], atol=1e-5)


@each_sampler
def test_one_compile(name, hyper, key):
    """Other hyperparameters, grid values and parameters of the same shapes compile nothing."""
    sampler = make_sampler(name, **hyper)
    sample(key, mixture(), grid_of(), SHAPE, sampler=sampler)
    before = _run._cache_size()
    other = jax.tree.map(lambda a: 0.9 * a, sampler)
    moved = jax.tree.map(lambda a: 0.9 * a, mixture())
    sample(jax.random.key(7), moved, grid_of(19.0), SHAPE, sampler=other)
    assert _run._cache_size() == before


@each_sampler
def test_vmap_over_padded_grids_is_a_loop(name, hyper, key):
    """Grids of 3, 5 and 8 steps, padded and stacked; noise is by step, so it is the same too."""
    sampler = make_sampler(name, **hyper)
    lengths = (3, 5, STEPS)
    stacked = jax.tree.map(
        lambda *a: jnp.stack(a), *[grids.pad(grid_of(steps=n), STEPS) for n in lengths]
    )
    run = lambda g: sample(key, mixture(), g, SHAPE, sampler=sampler)  # noqa: E731
    together = jax.vmap(run)(stacked)
    for found, n in zip(together, lengths, strict=True):
        np.testing.assert_allclose(found, run(grid_of(steps=n)), atol=1e-5)


@each_sampler
def test_vmap_over_schedules_and_seeds_is_a_loop(name, hyper):
    """A population over beta_max and over keys is one program."""
    sampler = make_sampler(name, **hyper)
    run = lambda key, beta: sample(key, mixture(), grid_of(beta), SHAPE, sampler=sampler)  # noqa: E731
    keys, betas = jax.random.split(jax.random.key(3), 3), jnp.asarray([12.0, 16.0, 20.0])
    together = jax.vmap(run)(keys, betas)
    for i in range(3):
        np.testing.assert_allclose(together[i], run(keys[i], betas[i]), atol=1e-5)


def directions(sampler):
    """What to differentiate by: a schedule, the model, x_T and each hyperparameter."""
    base = {
        "beta_max": jnp.asarray(20.0),
        "means": mixture().means,
        "x_T": jax.random.normal(jax.random.key(1), SHAPE),
    }
    leaves, structure = jax.tree.flatten(sampler)
    return base, [jnp.asarray(leaf, float) for leaf in leaves], structure


@each_sampler
def test_gradients_are_central_differences(name, hyper, x64):
    """Through a clean end and padding; central differences of step 1e-6 err by some 1e-9."""
    base, leaves, structure = directions(make_sampler(name, **hyper))
    weights = jnp.asarray(np.random.default_rng(0).normal(size=SHAPE))

    def f(base, leaves):
        m = mixture()
        m = exact.GaussianMixture(m.weights, base["means"], m.covs)
        grid = grids.pad(grid_of(base["beta_max"], 5), STEPS)
        sampler = jax.tree.unflatten(structure, leaves)
        key = jax.random.key(0)
        return jnp.sum(weights * sample(key, m, grid, SHAPE, sampler=sampler, x_T=base["x_T"]))

    found = jax.jit(jax.grad(f, argnums=(0, 1)))(base, leaves)
    value, h = jax.jit(f), 1e-6
    flat, unravel = jax.flatten_util.ravel_pytree((base, leaves))
    slopes, _ = jax.flatten_util.ravel_pytree(found)
    assert np.all(np.isfinite(slopes))
    for i in [*range(0, 13, 3), *range(13, flat.size)]:
        at_zero = flat[i] == 0  # eta and last_noise live on [0, ..): one-sided, second order
        if at_zero and i >= 13:
            points = [value(*unravel(flat.at[i].add(k * h))) for k in range(3)]
            truth = (-3 * points[0] + 4 * points[1] - points[2]) / (2 * h)
        else:
            up, down = (value(*unravel(flat.at[i].add(d))) for d in (h, -h))
            truth = (up - down) / (2 * h)
        np.testing.assert_allclose(slopes[i], truth, rtol=1e-6, atol=1e-7)


def test_every_sampler_is_in_the_battery():
    """Rows are read from the registry, and the schedules from the battery."""
    assert {name for name, _ in CASES} == set(SAMPLERS)
    assert len(SCHEDULES) > 10
