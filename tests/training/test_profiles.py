"""Averages by powers of time, and others rebuilt from their snapshots.

Truth: the telescoped weights of the recursion; inner products by quadrature; the published pairs
of widths and powers; averages kept directly, on the parameters of a random walk.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from jaxdiff import training
from jaxdiff.training import ema, profiles


def walk(steps, seed=0):
    """Parameters that settle as a training's do: noise around a path that slows down."""
    rng = np.random.default_rng(seed)
    t = np.arange(1, steps + 1)[:, None]
    return np.sqrt(t / steps) + 0.1 * rng.normal(size=(steps, 3))


def averages(values, gammas, at):
    """By the recursion, in float64: {step: [len(gammas), 3]}."""
    kept, found = np.zeros((len(gammas), values.shape[1])), {}
    for t, value in enumerate(values):
        decay = (t / (t + 1)) ** (np.asarray(gammas)[:, None] + 1)
        kept = decay * kept + (1 - decay) * value
        if t + 1 in at:
            found[t + 1] = kept
    return found


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("width", [0.05, 0.25])
def test_weights_are_a_power_of_time(width):
    values, decay = walk(60), ema.power(width)
    average = ema.init({"w": jnp.zeros(3)}, decay)
    for step, value in enumerate(values):
        average = ema.update(average, {"w": jnp.asarray(value)}, step=step, decay=decay)
    n, power = np.arange(1, 61), float(decay.gamma) + 1
    weights = (n**power - (n - 1) ** power) / 60**power  # the product of decays telescopes
    np.testing.assert_allclose(average["w"], weights @ values, rtol=1e-12)


@pytest.mark.parametrize(("width", "gamma"), [(0.05, 16.97), (0.10, 6.94), (0.15, 3.56)])
def test_published_powers(width, gamma):
    """Section 3.1: widths of 5 % and 10 % are gamma = 16.97 and 6.94; 15 % by the same equation."""
    found = float(ema.power(width).gamma)
    np.testing.assert_allclose(found, gamma, atol=6e-3)
    # and the width is the deviation of the density p(t) on [0, 1]
    density = lambda t: (found + 1) * t**found  # noqa: E731
    mean = integrate.quad(lambda t: t * density(t), 0, 1)[0]
    var = integrate.quad(lambda t: (t - mean) ** 2 * density(t), 0, 1)[0]
    np.testing.assert_allclose(var**0.5, width, rtol=1e-6)  # gamma is float32


@pytest.mark.parametrize(("ta", "tb"), [(3.0, 7.0), (7.0, 3.0), (5.0, 5.0)])
def test_inner_products_by_quadrature(ta, tb):
    ga, gb = 2.5, 6.0
    profile = lambda t, end, g: (g + 1) * t**g / end ** (g + 1)  # noqa: E731
    product = lambda t: profile(t, ta, ga) * profile(t, tb, gb)  # noqa: E731
    wanted = integrate.quad(product, 0, min(ta, tb))[0]
    found = profiles.inner_products([ta], [ga], [tb], [gb])[0, 0]
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_rebuilt_is_what_was_kept():
    """Two powers, 16 snapshots each, and widths between, below and above them.

    What the profiles differ by, `misfit` tells: averages of noise differ by its deviation times
    the norm of the difference, five of these, and those of the path, sqrt(t / 1600), by its own
    norm times that at most (Cauchy and Schwarz). Steps are not a continuum: 1 / 1600 of it.
    """
    steps, kept = 1600, [float(ema.power(w).gamma) for w in (0.05, 0.1)]
    values, at = walk(steps), range(100, steps + 1, 100)
    snapshots = averages(values, kept, at)
    times, gammas = np.repeat(list(at), 2), np.tile(kept, len(at))
    trees = [row for step in at for row in snapshots[step]]
    for width in (0.04, 0.07, 0.12, 0.2):
        gamma = float(ema.power(width).gamma)
        for end in (steps, 1000):
            off = profiles.misfit(times, gammas, end, gamma)
            norm = profiles.inner_products([end], [gamma], [end], [gamma])[0, 0] ** 0.5
            assert off < 0.1
            rebuilt = profiles.combine(profiles.coefficients(times, gammas, end, gamma), trees)
            direct = averages(values[:end], [gamma], {end})[end][0]
            bound = (5 * 0.1 + (steps / 2) ** 0.5) * off * norm + 1 / steps
            np.testing.assert_allclose(rebuilt, direct, atol=bound)


def test_a_snapshot_is_rebuilt_as_itself():
    gamma = float(ema.power(0.1).gamma)
    weights = profiles.coefficients([50, 100, 150], [gamma] * 3, 100, gamma)
    np.testing.assert_allclose(weights, [0, 1, 0], atol=1e-9)
    few = profiles.coefficients([50, 100], [gamma] * 2, 100, 2 * gamma)
    np.testing.assert_allclose(few.sum(), 1, rtol=1e-12)  # what never moved is kept
    assert profiles.misfit([50, 100], [gamma] * 2, 100, gamma) < 1e-6
    # nothing of a profile that ends before all that is wanted
    assert profiles.misfit([1], [gamma], 1e6, gamma) > 0.99


def test_training_carries_them():
    """Beside an exponential one; a population has a power for each member."""
    optimizer, params = training.adam(), {"w": 1.0}

    def loss_fn(params, batch, key, hyper, aux):
        return (params["w"] - batch["x"].mean()) ** 2, ({}, aux)

    step = jax.jit(training.make_train_step(loss_fn, optimizer))
    decays = {"0.9": 0.9, "wide": ema.power(0.2)}
    hyper = {"lr": 0.1, "ema_decay": decays}
    state = training.init_state(jax.random.key(0), params, optimizer, hyper=hyper)
    seen = []
    for _ in range(12):
        state, _ = step(state, {"x": jnp.ones(4)})
        seen.append(float(state.params["w"]))
    power = float(decays["wide"].gamma) + 1
    n = np.arange(1, 13)
    weights = (n**power - (n - 1) ** power) / 12**power
    np.testing.assert_allclose(state.ema["wide"]["w"], weights @ seen, rtol=1e-5)

    members = ema.power(np.array([0.05, 0.2]))
    both = jax.vmap(lambda decay: ema.decay_at(3, decay))(members)
    np.testing.assert_allclose(both, (3 / 4) ** (np.asarray(members.gamma) + 1), rtol=1e-6)


def test_refuses():
    for width in (0.0, 0.3, np.nan, [0.1, 0.5]):
        with pytest.raises(ValueError, match="width must be in"):
            ema.power(width)
    for times, gammas in (([], []), ([1, 2], [1])):
        with pytest.raises(ValueError, match="times and gammas must be"):
            profiles.coefficients(times, gammas, 1, 1.0)
