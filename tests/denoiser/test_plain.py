"""Truth: the model itself, asked directly; its loss is held to numpy where losses are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import exact, losses, schedules
from jaxdiff.denoiser import as_denoiser
from jaxdiff.typing import Denoise

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


@pytest.mark.slow
def test_gradients_of_a_loss_reach_the_model(key):
    x0 = 3 + jax.random.normal(jax.random.key(1), (5, 1))

    def loss(mean):
        gaussian = exact.gaussian(mean, jnp.eye(1))
        return losses.denoising(key, as_denoiser(gaussian), x0, schedules.linear_vp())[0]

    assert float(jax.jit(jax.grad(loss))(jnp.zeros(1))[0]) < -1e-3  # towards the data


def test_it_takes_no_condition_and_no_other_thing():
    model: Denoise = exact.gaussian([0.0], [[1.0]])
    with pytest.raises(ValueError, match="takes none"):
        as_denoiser(model).with_cond(jnp.zeros(3, int))
    with pytest.raises(TypeError, match="function"):
        as_denoiser(0.5)
