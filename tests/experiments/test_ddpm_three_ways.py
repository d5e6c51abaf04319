"""Truth: the three routes against the library's kernel and posterior, both sides of the variance
reduction in closed form for linear f, and Monte Carlo with its standard errors."""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import gaussian, reverse, schedules
from jaxdiff.typing import Denoised
from tests import battery

PATH = pathlib.Path(__file__).parents[2] / "experiments" / "ddpm_three_ways.py"

pytestmark = pytest.mark.usefixtures("x64")


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ways = load(PATH)
CHAINS = ["linear", "scaled_linear", "su", "cosine"]


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("way", ["build", "autoencoder", "bayes"])
def test_each_way_is_the_librarys_step(name, way):
    betas = battery.BETAS[name]
    schedule, n = schedules.from_betas(betas), np.arange(len(betas))
    t, s = schedule(jnp.asarray(n + 1)), schedule(jnp.asarray(n))
    x_t, eps = jax.random.normal(jax.random.key(0), (2, len(betas), 1))
    x0 = (x_t - t.sigma[:, None] * eps) / t.alpha[:, None]
    mean = getattr(ways, way)(ways.steps(betas), x_t[:, 0], eps[:, 0])
    kernel = reverse.p_reverse(Denoised(x0, eps), x_t, t=t, s=s).mean[:, 0]
    posterior = gaussian.q_posterior(x0, x_t, t=t, s=s).mean[:, 0]
    # of the larger of the two terms: x_t / sqrt(a_t) reaches 31.6 |x_t| where cosine betas are .999
    size = np.maximum(1, np.abs(x_t[:, 0]) / np.sqrt(1 - betas))
    for library in (kernel, posterior):
        np.testing.assert_array_less(np.abs(mean - library), 1e-12 * size)


@pytest.mark.parametrize("name", CHAINS)
def test_the_variational_weight_is_the_kl_of_the_two_posteriors(name):
    betas = battery.BETAS[name]
    c, schedule = ways.steps(betas), schedules.from_betas(betas)
    n = np.arange(2, len(betas) + 1)  # the posterior of step 1 is a point
    t, s = schedule(jnp.asarray(n)), schedule(jnp.asarray(n - 1))
    x_t = jnp.ones((len(n), 1))
    said = [Denoised((x_t - t.sigma[:, None] * e) / t.alpha[:, None], e) for e in (x_t, 1.5 * x_t)]
    var = reverse.small().std(said[0], t=t, s=s, eta=1.0) ** 2
    kl = gaussian.normal_kl(*(reverse.p_reverse(d, x_t, t=t, s=s) for d in said))[:, 0]
    step = ways.Step(*(np.asarray(field)[1:] for field in c))
    # KL of two Gaussians of one variance is all weight: ||e - eps||**2 is .25; log(1) leaves 1e-16
    weight = ways.autoencoder_weight(step, np.asarray(var))
    np.testing.assert_allclose(kl, 0.25 * weight, rtol=1e-9, atol=1e-15)
    formula = step.beta**2 / (2 * np.asarray(var) * step.a * step.bb)
    np.testing.assert_allclose(weight, formula, rtol=1e-11)


def linear(params, x):
    return params["slope"] * x


def sides(c, slope, data_var, d):
    """Both sides of the identity for f = slope x and data N(0, data_var I), as Gaussian moments."""
    var = c.ab * data_var + c.bb  # of x_t
    left = d * (1 - 2 * slope * np.sqrt(c.beta) + slope**2 * var)
    share = c.beta / c.bb
    inner = d * (1 - 2 * slope / np.sqrt(share) * np.sqrt(c.bb) + slope**2 / share * var)
    return left, share * inner + d * (1 - share)


@pytest.mark.parametrize("t", [1, 2, 100, 1000])
def test_the_identity_holds_exactly_and_by_monte_carlo(t):
    c = ways.Step(*(field[t - 1] for field in ways.steps(battery.BETAS["linear"])))
    for slope in (-1.0, 0.0, 0.4):
        left, right = sides(c, slope, 0.25, d=3)
        np.testing.assert_allclose(left, right, rtol=1e-12)
    found = ways.compare(
        jax.random.key(t), linear, {"slope": jnp.asarray(0.4)}, c, dim=3, samples=40000
    )
    for name in ("four", "three"):
        mean, error = found[name]
        assert abs(mean - right) < 4 * error
    assert found["z"] < 4
    # The gradients by the slope are -2 e_t.x + ... and differ by 2 sqrt(1 - beta/bb) w.x with w
    # independent of x, so the variances differ by 4 (1 - beta/bb) d Var(x_t).
    share, var = c.beta / c.bb, c.ab * 0.25 + c.bb
    extra = 4 * (1 - share) * 3 * var
    four, three = found["variances"]
    # variances of 40000 draws with the tails of a square: some 2 % each
    assert abs(four - three - extra) < 0.08 * four
    if t > 1:
        assert four > 1.2 * three
    else:
        assert four == pytest.approx(three, rel=0.08)  # one noise is all there is


def test_the_identity_holds_for_a_network():
    c = ways.Step(*(field[499] for field in ways.steps(battery.BETAS["linear"])))
    params = ways.start(jax.random.key(0), dim=3, width=4)
    found = ways.compare(jax.random.key(1), ways.network, params, c, dim=3, samples=20000)
    (four, four_error), (three, three_error) = found["four"], found["three"]
    assert abs(four - three) < 4 * np.hypot(four_error, three_error)
    assert three_error < four_error / 2
    assert found["z"] < 3  # a root mean square over 24 parameters
    assert found["variances"][0] > 2 * found["variances"][1]


def test_the_table_is_printed(capsys):
    ways.main(samples=200)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 2 * len(ways.TIMES) + 4
    gap, off = (float(line.split()[0].rstrip(";")) for line in lines[7].split(": ")[1:])
    assert gap < 1e-12
    assert off < 1e-11
