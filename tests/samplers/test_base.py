"""The driver: keys, devices, paths, callbacks and networks, against loops and differences."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxdiff import grids, losses, make_denoiser, schedules
from jaxdiff.models.unet import UNet
from jaxdiff.samplers import (
    ddim,
    ddpm,
    dpmpp_2m,
    dpmpp_3m,
    draw_noise,
    example_keys,
    sample,
    unipc,
)
from jaxdiff.samplers.base import _run
from jaxdiff.typing import Denoised

GRID = grids.uniform(schedules.linear_vp(), 6)


def mlp(params, x, feature):
    """A network small enough to difference: two layers, the time as one more input."""
    h = jnp.tanh(x @ params["in"] + feature[:, None] * params["time"])
    return h @ params["out"]


def small_model():
    keys = jax.random.split(jax.random.key(5), 3)
    shapes = {"in": (3, 8), "time": (1, 8), "out": (8, 3)}
    params = {
        n: jax.random.normal(k, s) / 3 for k, (n, s) in zip(keys, shapes.items(), strict=True)
    }
    return make_denoiser(mlp, params, parametrization="v", time_feature="clock")


@pytest.fixture(scope="module")
def unet():
    """An untrained UNet whose zero last layer is shaken, so that it says something."""
    net = UNet(channels=8, multipliers=(1, 2), blocks=1, attention=(4,), groups=4)
    params = net.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), jnp.zeros(1))
    keys = iter(jax.random.split(jax.random.key(1), len(jax.tree.leaves(params))))
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(next(keys), p.shape), params)
    return make_denoiser(net.apply, params, parametrization="v", time_feature="thousandths")


@pytest.mark.slow
def test_image_depends_on_key_and_index_alone(unet, key):
    """Batches of 1, 7 and 64 and 8 devices: equal up to the rounding of differently tiled sums."""
    draw = lambda n, keys=key: sample(keys, unet, GRID, (n, 8, 8, 1), sampler=ddpm())  # noqa: E731
    whole = np.asarray(draw(64))
    assert whole.std() > 0.1
    for n in (1, 7):
        np.testing.assert_allclose(draw(n), whole[:n], atol=1e-4)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    keys = jax.device_put(example_keys(key, 64), NamedSharding(mesh, PartitionSpec("data")))
    spread = draw(64, keys)
    assert len(spread.sharding.device_set) == 8
    np.testing.assert_allclose(spread, whole, atol=1e-4)


@pytest.mark.slow
def test_gradient_by_network_parameters(x64):
    """Against central differences of step 1e-6, which err by some 1e-9."""
    model, noise = small_model(), draw_noise(jax.random.key(2), GRID, ddim(0.5), (2, 3))
    x_T = jax.random.normal(jax.random.key(3), (2, 3))

    @jax.jit
    def value(params):
        denoise = model.with_params(params)
        x = sample(None, denoise, GRID, (2, 3), sampler=ddim(0.5), x_T=x_T, noise=noise)
        return jnp.sum(x**2)

    params = jax.tree.map(lambda a: a.astype(jnp.float64), model.params)
    slopes = jax.grad(value)(params)
    for name, index in (("in", (0, 3)), ("time", (0, 1)), ("out", (4, 2))):
        moved = [{**params, name: params[name].at[index].add(h)} for h in (1e-6, -1e-6)]
        central = (value(moved[0]) - value(moved[1])) / 2e-6
        np.testing.assert_allclose(slopes[name][index], central, rtol=1e-6, atol=1e-8)


def test_other_parameters_compile_nothing(key):
    """Parameters are leaves: raw for averaged weights is the same program."""
    model = small_model()
    first = sample(key, model, GRID, (2, 3))
    before = _run._cache_size()
    second = sample(
        key, model.with_params(jax.tree.map(jnp.zeros_like, model.params)), GRID, (2, 3)
    )
    assert _run._cache_size() == before
    assert np.any(np.asarray(first) != np.asarray(second))


def test_plain_function_compiles_once(key):
    """The same function is the same program; its hyperparameters come as the grid and sampler."""

    def denoise(x, level):
        return Denoised(0 * x, x / level.sigma)

    sample(key, denoise, GRID, (2, 3), sampler=ddim(0.1))
    before = _run._cache_size()
    for eta in (0.7, jnp.asarray(0.2), np.float64(0.3)):
        sample(
            key,
            denoise,
            grids.uniform(schedules.linear_vp(0.2, 15.0), 6),
            (2, 3),
            sampler=ddim(eta),
        )
    assert _run._cache_size() == before


def test_vmap_over_eta_is_a_loop(key):
    """A sweep of a hyperparameter is one program; ten etas, float32 rounding."""
    model, etas = small_model(), jnp.linspace(0, 1, 10)
    run = lambda eta: sample(key, model, GRID, (2, 3), sampler=ddim(eta))  # noqa: E731
    np.testing.assert_allclose(jax.vmap(run)(etas), jnp.stack([run(e) for e in etas]), atol=1e-5)


def test_path_and_callback(key):
    """The path runs from x_T to x_0, and the callback sees each of its states."""
    seen = {}
    model, x_T = small_model(), jax.random.normal(key, (2, 3))
    path = sample(
        key,
        model,
        GRID,
        (2, 3),
        x_T=x_T,
        keep_path=True,
        callback=lambda k, x: seen.update({int(k): np.asarray(x)}),
    )
    jax.effects_barrier()
    assert path.shape == (7, 2, 3)
    np.testing.assert_array_equal(path[0], x_T)
    np.testing.assert_allclose(path[-1], sample(key, model, GRID, (2, 3), x_T=x_T), atol=1e-6)
    assert sorted(seen) == list(range(6))
    for k, x in seen.items():
        np.testing.assert_array_equal(x, path[k + 1])


def test_start_has_the_deviation_of_the_prior(key):
    """EDM starts at N(0, 80**2): 4096 draws, standard error 1.1 %."""
    grid = grids.karras(schedules.edm(), 1)
    still = lambda x, level: Denoised(x, 0 * x)  # noqa: E731
    path = sample(key, still, grid, (4096, 1), keep_path=True)
    assert abs(float(jnp.std(path[0])) / 80 - 1) < 0.05


def test_legacy_keys_are_taken(key):
    """`jax.random.PRNGKey(0)` is the same key as `jax.random.key(0)`."""
    model = small_model()
    old = sample(jax.random.PRNGKey(0), model, GRID, (2, 3))
    np.testing.assert_array_equal(old, sample(key, model, GRID, (2, 3)))


def test_a_sampler_of_your_own_in_twenty_lines(key):
    """The README's example: Euler in sigma / alpha, written by a user, is DDIM at eta = 0."""
    from jaxdiff import arrays

    @arrays.pytree
    class Euler:
        noises = 0

        def init(self, x_T, denoise, grid):
            return ()

        def step(self, x, memory, denoise, noise, *, k, t, s, grid):
            d = denoise(x, t)
            h = s.sigma / s.alpha - t.sigma / t.alpha
            return s.alpha * (x / t.alpha + h * d.eps), memory

    own = sample(key, small_model(), GRID, (4, 3), sampler=Euler())
    np.testing.assert_allclose(own, sample(key, small_model(), GRID, (4, 3)), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [schedules.cosine(), schedules.rectified()])
