"""What a step costs, for all pairs of levels of a grid: any function, or a term of the bound.

    analytic  log(std**2 / l**2)                                      twice the bound's term at its
                                                                      best, up to what telescopes
    bound     1/2 (log(std**2 / l**2) + (l**2 + c**2 residual) / std**2 - 1)         the term itself
    onto data 1/2 (log(2 pi std**2) + residual / std**2)

in nats a dimension, with l and c of equation (4) and residual = E |x_0 - x0_hat|**2 / d.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.reverse import Moments, Table, resolve, step_coefficients, table
from jaxdiff.typing import Denoised, Grid, NoiseLevel, ReverseVariance

__all__ = ["analytic_costs", "bound_costs", "pairwise_costs"]


def pairwise_costs(cost: Callable[[NoiseLevel, NoiseLevel], Array], grid: Grid) -> Array:
    """The matrix of costs of all steps between the levels of a grid.

    Args:
        cost: cost(t, s) -> [], from level t to the cleaner s, fields []; sigma_t > 0.
        grid: N+1 levels.

    Returns:
        [N+1, N+1], entry [i, j] for the step from level i to level j; inf where j <= i, and from
        a clean level (padding).
    """
    at = lambda k: jax.tree.map(lambda a: a[k], grid.levels)  # noqa: E731

    def one(i: Array, j: Array) -> Array:
        valid = (i < j) & (grid.levels.sigma[i] > 0)
        # what is no step is worked out as the first one, so that gradients are finite
        step = cost(at(jnp.where(valid, i, 0)), at(jnp.where(valid, j, 1)))
        return jnp.where(valid, step, jnp.inf)

    index = jnp.arange(grid.num_steps + 1)
    return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(index, index)


def analytic_costs(
    variance: ReverseVariance | Callable | str, grid: Grid, *, eta: Any = 1.0
) -> Array:
    """Twice the bound's terms at their least, log(std**2 / l**2), of all steps of a grid.

    For DDPM with the optimal variance it is

        log(1 - beta_{t|s} Gamma_t) + log(sigma_t / alpha_t)**2 - log(sigma_s / alpha_s)**2,

    of which the last two add up to the same along every path. The step onto the data costs nothing
    from the cleanest noisy level and is forbidden from all others.

    Args:
        variance: one number a level, such as `reverse.analytic(moments)`.
        grid: N+1 levels.
        eta: [], in (0, 1].

    Returns:
        [N+1, N+1], for `least_cost_path`: a dimension's nats times two.

    Raises:
        ValueError: eta outside (0, 1], a variance of each example or coordinate, or one that
            has nothing to say of a level.

    Source: Bao et al. 2022, arXiv:2201.06503, section 4, eq. 14, over x_0 instead of the score.
        At eta = 0 the term is infinite; the paper's DDIM takes the path of its DDPM.
    """
    _check_eta(eta)
    return _analytic_costs(_one_a_level(variance, grid, eta), grid, eta)


@jax.jit
def _analytic_costs(variance: ReverseVariance, grid: Grid, eta: Any) -> Array:
    def cost(t: NoiseLevel, s: NoiseLevel) -> Array:
        least, _ = step_coefficients(t, s, eta)
        noisy = s.sigma > 0
        ratio = jnp.where(noisy, _var(variance, t, s, eta), 1) / jnp.where(noisy, least**2, 1)
        return jnp.log(ratio)

    sigma, index = grid.levels.sigma, jnp.arange(grid.num_steps + 1)
    costs = pairwise_costs(cost, grid)
    cleanest = index == jnp.sum(sigma > 0) - 1
    onto_data = jnp.where(cleanest, 0, jnp.inf)[:, None]
    step_to_clean = (sigma <= 0)[None, :] & (index[:, None] < index[None, :])
    return jnp.where(step_to_clean, onto_data, costs)


def bound_costs(
    moments: Moments,
    grid: Grid,
    variance: ReverseVariance | Callable | str = "small",
    *,
    eta: Any = 1.0,
    last_std: ReverseVariance | Any = None,
) -> Array:
    """The expected terms of the variational bound, of all steps of a grid, in nats a dimension.

        KL     1/2 (log(v / l**2) + l**2 / v + c**2 residual_t / v - 1),    v = std**2
        data   1/2 (log(2 pi v_0) + residual_t / v_0)

    Their sum along a path is what `likelihood.elbo` estimates on its grid with a density for a
    decoder, negative, a dimension and less the prior's term; residual_t is
    `Moments.residual`, by which they hold for any mean, exact or not.

    Args:
        moments: from `second_moments`, over the levels of the grid.
        grid: N+1 levels with a clean end.
        variance: one number a level: "small", "large", `reverse.analytic(moments)`.
        eta: [], in (0, 1].
        last_std: that of the step onto the data: [], > 0, or a ReverseVariance of one number a
            level; the noise of the level it leaves if None. As in `elbo`.

    Returns:
        [N+1, N+1], for `least_cost_path`.

    Raises:
        ValueError: moments without a residual or that do not reach over the grid, eta outside
            (0, 1], last_std not positive, or a variance of each example or coordinate.

    Source: Watson et al. 2021, arXiv:2106.03802, section 3; Bao et al. 2022, arXiv:2201.06503,
        eq. 1-4, and its code for any variance.
    """
    _check_eta(eta)
    residual = table(moments.levels, moments.cov("residual")[0])
    residual.check(grid.levels)
    if arrays.is_number(last_std):
        if jnp.ndim(last_std):
            raise ValueError(f"last_std must be one number, got shape {list(jnp.shape(last_std))}")
        arrays.check_range("last_std", last_std, 0, np.inf, "()")
    elif last_std is not None:
        last_std = _one_a_level(last_std, grid, eta)
    return _bound_costs(residual, grid, _one_a_level(variance, grid, eta), eta, last_std)


@jax.jit
def _bound_costs(
    residual: Table, grid: Grid, variance: ReverseVariance, eta: Any, last_std: Any
) -> Array:
    def last_var(t: NoiseLevel, s: NoiseLevel) -> Array:
        if last_std is None:
            return t.sigma**2
        return last_std**2 if arrays.is_number(last_std) else _var(last_std, t, s, eta)

    def cost(t: NoiseLevel, s: NoiseLevel) -> Array:
        noisy, error = s.sigma > 0, residual(_NOTHING, t)
        least, gain = step_coefficients(t, s, eta)
        var = jnp.where(noisy, _var(variance, t, s, eta), 1)
        ratio = jnp.where(noisy, least**2, 1) / var
        kl = 0.5 * (ratio - 1 - jnp.log(ratio) + gain**2 * error / var)
        var = last_var(t, s)
        some = var > 0  # a point is no density of data that are not at it
        var = jnp.where(some, var, 1)
        decoded = jnp.where(some, 0.5 * (jnp.log(2 * jnp.pi * var) + error / var), jnp.inf)
        return jnp.where(noisy, kl, decoded)

    return pairwise_costs(cost, grid)


_KNOWN = ("log_var_fraction", "eps2", "residual2", "eps_model")
_NOTHING = Denoised(*(np.zeros((1, 1), np.float32),) * 2)  # a variance of one number looks at none


def _var(variance: ReverseVariance, t: NoiseLevel, s: NoiseLevel, eta: Any) -> Array:
    return jnp.square(variance.std(_NOTHING, t=t, s=s, eta=eta))


def _one_a_level(
    variance: ReverseVariance | Callable | str, grid: Grid, eta: Any
) -> ReverseVariance:
    """The variance by name or itself, having seen that it depends on levels alone."""
    variance = resolve(variance)
    t, s = (jax.tree.map(lambda a: a[0], level) for level in grid.pairs)
    headed = _NOTHING._replace(heads=dict.fromkeys(_KNOWN, _NOTHING.x0))
    found = jax.eval_shape(lambda: jnp.asarray(variance.std(headed, t=t, s=s, eta=eta)))
    if found.shape:
        raise ValueError(
            "variance must be one number a level, as small, large and analytic are, got that of"
            f" each example or coordinate: {type(variance).__name__}"
        )
    if hasattr(variance, "check"):
        variance.check(grid.levels)
    return variance


def _check_eta(eta: Any) -> None:
    number = arrays.concrete(eta)
    if number is not None and np.any(number == 0):
        raise ValueError(
            "eta must be above 0: at eta = 0 the inference process has no variance, l = 0, and"
            " every step costs infinitely much; take the path of eta = 1, as the paper's DDIM does"
        )
    arrays.check_range("eta", eta, 0, 1, "(]")
