"""The one-dimensional mixture that likelihoods are tested on, and integrals over it.

.5 N(-.7, .01) + .5 N(.7, .01), whose entropy is -0.190499 nats.
"""

import jax.numpy as jnp
import numpy as np
from scipy import stats

import jaxdiff as jd

ENTROPY = -0.190499


def mixture():
    return jd.exact.gaussian_mixture(
        jnp.array([0.5, 0.5]), jnp.array([[-0.7], [0.7]]), jnp.full((2, 1, 1), 0.01)
    )


def product_rule(points=160, width=7.0):
    """(x_0 [M, 1], noise [M, 1], weights [M]) of one component and the noise, by the trapezoid
    rule, which for Gaussians converges faster than any power; the other component is its mirror
    image."""
    z = np.linspace(-width, width, points)
    w = stats.norm.pdf(z) * (z[1] - z[0])
    x0, noise = np.meshgrid(0.7 + 0.1 * z, z, indexing="ij")
    return x0.reshape(-1, 1), noise.reshape(-1, 1), np.outer(w, w).ravel()


def posterior_variance(level, points=4001):
    """E Var(x_0 | x_t), by the trapezoid rule over x_t, written out for two equal components."""
    alpha, sigma = float(level.alpha), float(level.sigma)
    v = alpha**2 * 0.01 + sigma**2
    x = np.linspace(-alpha * 0.7 - 12 * v**0.5, alpha * 0.7 + 12 * v**0.5, points)
    p = [0.5 * stats.norm.pdf(x, m * alpha, v**0.5) for m in (-0.7, 0.7)]
    means = [m + alpha * 0.01 / v * (x - alpha * m) for m in (-0.7, 0.7)]
    share = p[1] / np.maximum(p[0] + p[1], 1e-300)
    between = share * (1 - share) * (means[1] - means[0]) ** 2
    return float(np.trapezoid((p[0] + p[1]) * (0.01 * sigma**2 / v + between), x))
