"""A finite set of examples as data: the exact model of its diffusion, which memorises.

    (1) p(x_t) = (1 / N) sum_i N(x_t; alpha x_i, sigma**2 I)
    (2) w_i    = softmax_i(-|x_t - alpha x_i|**2 / (2 sigma**2))
    (3) x0     = sum_i w_i x_i,    eps = (x_t - alpha x0) / sigma

It is what a network of unlimited size would learn from the set, so its denoising loss on the set
is the least there is, and sampling from it gives the set back. Distances are sums of squared
differences, since in float32 |x|**2 - 2 x.y + |y|**2 cancels for near neighbours; blocks of the
set pass by one after the other under a running softmax, so that no [B, N, D] is ever held.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import expand_to, safe_divide
from jaxdiff.typing import Denoised, NoiseLevel

__all__ = ["Empirical", "empirical"]


class _Running(NamedTuple):
    """The softmax of the blocks seen so far, [B] and [B, D]."""

    nearest: Array
    total: Array
    mean: Array


@arrays.pytree
class Empirical:
    """A set of examples as data, and the exact model of its diffusion; see `empirical`.

    Attributes:
        x: [N, ...], the examples.
        block: static, how many are compared at once.
    """

    x: Array
    block: int = arrays.static()

    def __call__(self, x_t: Array, level: NoiseLevel) -> Denoised:
        """The same as `denoise`."""
        return self.denoise(x_t, level)

    def denoise(self, x_t: Array, level: NoiseLevel) -> Denoised:
        """E[x_0 | x_t] and E[eps | x_t], equation (3).

        Args:
            x_t: [B, ...], of the shape of the examples.
            level: fields [] or [B]; sigma = 0 gives the nearest alpha x_i, alpha = 0 the mean.

        Returns:
            Denoised, [B, ...] each, no heads. At sigma = 0 eps is 0.

        Raises:
            ValueError: where x_t has another shape or a level field is neither [] nor [B].
        """
        x_t, level = self._checked(x_t, level)
        seen = self._pass(x_t, level)
        x0 = (seen.mean / seen.total[:, None]).reshape(x_t.shape)
        alpha, sigma = (expand_to(a, x_t) for a in (level.alpha, level.sigma))
        return Denoised(x0, safe_divide(x_t - alpha * x0, sigma))

    def score(self, x_t: Array, level: NoiseLevel) -> Array:
        """grad log p_t(x_t) = -eps / sigma, [B, ...]; raises ValueError unless sigma > 0."""
        _check_noisy(level)
        return -self.denoise(x_t, level).eps / expand_to(jnp.asarray(level.sigma), x_t)

    def log_prob(self, x_t: Array, level: NoiseLevel) -> Array:
        """log p_t(x_t) in nats, equation (1), [B]; raises ValueError unless sigma > 0."""
        _check_noisy(level)
        x_t, level = self._checked(x_t, level)
        seen = self._pass(x_t, level)
        log_sum = jnp.log(seen.total) - seen.nearest / (2 * level.sigma**2)
        dim = math.prod(x_t.shape[1:])
        log_var = math.log(2 * math.pi) + 2 * jnp.log(level.sigma)
        return log_sum - math.log(len(self.x)) - 0.5 * dim * log_var

    def _checked(self, x_t: Array, level: NoiseLevel) -> tuple[Array, NoiseLevel]:
        """The state, and alpha and sigma [B], in the one dtype of the answer."""
        x_t, shape = jnp.asarray(x_t), self.x.shape[1:]
        if x_t.ndim == 0 or x_t.shape[1:] != shape:
            raise ValueError(f"x_t must be [B, {str(list(shape))[1:]}, got {list(x_t.shape)}")
        dtype = np.promote_types(x_t.dtype, self.x.dtype)  # explicit, so strictness allows it
        for name in ("alpha", "sigma"):
            of = jnp.shape(getattr(level, name))
            if of not in ((), x_t.shape[:1]):
                raise ValueError(f"level.{name} must be [] or [{len(x_t)}], got shape {of}")
        wide = lambda a: jnp.broadcast_to(jnp.asarray(a, dtype), x_t.shape[:1])  # noqa: E731
        return x_t.astype(dtype), jax.tree.map(wide, level)

    def _pass(self, x_t: Array, level: NoiseLevel) -> _Running:
        """The set, block by block: nearest |x_t - alpha x_i|**2, and sums of (2) about it."""
        points = self.x.reshape(len(self.x), -1)
        states = x_t.reshape(len(x_t), points.shape[1])
        count = min(self.block, len(points))

        @jax.checkpoint
        def visit(seen: _Running, k: Array) -> tuple[_Running, None]:
            # the last block begins early, and what it repeats is passed over
            start = jnp.minimum(k * count, len(points) - count)
            block = jax.lax.dynamic_slice_in_dim(points, start, count).astype(states.dtype)
            fresh = (start + jnp.arange(count) >= k * count)[None]
            squared = _squared_distances(states, level.alpha[:, None, None] * block[None])
            least = jnp.min(jnp.where(fresh, squared, jnp.inf), axis=1)
            # shifting by the nearest changes no quotient, so no gradient need pass through it
            nearest = jax.lax.stop_gradient(jnp.minimum(seen.nearest, least))
            w = jnp.where(fresh, _weigh(squared - nearest[:, None], level.sigma[:, None]), 0)
            gap = jnp.where(k > 0, seen.nearest - nearest, 0)
            kept = jnp.where(k > 0, _weigh(gap, level.sigma), 0)
            sums = jnp.matmul(w, block, precision=jax.lax.Precision.HIGHEST)
            total = kept * seen.total + jnp.sum(w, axis=1)
            return _Running(nearest, total, kept[:, None] * seen.mean + sums), None

        nothing = jnp.zeros_like(level.sigma)
        start = _Running(nothing + jnp.inf, nothing, 0 * states)
        return jax.lax.scan(visit, start, jnp.arange(-(-len(points) // count)))[0]


def _check_noisy(level: NoiseLevel) -> None:
    arrays.check_range("level.sigma", level.sigma, 0, np.inf, "()")


def _squared_distances(states: Array, points: Array) -> Array:
    """[B, n] from [B, D] and [B, n, D]."""
    squared = jnp.sum((states[:, None] - points) ** 2, axis=-1)
    # one rounding for the minimum and for the gaps to it, or none of them might be 0
    return jax.lax.optimization_barrier(squared)


def _weigh(gap: Array, sigma: Array) -> Array:
    """exp(-gap / (2 sigma**2)); at sigma = 0 its limit, which no gradient passes."""
    noisy = sigma > 0
    std = jnp.where(noisy, sigma, 1)
    return jnp.where(noisy, jnp.exp(-0.5 * gap / std**2), (gap <= 0).astype(gap.dtype))


def empirical(x: Any, *, block: int = 256) -> Empirical:
    """The examples themselves as data, each as likely as another.

    Time grows with B N D, memory with B block D at most.

    Args:
        x: [N, ...], float32 or float64, on the scale of what shall be drawn.
        block: static, how many are compared at once.

    Returns:
        An Empirical: a `Denoise`, with `score` and `log_prob`.

    Raises:
        ValueError: no examples, another dtype, numbers that are not finite, block below 1.

    Source: Karras et al. 2022, arXiv:2206.00364, appendix B.3, eq. 57, for alpha = 1; Su 2022,
        kexue.fm article 9209, for the score.
    """
    x = jnp.asarray(x)
    if x.dtype not in (jnp.float32, jnp.float64):
        raise ValueError(f"x must be float32 or float64, on the scale of the data, got {x.dtype}")
    if x.ndim < 2 or x.size == 0:
        raise ValueError(f"x must have shape [N, ...] with N >= 1, got {list(x.shape)}")
    values = arrays.concrete(x)
    if values is not None and not np.isfinite(values).all():
        raise ValueError("x must be finite, got NaN or infinite values")
    arrays.check_count("block", block)
    return Empirical(x, int(block))
