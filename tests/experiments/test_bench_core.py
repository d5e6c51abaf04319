"""Truth: SciPy's correlations, the layers that a network has by definition, and the schedule."""

import bench_core
import convolutions
import core_runs
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
import weights
from bench_samplers import Bench

from jaxdiff import grids, models, schedules
from jaxdiff.samplers import draw_start, sample

WIDTH = 8


def small(name):
    if name == "mlp":
        module, shape = models.MLP(width=8, depth=1), (4, 2)
    else:
        module, shape = models.UNet(8, (1,), 1, (), groups=4, skip="add"), (2, 4, 4, 1)
    params = weights.drawn(module, jnp.zeros(shape), jnp.zeros(shape[0]))
    return Bench(name, module, params, shape)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet", "mlp"])
def test_sample_compiles_to_the_operations_of_a_scan(name):
    _, held = bench_core._pair(small(name), 3)
    assert held["ours"] == held["scan"]
    assert held["ours"]["dot"] > 0
    assert (held["ours"]["convolution"] > 0) == (name == "unet")


def test_sample_is_the_scan():
    """From the same start; float32 over three steps, each of which scales by up to e**3."""
    bench, grid = small("mlp"), grids.uniform_log_snr(schedules.linear_vp(), 3)
    key = jax.random.key(0)
    x_T = draw_start(key, grid, bench.shape)
    wanted = bench_core.by_hand(bench, x_T, bench.params, grid)
    got = sample(key, bench.denoiser, grid, bench.shape)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


def test_operations_are_counted():
    def f(x, a):
        y = convolutions.plain(x, jnp.ones((3, 3, 2, 2)))
        return jnp.tanh(y.reshape(4, 8) @ a) @ a

    program = jax.jit(f).lower(jnp.ones((1, 4, 4, 2)), jnp.ones((8, 8))).compile().as_text()
    assert bench_core.count_operations(program) == {"convolution": 1, "dot": 2}


def test_forms_of_convolution():
    """Sums of 27 products of order one: float32's rounding, twice it for Winograd's additions."""
    generator = np.random.default_rng(0)
    x, k = generator.normal(size=(2, 4, 6, 3)), generator.normal(size=(3, 3, 3, 2))
    wanted = np.zeros((2, 4, 6, 2))
    for b, c, f in np.ndindex(2, 3, 2):
        wanted[b, ..., f] += scipy.signal.correlate2d(x[b, ..., c], k[..., c, f], mode="same")
    x, k, weight = (jnp.asarray(a, jnp.float32) for a in (x, k, np.cos(wanted)))

    @jax.jit
    def all_of_them(x, k):
        return {
            name: (form(x, k), jax.vjp(form, x, k)[1](weight))
            for name, form in convolutions.FORMS.items()
        }

    found = all_of_them(x, k)
    for y, gradients in found.values():
        np.testing.assert_allclose(y, wanted, atol=1e-5 * np.abs(wanted).max())
        for got, expected in zip(gradients, found["plain"][1], strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())


def test_shapes_of_the_convolutions():
    """Two a block, the first changing the channels; two blocks a level, one more upwards."""
    wanted = {(3, 8, 8, 8): 4 + 5, (3, 4, 8, 16): 1, (3, 4, 16, 16): 3 + 4 + 6, (3, 8, 16, 8): 1}
    assert bench_core.shapes_of("unet", WIDTH, 3) == wanted


def test_a_network_through_another_form():
    """Left are the first and last convolution, of one channel, and one of stride 2."""
    module, params = core_runs.build("concat", WIDTH)
    inputs = jnp.zeros((1, 8, 8, 1)), jnp.zeros(1), jnp.zeros(1, jnp.int32)
    apply = convolutions.through(convolutions.shifted, module)
    text = str(jax.make_jaxpr(apply)(params, *inputs))
    assert text.count("conv_general_dilated[") == 3
    assert "conv_general_dilated[" in str(jax.make_jaxpr(module.apply)(params, *inputs))


