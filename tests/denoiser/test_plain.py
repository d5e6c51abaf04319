"""Truth: the model itself, asked directly; the loss of an exact Gaussian model written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import exact, losses, schedules
from jaxdiff.denoiser import as_denoiser
from jaxdiff.typing import Denoise, Denoised

pytestmark = pytest.mark.usefixtures("strict")


def test_it_says_what_the_model_says():
    model, schedule = exact.gaussian([0.2, -0.1], [[0.5, 0.1], [0.1, 0.3]]), schedules.cosine()
    x, level = jnp.asarray([[0.3, 1.0], [-2.0, 0.4]]), schedule(jnp.asarray([0.3, 1.0]))
    denoiser = as_denoiser(model)
    both = jax.jit(lambda d: (d(x, level), d.raw(x, level), model(x, level)))
    ours, raw, wanted = both(denoiser)
    jax.tree.map(np.testing.assert_array_equal, ours, wanted)
    np.testing.assert_array_equal(raw, wanted.eps)
    assert len(jax.tree.leaves(denoiser)) == 3  # weights, means and covariances


def test_its_loss_is_the_error_of_its_eps_and_gradients_reach_it(key):
    seen, schedule = [], schedules.linear_vp()

    def model(x_t, level):
        seen.append((x_t, level))
        return Denoised(0 * x_t, jnp.cos(x_t))

    x0 = jax.random.normal(jax.random.key(1), (5, 2, 2))
    _, metrics = losses.denoising(key, as_denoiser(model), x0, schedule)
    x_t, level = seen[0]
    alpha, sigma = (a[:, None, None] for a in (level.alpha, level.sigma))
    wanted = np.mean((jnp.cos(x_t) - (x_t - alpha * x0) / sigma) ** 2, axis=(1, 2))
    # noise is recovered by a difference over a sigma of .05 and more
    np.testing.assert_allclose(metrics["per_example"], wanted, rtol=1e-3)

    def loss(mean):
        gaussian = exact.gaussian(mean, jnp.eye(1))
        return losses.denoising(key, as_denoiser(gaussian), 3 + x0[:, 0, :1], schedule)[0]

    assert float(jax.jit(jax.grad(loss))(jnp.zeros(1))[0]) < -1e-3  # towards the data


def test_it_takes_no_condition_and_no_other_thing():
    model: Denoise = exact.gaussian([0.0], [[1.0]])
    with pytest.raises(ValueError, match="takes none"):
        as_denoiser(model).with_cond(jnp.zeros(3, int))
    with pytest.raises(TypeError, match="function"):
        as_denoiser(0.5)
