"""Gradients in O(sqrt K) memory: the same numbers, and what XLA says it needs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import grids, schedules
from jaxdiff.samplers import ddpm, dpmpp_2m, draw_noise, sample
from tests.samplers.test_battery import grid_of, model

SHAPE = (4, 3)


@pytest.mark.parametrize(
    ("sampler", "steps"),
    [
        pytest.param(sampler, steps, id=f"{name}-{steps}")
        for name, sampler in {"ddpm": ddpm(), "2m": dpmpp_2m()}.items()
        for steps in (1, 7, 16)
    ],
)
@pytest.mark.slow
def test_same_samples_path_and_gradients(steps, sampler, key, x64):
    """Whole and broken numbers of stretches; float64 rounding of other programs is below 1e-12."""

    def f(params, beta, remat):
        grid = grids.pad(grid_of(beta, steps), steps + 2)
        denoise = model().with_params(params)
        path = sample(key, denoise, grid, SHAPE, sampler=sampler, keep_path=True, remat=remat)
        return jnp.sum(path[-1] ** 2) + jnp.sum(jnp.sin(path)), path

    found, truth = (
        jax.value_and_grad(f, argnums=(0, 1), has_aux=True)(model().params, 20.0, remat)
        for remat in (True, False)
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12), found, truth
    )


def test_noise_given_and_noisy_end(key):
    """A grid that ends in noise, and noise by argument: steps beyond the last change nothing."""
    grid = grids.uniform(schedules.linear_vp(), 5, end=None)
    noise = jax.random.normal(key, (5, 1, *SHAPE))
    found, truth = (
        sample(key, model(), grid, SHAPE, sampler=ddpm(), noise=noise, remat=remat)
        for remat in (True, False)
    )
    np.testing.assert_allclose(found, truth, atol=1e-6)


@pytest.mark.slow
def test_memory_grows_as_the_root():
    """16 times the steps: XLA's temporaries grow some 4 times with remat, some 16 times without."""

    def need(steps, remat):
        grid = grids.uniform(schedules.linear_vp(), steps)

        def f(x_T):
            x = sample(None, model(), grid, x_T.shape, sampler=dpmpp_2m(), x_T=x_T, remat=remat)
            return jnp.sum(x**2)

        x_T = jax.ShapeDtypeStruct((512, 3), jnp.float32)
        return jax.jit(jax.grad(f)).lower(x_T).compile().memory_analysis().temp_size_in_bytes

    plain, kept = ((need(256, remat) / need(16, remat)) for remat in (False, True))
    assert plain > 10
    assert kept < 6


@pytest.mark.parametrize("remat", [False, True])
def test_callback_tells_of_real_steps_alone(remat, key):
    """Once each, in order, on a padded grid; remat's filling is not told of."""
    told = []
    grid = grids.pad(grid_of(steps=5), 7)
    callback = lambda k, x: told.append((int(k), x.shape))  # noqa: E731
    sample(key, model(), grid, SHAPE, callback=callback, remat=remat).block_until_ready()
    jax.effects_barrier()
    assert told == [(k, SHAPE) for k in range(5)]


def test_no_noise_given_to_a_sampler_that_takes_none(key):
    """What draw_noise says of a deterministic sampler, [K, 0, ...], is noise like any other."""
    grid, sampler = grid_of(steps=5), dpmpp_2m()
    noise = draw_noise(key, grid, sampler, SHAPE)
    found, truth = (
        sample(key, model(), grid, SHAPE, sampler=sampler, noise=noise, remat=remat)
        for remat in (True, False)
    )
    np.testing.assert_allclose(found, truth, atol=1e-6)
