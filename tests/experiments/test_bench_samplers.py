"""Truth: the calls that each algorithm makes by its definition, and arithmetic."""

import importlib.util
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import grids, models, samplers, schedules
from jaxdiff.denoiser import make_denoiser
from jaxdiff.samplers import sample

PATH = pathlib.Path(__file__).parents[2] / "experiments" / "bench_samplers.py"


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bench = load(PATH)


def small():
    module, shape = models.MLP(width=8, depth=1), (4, 2)
    params = module.init(jax.random.key(0), jnp.zeros(shape), jnp.zeros(4))
    return bench.Bench("mlp", module, params, shape)


def test_calls_are_counted():
    """Heun calls twice a step, into the clean end once."""
    grid = grids.uniform_log_snr(schedules.linear_vp(), 3)

    def run(apply):
        denoise = make_denoiser(apply, {}, parametrization="eps", time_feature="clock")
        return sample(jax.random.key(0), denoise, grid, (4, 2), sampler=samplers.heun())

    assert bench.count_calls(small(), run) == 5


@pytest.mark.slow
def test_rows():
    """The goal is for samplers of one call a step."""
    rows = bench.ours(small(), ("ddim", "heun"), 3, 1)
    assert [row[:2] for row in rows] == [["ddim", "3"], ["heun", "5"]]
    assert rows[0][-1] in ("met", "missed")
    assert rows[1][-1] == ""


def test_the_limit_calls_as_often():
    """A network that adds 1 has added as much as it was called."""

    class AddOne:
        def apply(self, params, x, t):
            return x + 1

    found = bench.alone(bench.Bench("mlp", AddOne(), {}, (4, 2)), 5)()
    np.testing.assert_array_equal(found, np.full((4, 2), 6.0))


def test_times_are_taken_in_turn():
    order = []

    def run(name, seconds):
        order.append(name)
        time.sleep(seconds)

    runs = {"a": lambda: run("a", 0.002), "b": lambda: run("b", 0.0)}
    times = bench.interleaved(runs, 2)
    assert "".join(order) == "ababab"  # the first of each is not timed
    assert np.all(times["a"] >= 0.002)
    assert bench.ratios(np.array([1.0, 2, 3]), np.ones(3)) == (2.0, 1.5, 2.5)


def test_unknown_network():
    with pytest.raises(ValueError, match="networks must be unet or mlp"):
        bench.build("gan")


@pytest.mark.parametrize("name", ["unet", "mlp"])
def test_torch_networks_are_ours(name, monkeypatch):
    """To float32's rounding through some 20 layers; outputs are of order one."""
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(PATH.parent))
    assert bench._torch_network(bench.build(name))[1] < 1e-5
