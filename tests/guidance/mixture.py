"""A labelled mixture of Gaussians: every model that guidance needs, in closed form.

Eight examples, each of its own class and at its own level, from nearly clean to nearly noise.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import arrays, make_denoiser, schedules
from jaxdiff.exact import gaussian, gaussian_mixture

WEIGHTS = np.array([0.5, 0.2, 0.3])
MEANS = np.array([[1.0, 0.0], [-1.0, 0.5], [0.0, -1.5]])
COVS = np.array([[[0.3, 0.1], [0.1, 0.2]], [[0.1, 0.0], [0.0, 0.4]], [[0.2, -0.1], [-0.1, 0.2]]])
SCHEDULE = schedules.linear_vp()
TIMES = np.array([0.01, 0.05, 0.2, 0.4, 0.5, 0.7, 0.9, 1.0])
LABELS = np.array([0, 2, 1, 2, 0, 1, 1, 0], np.int32)
X = np.random.default_rng(0).normal(size=(8, 2))


def ask(denoise, level=None, x=X):
    """What a model says of the examples."""
    at = SCHEDULE(jnp.asarray(TIMES)) if level is None else level
    return jax.jit(lambda d, x, at: d(x, at))(arrays.as_pytree(denoise), jnp.asarray(x), at)


def score(denoise):
    """-eps / sigma of the examples."""
    return -ask(denoise).eps / SCHEDULE(jnp.asarray(TIMES)).sigma[:, None]


def whole():
    """All of the data."""
    return gaussian_mixture(WEIGHTS, MEANS, COVS)


def components():
    return [gaussian(mean, cov) for mean, cov in zip(MEANS, COVS, strict=True)]


@functools.cache
def true_scores():
    """The exact scores [4, 8, 2] of all the data, and of each class; asked under x64."""
    level = SCHEDULE(jnp.asarray(TIMES))
    of = lambda x: jnp.stack([m.score(x, level) for m in (whole(), *components())])  # noqa: E731
    return np.asarray(jax.jit(of)(jnp.asarray(X)))


def exact_network(params, x, feature, cond):
    """eps of the class `cond` of each example, of all the data where it is -1; and a head."""
    level = SCHEDULE(feature)
    eps = jnp.stack([model(x, level).eps for model in (whole(), *components())])
    chosen = jnp.take_along_axis(eps, (cond + 1)[None, :, None], axis=0)[0]
    return jnp.concatenate([chosen, jnp.tile(cond[:, None].astype(x.dtype), (1, 2))], axis=-1)


def denoiser(labels=LABELS, network=exact_network):
    options = {"parametrization": "eps", "time_feature": "clock", "heads": ("label",)}
    return make_denoiser(network, {}, cond=jnp.asarray(labels), **options)
