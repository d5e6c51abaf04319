"""Second moments of what a model says, level by level: all that the analytic variances need.

    eps          E |eps_hat|**2 / d                  = sigma**2 Gamma, in [0, 1] for the exact mean
    unexplained  Var[x_0] - E |x0_hat - E x_0|**2 / d
    residual     E |x_0 - x0_hat|**2 / d

For the exact mean the mean variance of a coordinate of x_0 given x_t is

    (sigma / alpha)**2 (1 - eps)  =  unexplained  =  residual,

and what lies between them is the error of the model's mean. With a mean that errs, `residual` is
the variance to take: the one that makes the bound on the likelihood largest.
"""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import event_mean
from jaxdiff.denoiser import Checked
from jaxdiff.gaussian import q_sample
from jaxdiff.keys import example_keys
from jaxdiff.typing import Denoise, Grid, NoiseLevel

__all__ = ["ESTIMATORS", "Average", "Moments", "merge", "moments_of_gamma", "second_moments"]

ESTIMATORS = ("eps", "x0", "residual")
"""How the variance of x_0 given x_t is had from `Moments`."""


@arrays.pytree
class Average:
    """A mean over independent examples.

    Attributes:
        mean: [...].
        squares: [...], the sum of squared deviations from it.
        count: [], how many examples; inf for a number that is known.
    """

    mean: Array
    squares: Array
    count: Any

    @property
    def error(self) -> Array:
        """The standard error of the mean; NaN of one example."""
        spare = jnp.maximum(self.count - 1, 0)
        return jnp.sqrt(self.squares / spare / self.count)


@arrays.pytree
class Moments:
    """Second moments of a model at the levels of a grid; see `second_moments`.

    Attributes:
        levels: fields [N], the noisy levels, noisiest first.
        eps: E |eps_hat|**2 / d, [N].
        unexplained: Var[x_0] - E |x0_hat - E x_0|**2 / d, [N], None if unknown.
        residual: E |x_0 - x0_hat|**2 / d, [N], None if unknown.
        spread: Var[x_0], the mean over coordinates, [], None if unknown.
    """

    levels: NoiseLevel
    eps: Average
    unexplained: Average | None = None
    residual: Average | None = None
    spread: Average | None = None

    @property
    def gamma(self) -> Array:
        """Gamma = E |score|**2 / d, [N].

        Source: Bao et al. 2022, arXiv:2201.06503, eq. 8.
        """
        return self.eps.mean / self.levels.sigma**2

    def cov(self, by: Literal["eps", "x0", "residual"] = "eps") -> tuple[Array, Array]:
        """E Var[x_0 | x_t] / d by one of the estimators, unclipped, with its standard error.

        Args:
            by: "eps" (Bao et al.), "x0" (Su), both true of the exact mean; "residual" for the mean
                that the model has.

        Returns:
            ([N], [N]). At alpha = 0 "eps" has no answer: inf, with an error of inf.

        Raises:
            ValueError: an unknown estimator, or one whose moments are not known.

        Source: Bao et al. 2022, arXiv:2201.06503, eq. 6 and 8; Su 2022, kexue.fm article 9245.
        """
        if by not in ESTIMATORS:
            raise ValueError(f"by must be one of {', '.join(ESTIMATORS)}, got {by!r}")
        if by == "eps":
            ratio = (self.levels.sigma / self.levels.alpha) ** 2
            left = jnp.where(self.levels.alpha > 0, 1 - self.eps.mean, 1)
            return ratio * left, ratio * self.eps.error
        found = self.unexplained if by == "x0" else self.residual
        if found is None:
            raise ValueError(f"by = {by!r} needs moments from second_moments, got Gamma alone")
        return found.mean, found.error


def moments_of_gamma(levels: NoiseLevel, gamma: Any) -> Moments:
    """Moments of which Gamma alone is known, as a closed form or a published table has it.

    Args:
        levels: fields [N], noisiest first, sigma > 0.
        gamma: [N], E |score|**2 / d; a table of E |eps|**2 / d is that over sigma**2.

    Returns:
        Moments with errors of 0.

    Raises:
        ValueError: another shape, or numbers that are negative or not finite.
    """
    gamma = arrays.wide_float(gamma)
    levels = NoiseLevel(*(arrays.wide_float(a) for a in levels))
    if gamma.ndim != 1 or gamma.shape != levels.sigma.shape:
        raise ValueError(
            f"gamma must be [N], one a level of levels {list(levels.sigma.shape)}, got"
            f" {list(gamma.shape)}"
        )
    arrays.check_range("gamma", gamma, 0, np.inf, "[)")
    eps = gamma * levels.sigma**2
    return Moments(levels, Average(eps, jnp.zeros_like(eps), jnp.inf))


