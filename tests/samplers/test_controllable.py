"""Conditional generation by predictor-corrector: a class by its classifier.

Truth: of a mixture the classifier of noisy data is known, p(m | x_t), and what it leads to is the
component itself.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxdiff as jd
from jaxdiff.guidance import classifier
from jaxdiff.samplers import annealed_langevin, predictor_corrector, reverse_diffusion

MIXTURE = jd.exact.gaussian_mixture(
    jnp.array([0.5, 0.5]), jnp.array([[-0.7], [0.7]]), jnp.full((2, 1, 1), 0.01)
)


def logits(x_t, level):
    """log p(x_t | m) of both components, up to what they share."""
    var = level.alpha**2 * 0.01 + level.sigma**2
    means = jnp.reshape(level.alpha, (-1, 1)) * jnp.array([[-0.7, 0.7]])
    return -((x_t - means) ** 2) / (2 * jnp.reshape(var, (-1, 1)))


@pytest.mark.parametrize("name", ["sub_vp", pytest.param("ve", marks=pytest.mark.slow)])
def test_a_classifier_and_pc_draw_the_class(name, key):
    """1,000 draws: the class in all, its mean to three errors; the distance that 1,000 true draws
    keep to 99 times of 100 is .052."""
    schedule = {"sub_vp": jd.sub_vp(), "ve": jd.ve()}[name]
    labels = jnp.ones(1000, jnp.int32)
    guided = classifier(MIXTURE, logits, labels, 1.0)
    sampler = predictor_corrector(reverse_diffusion(), annealed_langevin(0.1))
    grid = jd.grids.uniform(schedule, 100)
    x = np.asarray(jd.sample(key, guided, grid, (1000, 1), sampler=sampler))
    assert np.all(x > 0)
    assert abs(x.mean() - 0.7) < 3 * 0.1 / 1000**0.5 + 3e-3  # and 1 / K
    assert stats.kstest(x[:, 0], "norm", args=(0.7, 0.1)).statistic < 0.06