def test_unknown_network():
    with pytest.raises(ValueError, match="network must be one of unet, concat, dit, got 'gan'"):
        core_runs.build("gan", WIDTH)


def test_the_benchmark_is_of_the_network_it_names():
    """What the issue of this benchmark measured before: 712,353 parameters."""
    shapes = jax.eval_shape(lambda: core_runs.build("unet", 32)[1])
    assert core_runs.count(shapes) == 712_353


@pytest.mark.slow
def test_rows():
    found = bench_core.training_rows("unet", WIDTH, 2, 2, 1, 1)
    names = [bench_core.ONE, *[bench_core.SPLIT] * (bench_core.CORES > 1), bench_core.TORCH]
    for rows in found.values():
        assert [row[0] for row in rows] == names
        assert all(len(row) == 5 for row in rows)
        assert float(rows[0][2]) > 0
    row = bench_core.sample_row(small("mlp"), 2, 3)
    assert row[0] == "mlp"
    assert row[-2] == "0 / 0"
    rows = bench_core.form_rows([(1, 4, 2, 2)], 1)
    assert len(rows) == len(convolutions.FORMS)
    assert rows[0][2] == "1.000"  # plain over plain


@pytest.mark.slow
def test_startup():
    rows = bench_core.startup_rows(WIDTH, 2, 1, 1)
    seconds = {row[0]: float(row[1]) for row in rows}
    assert seconds["import jaxdiff"] > 0
    # compiling is most of it, so less than half may pass for a cache that is read
    assert seconds["first sample, warm cache"] < 0.7 * seconds["first sample, cold cache"]


@pytest.mark.slow
def test_what_fails_elsewhere_is_noticed():
    elsewhere = core_runs.elsewhere(2, core_runs.our_training, "unet", WIDTH, 3)
    with pytest.raises((EOFError, ConnectionError)), elsewhere as run:
        run()


@pytest.mark.parametrize("name", ["unet", "dit"])
def test_torch_draws_what_we_draw(name):
    """Float32 through some 20 layers and 2 steps, of which errors are a share of the images."""
    pytest.importorskip("torch")
    call, leaves = core_runs.twin(name, WIDTH)
    assert core_runs.count(leaves) == core_runs.count(core_runs.build(name, WIDTH)[1])
    wanted = np.asarray(core_runs.our_draw(name, WIDTH, 3, 2)())
    got = np.moveaxis(core_runs.torch_draw(call, 3, 2)(), 1, -1)
    np.testing.assert_allclose(got, wanted, atol=1e-4 * np.abs(wanted).max())
    assert np.isfinite(core_runs.torch_training(call, leaves, 3)())


def test_diffusers_has_as_many_parameters():
    pytest.importorskip("diffusers")
    call, leaves = core_runs.twin("concat", WIDTH)
    assert core_runs.count(leaves) == core_runs.count(core_runs.build("concat", WIDTH)[1])
    assert np.isfinite(core_runs.torch_training(call, leaves, 3)())
    assert core_runs.torch_draw(call, 3, 2)().shape == (3, 1, 8, 8)


def test_torch_trains_on_our_noise_levels():
    """A model that solves x_t = alpha x_0 + sigma eps for eps by our schedule has no loss."""
    torch = pytest.importorskip("torch")
    x0, _ = core_runs._as_tensors(core_runs._examples(5))
    weight = torch.ones((), requires_grad=True)

    def solved(x_t, t, label):
        level = schedules.linear_vp()(np.asarray(t) / 1000)
        alpha, sigma = (
            torch.from_numpy(np.array(a))[:, None, None, None] for a in (level.alpha, level.sigma)
        )
        return weight * (x_t - alpha * x0) / sigma

    # at small t float32 loses what it divides by sigma again
    assert core_runs.torch_training(solved, [weight], 5)() < 1e-5
