"""Truth: laws and densities of Gaussians by SciPy, the calls that algorithms make by definition."""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxdiff as jd
from jaxdiff import exact, grids, likelihood, sde

FOLDER = pathlib.Path(__file__).parents[2] / "experiments"


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


truth, records = load("sde_truth"), load("records")
on_mixture, on_images, bench = load("sde_mixture"), load("sde_images"), load("bench_likelihood")


def test_ks_distance():
    """True draws stay below the 1 - 1e-4 quantile of the law for each of four directions; draws
    that are moved by d lie |F(y) - F(y - d)| off, and such as are far away lie 1 off."""
    x = np.asarray(truth.mixture().sample(jax.random.key(0), 4000))
    assert truth.ks_distance(x) < stats.kstwo.ppf(1 - 1e-4 / 4, len(x))
    assert truth.ks_distance(x + 100) == pytest.approx(1)
    # along the first axis alone: an upper bound of the density is that of each component
    std = np.sqrt(np.asarray(truth.mixture().covs)[:, 0, 0])
    steepest = np.sum(np.asarray(truth.mixture().weights) / std) / np.sqrt(2 * np.pi)
    moved = truth.ks_distance(x + np.array([0.05, 0.0]))
    assert 0.01 < moved < 0.05 * steepest + 0.04  # .04: what true draws may lie off themselves


def test_the_residual_is_rounding_and_sees_a_wrong_equation():
    schedule = truth.KINDS["sub-VP"]
    with jax.enable_x64(True):
        model, forward = truth.mixture(), sde.forward(schedule)
        times = jnp.asarray([0.1, 0.6])
        half = lambda t: forward.diffusion(t) ** 2 / 2  # noqa: E731
        right = float(truth._residual(model, schedule, times, 8, forward.drift, half))
        half = lambda t: 0.51 * forward.diffusion(t) ** 2  # noqa: E731
        wrong = float(truth._residual(model, schedule, times, 8, forward.drift, half))
    assert right < 1e-12  # some hundred roundings of float64
    assert wrong > 1e-3  # one part in fifty of a term that is of the order of the largest


@pytest.mark.parametrize("name", ["euler_maruyama", "heun", "ddpm + langevin"])
def test_calls_are_equal(name):
    """Heun of K steps calls 2 K - 1 times: once in the step into the clean end."""
    count = []

    def denoise(x, level):
        jax.debug.callback(lambda: count.append(1))
        return jd.Denoised(0 * x, x / level.sigma)

    way = on_mixture.SAMPLERS[name]
    assert way.calls == on_images.SAMPLERS[name].calls
    grid = grids.uniform(truth.KINDS["VP"], on_mixture.steps_of(name, 8))
    jax.block_until_ready(on_mixture._drawn(denoise, grid, way.make(), 2, jax.random.key(0)))
    jax.effects_barrier()
    assert len(count) == (7 if name == "heun" else 8)
    assert on_images.steps_of(name, 8) == on_mixture.steps_of(name, 8)


@pytest.mark.slow
def test_both_solves_are_the_gaussian_density():
    """N(0, c) on VP has p_T = N(0, 1) to alpha_T**2 = 4e-5 of its variance, 1e-4 nats; noise of
    START, sigma**2 = .001, is added to c; tolerances are 1e-4 a step, of some twenty."""
    mean, cov = np.zeros(2), np.array([[0.5, 0.2], [0.2, 0.3]])
    model = exact.gaussian(mean, cov)
    x = model.sample(jax.random.key(0), 4)
    case = bench.Case("gaussian", model.denoise, x, likelihood.exact())
    level = case.schedule(jnp.float32(bench.START))
    spread = cov + float(level.sigma / level.alpha) ** 2 * np.eye(2)
    wanted = stats.multivariate_normal(mean, spread).logpdf(np.asarray(x))
    host = bench.Host(case)
    np.testing.assert_allclose(host.solve(1e-4), wanted, atol=2e-3)
    assert host.calls > 10
    found, calls = case.solved(1e-4)
    np.testing.assert_allclose(found, wanted, atol=2e-3)
    assert int(calls) > 10


def test_records_come_back(tmp_path):
    rows = [on_mixture.Quality("VP", "tsit5, 0.01", 55, 0.5, 0.25)]
    records.write(tmp_path / "new" / "a.csv", rows)
    back = records.read(tmp_path / "new" / "a.csv")
    assert [tuple(row.values()) for row in back] == [("VP", "tsit5, 0.01", "55", "0.5", "0.25")]


@pytest.mark.slow
def test_mixture_in_its_shortest_form(tmp_path, capsys):
    on_mixture.main(tmp_path, kinds=("VP",), quick=True)
    rows = records.read(tmp_path / "nats.csv")
    flow = next(row for row in rows if row["estimator"] == "flow, exact trace")
    # the flow begins at sigma = .01, a tenth of which per narrowest deviation is felt: 1e-3
    assert abs(float(flow["apart"])) < 5e-3
    assert (tmp_path / "vp.png").stat().st_size > 1000
    assert "residual of the Fokker-Planck equation" in capsys.readouterr().out


@pytest.mark.slow
def test_images_in_their_shortest_form(tmp_path):
    on_images.main(tmp_path, kinds=("VE",), quick=True)
    samples = records.read(tmp_path / "samples.csv")
    floor = samples[-1]
    assert floor["sampler"] == "floor"
    # hardly trained at all: no draw is as near as digits are
    assert all(float(row["distance"]) > float(floor["distance"]) for row in samples[:-1])
    rows = {row["estimator"]: row for row in records.read(tmp_path / "likelihood.csv")}
    one, other = rows["hutchinson(4), same images"], rows["exact"]
    assert float(other["probes"]) == 0
    # the same images and the same spread over their bins: probes alone tell them apart
    error = max(float(one["probes"]), 1e-4)
    assert abs(float(one["bits"]) - float(other["bits"])) < 5 * error
    assert (tmp_path / "samples.png").stat().st_size > 1000


@pytest.mark.slow
def test_bench_in_its_shortest_form(capsys):
    bench.main(quick=True)
    said = capsys.readouterr().out
    assert "one program against SciPy" in said
    assert "4 fixed steps" in said
