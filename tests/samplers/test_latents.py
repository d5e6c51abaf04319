"""Encoding against the exact flow of a Gaussian, and the geometry of paths between latents."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import exact, grids, schedules
from jaxdiff.samplers import circular, ddim, ddim_encode, heun_encode, sample, slerp

pytestmark = pytest.mark.usefixtures("strict", "x64")


@pytest.mark.slow
@pytest.mark.parametrize(("encode", "order"), [(ddim_encode, 1), (heun_encode, 2)])
@pytest.mark.parametrize(
    "schedule", [schedules.linear_vp(), schedules.edm(0.002, 10.0)], ids=["vp", "edm"]
)
def test_order_on_the_exact_flow(encode, order, schedule, key):
    """x_t = x_s sqrt(v(t) / v(s)), v = alpha**2 c + sigma**2, from a noisy start upwards."""
    c, x_s = 0.25, jax.random.normal(key, (4, 3)) / 2
    model = exact.gaussian(jnp.zeros(3), c * jnp.eye(3))
    errors = []
    for n in (40, 80, 160):
        levels = grids.karras(schedule, n, end=None).levels
        v = levels.alpha**2 * c + levels.sigma**2
        grid = grids.from_levels(levels, end=None)
        errors.append(jnp.max(jnp.abs(encode(model, grid, x_s) - x_s * jnp.sqrt(v[0] / v[-1]))))
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    np.testing.assert_allclose(orders, order, atol=0.1)  # the next order adds O(1/40) of it


@pytest.mark.parametrize("encode", [ddim_encode, heun_encode])
def test_from_clean_data_to_pure_noise(encode, key):
    """On rectified flow x_T = x_0 / sqrt(c): the clean start and alpha_T = 0 both stand."""
    c, x_0 = 0.25, jax.random.normal(key, (4, 3)) / 2
    model = exact.gaussian(jnp.zeros(3), c * jnp.eye(3))
    errors = [
        float(
            jnp.max(jnp.abs(encode(model, grids.uniform(schedules.rectified(), n), x_0) - 2 * x_0))
        )
        for n in (50, 100)
    ]
    assert errors[1] < 0.6 * errors[0]  # first order at least: half, and a fifth for the tail
    assert errors[1] < 0.1


@pytest.mark.slow
def test_round_trip_falls_with_steps(key):
    """Encode and decode on a mixture: the error is O(1/K)."""
    model = exact.gaussian_mixture(
        jnp.asarray([0.4, 0.6]), jnp.asarray([[1.0], [-1.0]]), jnp.full((2, 1, 1), 0.1)
    )
    x_0 = model.sample(key, 16)
    errors = []
    for n in (80, 160):
        grid = grids.uniform(schedules.linear_vp(), n)
        x_T = ddim_encode(model, grid, x_0)
        gap = sample(key, model, grid, x_0.shape, x_T=x_T) - x_0
        errors.append(float(jnp.sqrt(jnp.mean(gap**2))))
    assert errors[-1] < 0.1
    assert 0.8 < np.log2(errors[0] / errors[1]) < 1.3  # some of O(1/K**2) is left at 80 steps


def test_padded_grids_encode_alike(key):
    """The clean end repeated is passed over, and vmap over grids is a loop."""
    model = exact.gaussian(jnp.zeros(2), 0.5 * jnp.eye(2))
    x_0 = jax.random.normal(key, (3, 2))
    lengths = (4, 9)
    made = [grids.uniform(schedules.linear_vp(), n) for n in lengths]
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *[grids.pad(g, 9) for g in made])
    together = jax.vmap(lambda g: heun_encode(model, g, x_0))(stacked)
    for found, grid in zip(together, made, strict=True):
        np.testing.assert_allclose(found, heun_encode(model, grid, x_0), rtol=1e-12)


def test_slerp_keeps_norm_and_angle(key):
    """On the unit sphere: norms stay 1 and the angle to `a` grows evenly; ends are exact."""
    a, b = (
        v / jnp.linalg.norm(v, axis=1, keepdims=True) for v in jax.random.normal(key, (2, 5, 7))
    )
    total = jnp.arccos(jnp.sum(a * b, axis=1))
    for f in (0.0, 0.25, 0.5, 1.0):
        c = slerp(a, b, f)
        np.testing.assert_allclose(jnp.linalg.norm(c, axis=1), 1, rtol=1e-12)
        cos = jnp.clip(jnp.sum(a * c, axis=1), -1, 1)
        np.testing.assert_allclose(jnp.arccos(cos), f * total, atol=1e-7)  # arccos at 1: sqrt(eps)
    np.testing.assert_allclose(slerp(a, a, 0.3), a, rtol=1e-12)


def test_slerp_gradient_is_finite_for_parallel_vectors():
    """The limit of the formula is a straight line, and its gradient too."""
    slope = jax.grad(lambda a: jnp.sum(slerp(a, jnp.ones((1, 3)), 0.3)))(jnp.ones((1, 3)))
    np.testing.assert_allclose(slope, 0.7, rtol=1e-12)


def test_circular_keeps_the_variance():
    """Var = cos**2 + sin**2 = 1 by algebra, on vectors orthogonal by construction."""
    a, b = jnp.eye(4)[:2][:, None]
    for f in np.linspace(0, 1, 5):
        np.testing.assert_allclose(jnp.sum(circular(a, b, f) ** 2), 1, rtol=1e-12)


def test_same_latent_other_steps():
    """Determinism: 50 and 100 DDIM steps of one x_T agree, correlation above .99."""
    model = exact.gaussian_mixture(
        jnp.asarray([0.5, 0.5]), jnp.asarray([[1.0], [-1.0]]), jnp.full((2, 1, 1), 0.05)
    )
    x_T = jax.random.normal(jax.random.key(2), (256, 1))
    runs = [
        sample(
            jax.random.key(0),
            model,
            grids.uniform(schedules.linear_vp(), n),
            (256, 1),
            sampler=ddim(),
            x_T=x_T,
        )
        for n in (50, 100)
    ]
    assert np.corrcoef(np.ravel(runs[0]), np.ravel(runs[1]))[0, 1] > 0.99
