"""Standard errors by cause, and whether their intervals cover.

Truth: a nested normal model with known components, and the entropy of a mixture.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff as jd
from jaxdiff.likelihood import Estimate, concatenate, elbo, hutchinson, log_prob
from tests.likelihood.mixture import mixture

LEVELS = {"data": 1.0, "dequantisation": 0.6, "probes": 0.8}


def nested(seed, examples=20, draws=3, probes=4, repeats=400):
    """Values with standard deviations `LEVELS` by cause, [repeats, B, D, P]."""
    random = np.random.default_rng(seed)
    y = LEVELS["data"] * random.normal(size=(repeats, examples, 1, 1))
    y = y + LEVELS["dequantisation"] * random.normal(size=(repeats, examples, draws, 1))
    return y + LEVELS["probes"] * random.normal(size=(repeats, examples, draws, probes))


def test_components_are_those_of_the_model():
    """Mean squares over 400 sets: known to 4 %, that of a difference of two to 10 %."""
    values = jnp.asarray(nested(0), jnp.float32)
    errors = jax.vmap(lambda y: Estimate({"all": y}, 1, True, True).errors)(values)
    size = {"data": 20, "dequantisation": 60, "probes": 240}
    want = {name: LEVELS[name] ** 2 / size[name] for name in size}
    total = float(jnp.mean(errors.total**2))
    np.testing.assert_allclose(total, sum(want.values()), rtol=0.1)
    np.testing.assert_allclose(jnp.mean(errors.probes**2), want["probes"], rtol=0.05)
    for name in ("data", "dequantisation"):
        got = float(jnp.mean(getattr(errors, name) ** 2))
        np.testing.assert_allclose(got, want[name], rtol=0.15, err_msg=name)
    np.testing.assert_allclose(values.mean((1, 2, 3)).var(), total, rtol=0.25)


def test_what_cannot_be_told_is_nan():
    one = Estimate({"all": jnp.arange(6.0).reshape(3, 2, 1)}, 1, True, True)
    assert np.isnan(one.errors.probes), "one probe shows no spread"
    assert np.isfinite(one.errors.total)
    fixed = Estimate({"all": jnp.arange(3.0).reshape(3, 1, 1)}, 1, False, False)
    assert float(fixed.errors.probes) == 0 == float(fixed.errors.dequantisation)
    np.testing.assert_allclose(fixed.errors.data, fixed.errors.total)
    alone = Estimate({"all": jnp.ones((1, 1, 1))}, 1, False, False)
    assert np.isnan(alone.errors.total)
    with pytest.raises(ValueError, match="two examples"):
        alone.interval()
    with pytest.raises(ValueError, match="level must lie"):
        fixed.interval(1.0)


def test_terms_add_up_and_units():
    terms = {"prior": jnp.full((2, 1, 3), -1.0), "steps": jnp.full((2, 1, 3, 4), -0.5)}
    estimate = Estimate(terms, 6, False, True)
    np.testing.assert_allclose(estimate.mean, -3.0)
    np.testing.assert_allclose(estimate.bits_per_dim, 3 / (6 * np.log(2)), rtol=1e-6)
    by_term = estimate.bits_terms
    assert by_term["steps"].shape == (4,)
    total = sum(float(jnp.sum(term)) for term in by_term.values())
    np.testing.assert_allclose(total, estimate.bits_per_dim, rtol=1e-6)
    both = concatenate([estimate, estimate])
    assert both.values.shape == (4, 1, 3)
    with pytest.raises(ValueError, match="one kind"):
        concatenate([])
    fewer = Estimate({name: term[:, :, :2] for name, term in terms.items()}, 6, False, True)
    with pytest.raises(ValueError, match="equal draws"):
        concatenate(part for part in (estimate, fewer))


def coverage(estimate, truth, repeats=200):
    """How many of the 95 % intervals of equal parts of an estimate hold the truth."""
    size = estimate.values.shape[0] // repeats
    part = lambda i: jax.tree.map(lambda a: a[i * size : (i + 1) * size], estimate)  # noqa: E731
    held = [low < truth < high for low, high in (part(i).interval() for i in range(repeats))]
    return np.mean(held)


PLANE = jd.exact.gaussian_mixture(
    jnp.array([0.3, 0.7]),
    jnp.array([[0.8, 0.0], [-0.6, 0.4]]),
    jnp.array([[[0.05, 0.03], [0.03, 0.08]], [[0.1, -0.04], [-0.04, 0.05]]]),
)


def entropy_of_the_plane():
    """-E log p by an even grid that holds all of the mass, in numpy, to 1e-6 nats."""
    side = np.linspace(-3.5, 3.5, 1401)
    x, y = np.meshgrid(side, side, indexing="ij")
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    density = np.zeros(len(points))
    for w, mean, cov in zip(*(np.asarray(a, float) for a in jax.tree.leaves(PLANE)), strict=True):
        apart = points - mean
        power = np.einsum("ni,ij,nj->n", apart, np.linalg.inv(cov), apart)
        density += w * np.exp(-power / 2) / (2 * np.pi * np.sqrt(np.linalg.det(cov)))
    area = (side[1] - side[0]) ** 2
    assert abs(density.sum() * area - 1) < 1e-8
    return -float(np.sum(density * np.log(np.maximum(density, 1e-300))) * area)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ode-hutchinson", "ode-exact"])
def test_intervals_of_the_flow_cover_the_truth(method, key):
    """200 sets of 50 examples: 95 % intervals cover 90 to 99 % (two errors of 200 trials)."""
    x = PLANE.sample(key, 200 * 50)
    divergence = {"ode-exact": jd.divergence.exact(), "ode-hutchinson": hutchinson(2)}[method]
    found = log_prob(key, PLANE, x, jd.linear_vp(), divergence=divergence, start=1e-4)
    assert 0.90 <= coverage(found, -entropy_of_the_plane()) <= 0.99


@pytest.mark.slow
def test_intervals_of_the_bound_cover_the_truth(key):
    """The NELBO of the mixture at ten steps with large variance, .8639 nats (see test_bound)."""
    from tests.likelihood.test_bound import CHAIN, TABLE, even_grid, posterior_variance

    last_std = posterior_variance(jd.from_betas(CHAIN)(1.0)) ** 0.5
    x = mixture().sample(key, 200 * 50)
    how = {"variance": "large", "last_std": last_std, "draws": 2}
    found = elbo(key, mixture(), x, even_grid(10), **how)
    assert 0.90 <= coverage(found, -TABLE[10][1]) <= 0.99
