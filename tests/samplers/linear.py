"""On Gaussian data every sampler here is affine in x_T and in each noise: its law, without chance.

x_0 = A x_T + B noise + c    so that    E x_0 = A E x_T + c,   Cov x_0 = A Cov A^T + B B^T
"""

import jax.numpy as jnp
import numpy as np

from jaxdiff.samplers import sample


def moments(denoise, grid, sampler, dim, *, x_T=None):
    """Mean [D] and covariance [D, D] of x_0; x_T is of the prior, or the one given, [D]."""
    count = grid.num_steps * sampler.noises * dim

    def run(starts, draws):
        batch = starts.shape[0]
        noise = draws.reshape(batch, grid.num_steps, sampler.noises, dim)
        noise = jnp.asarray(np.moveaxis(noise, 0, 2))
        x = sample(
            None, denoise, grid, (batch, dim), sampler=sampler, x_T=jnp.asarray(starts), noise=noise
        )
        return np.asarray(x)

    # row 0 is the constant; then one row a direction of x_T and of the noise
    units = np.concatenate([np.zeros((1, dim + count)), np.eye(dim + count)])
    start = np.zeros(dim) if x_T is None else np.asarray(x_T)
    std = float(np.max(grid.prior_std)) if x_T is None else 0.0
    found = run(start + std * units[:, :dim], units[:, dim:])
    rows = found[1:] - found[0]
    return found[0], rows.T @ rows
