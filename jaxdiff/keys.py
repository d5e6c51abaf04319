"""Random keys of a batch: example i's own is a function of (key, i) alone.

Batch size, chunks and devices then change no example.
"""

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["as_keys", "example_keys"]


def example_keys(key: Array | None, count: int, first: int = 0) -> Array:
    """The keys of examples first..first+count-1 of a job.

    Args:
        key: a PRNG key, or [count] keys, which are returned as they are.
        count: how many.
        first: the index of the first.

    Returns:
        [count] keys, `fold_in(key, i)`.

    Raises:
        ValueError: no key, or a number of keys other than count.
        TypeError: not a key.
    """
    key = as_keys(key, count)
    if key.ndim:
        return key
    return jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(count))


def as_keys(key: Array | None, count: int) -> Array:
    """The key, or [count] keys, as typed ones; raises as `example_keys` does."""
    if key is None:
        raise ValueError("key must be given where noise is to be drawn, got None")
    if not hasattr(key, "dtype"):
        raise TypeError(f"key must be a PRNG key such as jax.random.key(0), got {key!r}")
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    if key.shape not in ((), (count,)):
        raise ValueError(f"key must be one key or [{count}] keys, got keys {list(key.shape)}")
    return key
