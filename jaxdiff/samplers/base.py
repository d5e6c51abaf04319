"""The one driver: a scan of a sampler's step over the pairs (t, s) of a grid.

    x_T -> { x_s, memory = sampler.step(x_t, memory, denoise, noise, k, t, s, grid) } -> x_0

Everything is an argument, so everything can be jitted, vmapped and differentiated: the model's
parameters, the grid's levels, the sampler's hyperparameters, x_T and the noise itself. It compiles
once for one structure, shape and grid length.

Example i of a batch depends on (key, i) alone: its key is `fold_in(key, i)`, its step k draws from
`fold_in(., k)`. Batch size, device count and padding change no sample.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.export import is_symbolic_dim

from jaxdiff import arrays
from jaxdiff.denoiser import Checked, Denoiser
from jaxdiff.keys import as_keys, example_keys
from jaxdiff.samplers.ancestral import ddim
from jaxdiff.samplers.steps import check_sampler
from jaxdiff.typing import Denoise, Grid, NoiseLevel, Sampler

__all__ = [
    "check",
    "checked_shape",
    "draw_noise",
    "draw_start",
    "example_keys",
    "sample",
]

_DEFAULT = ddim()


def sample(
    key: Array | None,
    denoise: Denoise,
    grid: Grid,
    shape: tuple[int, ...],
    *,
    sampler: Sampler = _DEFAULT,
    x_T: Array | None = None,
    noise: Array | None = None,
    keep_path: bool = False,
    callback: Callable[[Array, Array], None] | None = None,
    remat: bool = False,
) -> Array:
    """Draws samples: walks the grid from x_T to x_0.

    Args:
        key: a PRNG key, or [B] keys, one an example (a large job cut into chunks gives the same
            images); None if x_T is given and no noise is to be drawn.
        denoise: the model, `denoise(x_t, level) -> Denoised`: a `Denoiser`, anything composed of
            one, or any function (which is then static: the same function compiles once).
        grid: the levels to visit; padded steps (sigma_t = 0) are passed over.
        shape: (B, ...), the shape of the result.
        sampler: the algorithm.
        x_T: [B, ...], where to start; grid.prior_std times Gaussian noise if None.
        noise: [K, noises, B, ...], what `draw_noise` gives, to replay a run; drawn if None.
        keep_path: static; returns all states instead of the last.
        callback: static; called on the host as callback(k, x_s) after each step. Meant for
            previews: the order of calls follows the steps on one device. A gradient with remat
            tells of steps again as it computes them again.
        remat: static; gradients keep some 2 sqrt(K) states and the activations of one step, and
            compute steps up to three times, instead of keeping the activations of all K.

    Returns:
        x_0, [B, ...]; with keep_path the path [K+1, B, ...] from x_T to x_0.

    Raises:
        ValueError: shapes that do not fit, an empty batch, half-precision x_T, a grid that the
            sampler or the parametrization refuses.
        TypeError: a grid, sampler or denoise that is none.
    """
    x_T = None if x_T is None else jnp.asarray(x_T)
    shape = check(denoise, grid, shape, sampler, x_T, noise)
    dtype = arrays.float_dtype() if x_T is None else x_T.dtype
    keys = None
    if x_T is None or (noise is None and sampler.noises):
        keys = as_keys(key, shape[0])
    trees = (arrays.as_pytree(denoise), grid, sampler)
    trees = arrays.strong(trees, grid.levels.alpha.dtype)
    noise = None if noise is None else jnp.asarray(noise, dtype)
    static = {"keep_path": keep_path, "callback": callback, "remat": remat}
    return _run(keys, *trees, x_T, noise, shape=shape, dtype=dtype, **static)


@functools.partial(jax.jit, static_argnames=("shape", "dtype", "keep_path", "callback", "remat"))
def _run(keys, denoise, grid, sampler, x_T, noise, *, shape, dtype, keep_path, callback, remat):
    keys = None if keys is None else example_keys(keys, shape[0])
    if x_T is None:
        x_T = draw_start(keys, grid, shape, dtype=dtype)
    denoise = Checked(denoise)
    steps = jnp.arange(grid.num_steps)

    def body(carry, inputs):
        x, memory = carry
        k, t, s, draw = inputs
        if draw is None and sampler.noises:
            draw = _draw(_step_keys(keys, k), sampler.noises, shape, dtype)
        # a padded step stands at the clean end: the mathematics never sees sigma_t = 0
        padding = t.sigma <= 0
        t = t._replace(sigma=jnp.where(padding, 1, t.sigma))
        new = sampler.step(x, memory, denoise, draw, k=k, t=t, s=s, grid=grid)
        carry = jax.tree.map(lambda old, fresh: jnp.where(padding, old, fresh), carry, new)
        if callback is not None:
            tell = lambda: jax.debug.callback(callback, k, carry[0])  # noqa: E731
            jax.lax.cond(padding, lambda: None, tell)
        return carry, carry[0] if keep_path else None

    start = x_T, sampler.init(x_T, denoise, grid)
    walk = _walk_again if remat else jax.lax.scan
    (x_0, _), path = walk(body, start, (steps, *grid.pairs, noise))
    return jnp.concatenate([x_T[None], path]) if keep_path else x_0


def _walk_again(body: Callable, start: Any, inputs: tuple) -> tuple[Any, Any]:
    """`lax.scan` in sqrt(K) stretches, of which only the first states are kept for the way back.

    Source: Chen et al. 2016, arXiv:1604.06174, section 4.
    """
    steps, t, s, noise = inputs
    count = steps.shape[0]
    length = math.isqrt(count - 1) + 1
    extra = -count % length

    def stretches(a: Array, filler: Any = None) -> Array:
        last = a[-1:] if filler is None else jnp.full_like(a[-1:], filler)
        a = jnp.concatenate([a, jnp.repeat(last, extra, axis=0)])
        return a.reshape((count + extra) // length, length, *a.shape[1:])

    def levels(level: NoiseLevel) -> NoiseLevel:
        # steps beyond the last stand at a clean end, where nothing moves
        t, alpha, sigma = level
        return NoiseLevel(stretches(t), stretches(alpha, 1), stretches(sigma, 0))

    parts = (stretches(steps), levels(t), levels(s), jax.tree.map(stretches, noise))
    once = jax.checkpoint(body)
    stretch = jax.checkpoint(lambda carry, part: jax.lax.scan(once, carry, part))
    carry, path = jax.lax.scan(stretch, start, parts)
    return carry, jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:count], path)


def draw_noise(
    key: Array, grid: Grid, sampler: Sampler, shape: tuple[int, ...], *, dtype: Any = None
) -> Array:
    """The noise that `sample` would draw, to replay a run against any other implementation.

    Args:
        key: a PRNG key, or [B] keys.
        grid: the grid.
        sampler: the algorithm.
        shape: (B, ...), the shape of the samples.
        dtype: that of x_T where it is given; the default float if None.

    Returns:
        [K, noises, B, ...].
    """
    shape = checked_shape(shape)
    keys = example_keys(key, shape[0])
    dtype = arrays.float_dtype() if dtype is None else dtype
    draw = lambda k: _draw(_step_keys(keys, k), sampler.noises, shape, dtype)  # noqa: E731
    return jax.lax.map(draw, jnp.arange(grid.num_steps))


def draw_start(key: Array, grid: Grid, shape: tuple[int, ...], *, dtype: Any = None) -> Array:
    """The x_T that `sample` would start from: the grid's prior_std times Gaussian noise.

    Args:
        key: a PRNG key, or [B] keys.
        grid: the grid.
        shape: (B, ...).
        dtype: the default float if None.

    Returns:
        [B, ...].
    """
    shape = checked_shape(shape)
    dtype = arrays.float_dtype() if dtype is None else dtype
    draws = _draw(_start_keys(example_keys(key, shape[0])), 1, shape, dtype)[0]
    return jnp.asarray(grid.prior_std, dtype) * draws


def _start_keys(keys: Array) -> Array:
    return jax.vmap(lambda key: jax.random.fold_in(key, 0))(keys)


def _step_keys(keys: Array, k: Array) -> Array:
    return jax.vmap(lambda key: jax.random.fold_in(jax.random.fold_in(key, 1), k))(keys)


def _draw(keys: Array, noises: int, shape: tuple[int, ...], dtype: Any) -> Array:
    """[noises, B, ...] standard Gaussian, example i from keys[i] alone."""
    one = lambda key: jax.random.normal(key, (noises, *shape[1:]), dtype)  # noqa: E731
    return jax.vmap(one, out_axes=1)(keys)


def checked_shape(shape: Any) -> tuple[int, ...]:
    """(B, ...) as a tuple.

    Raises:
        ValueError: it is none, or a size is below 1.
    """
    sizes = tuple(shape) if isinstance(shape, tuple | list) else ()
    known = [n for n in sizes if not is_symbolic_dim(n)]  # others are open, for export
    if not sizes or any(int(n) != n or n < 1 for n in known):
        raise ValueError(f"shape must be (B, ...) with every size >= 1, got {shape}")
    return sizes


def check(denoise, grid, shape, sampler, x_T=None, noise=None) -> tuple[int, ...]:
    """Raises what `sample` raises of these arguments before any compile; the shape as a tuple."""
    if not isinstance(grid, Grid):
        raise TypeError(f"grid must be a Grid such as grids.uniform gives, got {grid!r}")
    if grid.levels.t.ndim != 1 or grid.num_steps < 1:
        raise ValueError(
            f"grid must have levels [K+1] with K >= 1, got {list(grid.levels.t.shape)};"
            " stacked grids go through jax.vmap"
        )
    check_sampler(sampler)
    shape = checked_shape(shape)
    if x_T is not None and tuple(x_T.shape) != shape:
        raise ValueError(f"x_T must have the shape asked for, {shape}, got {tuple(x_T.shape)}")
    if x_T is not None and x_T.dtype not in (jnp.float32, jnp.float64):
        raise ValueError(f"x_T must be float32 or float64, got {x_T.dtype}")
    wanted = (grid.num_steps, sampler.noises, *shape)
    if noise is not None and tuple(noise.shape) != wanted:
        raise ValueError(f"noise must have shape [K, noises, B, ...] {wanted}, got {noise.shape}")
    for part in jax.tree.leaves(denoise, is_leaf=lambda node: isinstance(node, Denoiser)):
        if isinstance(part, Denoiser):
            part.check(grid.levels)
    if hasattr(sampler, "check"):
        sampler.check(grid)
    return shape
