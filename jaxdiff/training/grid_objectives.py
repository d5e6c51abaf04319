"""What a learned grid is good for: the objectives of `learn_grid`.

An objective is a pytree or a function, objective(key, draw) -> [], where draw(key, x_T=None) gives
the x_0 of a batch by the grid that is being learned.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import check_count, event_mean
from jaxdiff.samplers import dpmpp_2m, draw_start, example_keys, sample
from jaxdiff.typing import Denoise, Grid, Sampler

__all__ = ["Draw", "to_data", "to_reference"]

Draw = Callable[..., Array]
"""draw(key, x_T=None) -> x_0 [B, ...]."""


@arrays.pytree
class ToReference:
    """See `to_reference`."""

    x_T: Array
    x_0: Array

    def __call__(self, key: Array, draw: Draw) -> Array:
        """The mean squared error of one batch."""
        i = jax.random.randint(key, (), 0, self.x_T.shape[0])
        return jnp.mean(event_mean((draw(key, x_T=self.x_T[i]) - self.x_0[i]) ** 2))


@arrays.pytree
class ToData:
    """See `to_data`."""

    x: Array

    def __call__(self, key: Array, draw: Draw) -> Array:
        """The energy distance between a batch of samples and one of data."""
        key_draw, key_pick = jax.random.split(key)
        samples = draw(key_draw)
        count = samples.shape[0]
        if self.x.shape[1:] != samples.shape[1:] or count < 2:
            raise ValueError(
                f"shape must be (B, ...) with B >= 2 and examples {list(self.x.shape[1:])} as the"
                f" data's, got {list(samples.shape)}"
            )
        data = self.x[jax.random.randint(key_pick, (count,), 0, self.x.shape[0])]
        a, b = (v.reshape(count, -1) for v in (samples, data.astype(samples.dtype)))
        apart = 1 - jnp.eye(count, dtype=a.dtype)
        within = sum(jnp.sum(_distances(v, v) * apart) for v in (a, b)) / (count * (count - 1))
        return 2 * jnp.mean(_distances(a, b)) - within


def _distances(a: Array, b: Array) -> Array:
    """Euclidean distances [N, M], differences first: no cancellation, small batches."""
    return arrays.safe_sqrt(jnp.sum((a[:, None] - b[None]) ** 2, axis=-1))


def to_reference(
    key: Array,
    denoise: Denoise,
    grid: Grid,
    shape: tuple[int, ...],
    *,
    sampler: Sampler | None = None,
    batches: int = 16,
) -> ToReference:
    """The objective: to end where a many-step run from the same x_T ends.

        mean over batch and pixels of (x_0 - x_0 of the reference)**2

    For deterministic samplers.

    Args:
        key: for the x_T.
        denoise: the model that the reference asks; its condition, if any, is that of a batch.
        grid: the fine grid.
        shape: (B, ...), the shape of a batch.
        sampler: the reference; `dpmpp_2m()` if None.
        batches: how many there are to draw from.

    Returns:
        An objective for `learn_grid`.

    Raises:
        ValueError: batches below 1.
    """
    sampler = dpmpp_2m() if sampler is None else sampler
    check_count("batches", batches)
    found = []
    for i in range(batches):
        keys = example_keys(jax.random.fold_in(key, i), shape[0])
        x_T = draw_start(keys, grid, shape)
        found.append((x_T, sample(keys, denoise, grid, shape, sampler=sampler, x_T=x_T)))
    return ToReference(*(jnp.stack(part) for part in zip(*found, strict=True)))


def to_data(x: Array) -> ToData:
    """The objective: the energy distance between samples and data, over batches of equal size.

        2 E|x - y| - E|x - x'| - E|y - y'|

    For any sampler. What can be gained is more than a reference's end, but small batches tell
    little: on 8x8 digits and 64 examples a batch what was learned drew worse images than what
    `to_reference` finds.

    Args:
        x: [N, ...], float, the data in the range of the samples.

    Returns:
        An objective for `learn_grid`.

    Raises:
        ValueError: data that are not float, or none.

    Source: Szekely and Rizzo 2013, J. Stat. Plan. Inference 143:1249, eq. 2.
    """
    x = jnp.asarray(x)
    if x.ndim < 2 or not x.size or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            "x must be float [N, ...] in the range of the samples, such as dataset.images(), got"
            f" {x.dtype}{list(x.shape)}"
        )
    return ToData(x)