def second_moments(
    key: Array,
    denoise: Denoise,
    x: Array,
    grid: Grid,
    *,
    draws: int = 1,
    mean: Array | None = None,
) -> Moments:
    """The second moments of a model on examples, at each noisy level of a grid, in one program.

    Moments of parts of a set, with one `mean`, go together by `merge`. Examples may be sharded
    over a mesh of Auto axes, as `training.parallel.mesh` makes; vmap over the model's parameters
    gives those of many checkpoints.

    Args:
        key: a PRNG key, or [B] keys, one an example.
        denoise: the model, unclipped and unguided: theory knows no other.
        x: [B, ...], float, examples in the model's units; B is the papers' M.
        grid: N noisy levels and a clean end, such as all steps of a chain.
        draws: static, how often noise is drawn for each example and level.
        mean: [...], E x_0 of the data; that of x unless given.

    Returns:
        Moments, with standard errors over the examples.

    Raises:
        ValueError: no examples, data that are not float or not finite, levels among the first N
            without noise, draws below 1, or answers of another shape than x.
        FloatingPointError: the model's answer is not finite.

    Source: Bao et al. 2022, arXiv:2201.06503, eq. 8 and appendix F.
    """
    x = jnp.asarray(x)
    _check(x, grid, draws)
    keys = example_keys(key, x.shape[0])
    mean = jnp.mean(x, axis=0) if mean is None else jnp.asarray(mean, x.dtype)
    if mean.shape != x.shape[1:]:
        raise ValueError(f"mean must have shape {list(x.shape[1:])}, got {list(mean.shape)}")
    arrays.check_range("mean", mean, -np.inf, np.inf, "()")
    levels, _ = grid.pairs
    trees = arrays.strong((Checked(arrays.as_pytree(denoise)), levels), x.dtype)
    found = _moments(keys, x, mean, *trees, draws=int(draws))
    means = arrays.concrete(found.eps.mean + found.residual.mean)
    if means is not None and not np.isfinite(means).all():
        k = int(np.argmin(np.isfinite(means)))
        raise FloatingPointError(
            f"the model's answer is not finite at t = {float(levels.t[k]):g}, level {k} of the grid"
        )
    return found


@functools.partial(jax.jit, static_argnames="draws")
def _moments(keys, x, mean, denoise, levels, *, draws) -> Moments:
    spread = event_mean((x - mean[None]) ** 2)

    def at_level(_: None, inputs: tuple[Array, NoiseLevel]) -> tuple[None, tuple]:
        k, level = inputs

        def one_draw(p: Array) -> tuple[Array, ...]:
            d = denoise(q_sample(x, _noise(keys, k, p, x), level), level)
            explained = event_mean((d.x0 - mean[None]) ** 2)
            return event_mean(d.eps**2), spread - explained, event_mean((x - d.x0) ** 2)

        values = jax.lax.map(one_draw, jnp.arange(draws))
        return None, tuple(_average(jnp.mean(v, axis=0)) for v in values)

    _, found = jax.lax.scan(at_level, None, (jnp.arange(levels.t.shape[0]), levels))
    # one count, not one a level
    found = [Average(a.mean, a.squares, jnp.asarray(x.shape[0], x.dtype)) for a in found]
    return Moments(levels, *found, _average(spread))


def _noise(keys: Array, k: Array, p: Array, x: Array) -> Array:
    """Noise like x, of level k and draw p; example i's from keys[i]."""

    def one(key: Array) -> Array:
        key = jax.random.fold_in(jax.random.fold_in(key, k), p)
        return jax.random.normal(key, x.shape[1:], x.dtype)

    return jax.vmap(one)(keys)


def _average(values: Array) -> Average:
    mean = jnp.mean(values)
    count = jnp.asarray(values.shape[0], values.dtype)
    return Average(mean, jnp.sum((values - mean) ** 2), count)


def merge(a: Moments, b: Moments) -> Moments:
    """The moments of two sets of examples as those of both together.

    Args:
        a, b: of one model on one grid, with one `mean`.

    Raises:
        ValueError: other levels, or Gamma alone, which is of no examples.

    Source: Chan, Golub and LeVeque 1983, doi:10.1080/00031305.1983.10483115, eq. 2.1.
    """
    if a.residual is None or b.residual is None:
        raise ValueError("moments must be of second_moments to be merged, got Gamma alone")
    if not arrays.is_traced((a, b)):
        pairs = zip(a.levels, b.levels, strict=True)
        if not all(np.array_equal(u, v) for u, v in pairs):
            raise ValueError("moments must be of equal levels to be merged, got others")

    def both(a: Average, b: Average) -> Average:
        count = a.count + b.count
        gap = b.mean - a.mean
        mean = a.mean + gap * (b.count / count)
        return Average(mean, a.squares + b.squares + gap**2 * (a.count * b.count / count), count)

    node = lambda x: isinstance(x, Average)  # noqa: E731
    rest = jax.tree.map(both, (a.eps, a.unexplained, a.residual, a.spread),
                        (b.eps, b.unexplained, b.residual, b.spread), is_leaf=node)  # fmt: skip
    return Moments(a.levels, *rest)


def _check(x: Array, grid: Grid, draws: int) -> None:
    if x.ndim < 2 or x.size == 0:
        raise ValueError(f"x must have shape [B, ...] with B >= 1, got {list(x.shape)}")
    if x.dtype not in (jnp.float32, jnp.float64):
        raise ValueError(f"x must be float32 or float64, in the model's units, got {x.dtype}")
    numbers = arrays.concrete(x)
    if numbers is not None and not np.isfinite(numbers).all():
        raise ValueError("x must be finite, got NaN or infinity")
    arrays.check_count("draws", draws)
    sigma = arrays.concrete(grid.pairs[0].sigma)
    if sigma is not None and not (sigma > 0).all():
        raise ValueError("grid must have noise at every level but its end: no padding")