def test_data_prediction_starts_at_zero_snr_as_ddim(schedule, x64):
    """Out of alpha = 0 one step of any of them is x_s = sigma_s / sigma_t x_t + alpha_s x0."""
    model = small_model()
    grid = grids.from_steps(schedule, [1.0, 0.7], end=None)
    x_T = jax.random.normal(jax.random.key(3), (2, 3))
    x0, s = model(x_T, schedule(1.0)).x0, schedule(0.7)
    for sampler in (dpmpp_2m(), dpmpp_3m(), unipc(3)):
        x = sample(None, model, grid, (2, 3), sampler=sampler, x_T=x_T)
        np.testing.assert_allclose(x, s.sigma * x_T + s.alpha * x0, rtol=1e-5)


def test_linen_modules_as_they_are(key):
    """With and without `train` and a condition in their call, for sampling and for training."""

    class Bare(nn.Module):
        @nn.compact
        def __call__(self, x, t):
            return nn.Dense(3)(x) * t[:, None]

    class Full(nn.Module):
        @nn.compact
        def __call__(self, x, t, cond, train=False):
            h = nn.Dropout(0.5, deterministic=not train)(x + cond[:, None])
            return nn.Dense(3)(h)

    x = jax.random.normal(key, (4, 3))
    for net, cond in ((Bare(), None), (Full(), jnp.arange(4.0))):
        given = () if cond is None else (cond,)
        params = net.init(key, x, jnp.ones(4), *given)
        model = make_denoiser(
            net.apply, params, parametrization="v", time_feature="clock", cond=cond
        )
        assert sample(key, model, GRID, (4, 3)).shape == (4, 3)
        loss, _ = losses.denoising(key, model, x, schedules.linear_vp())
        assert np.isfinite(loss)
    with pytest.raises(ValueError, match="unconditional"):
        make_denoiser(Bare().apply, {}, parametrization="v", time_feature="clock", cond=jnp.ones(4))
