"""What stands for "no condition": the null that conditioning dropout trains and guidance asks."""

from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["null_cond"]


def null_cond(cond: Any) -> Any:
    """The null of a condition: integers (labels) become -1, floats (vectors) 0.

    Args:
        cond: a pytree of [B, ...] arrays.

    Returns:
        The same pytree and shapes; unsigned labels, which have no -1, become int32.

    Source: Ho and Salimans 2022, arXiv:2207.12598, section 3.2 (there a learned null token).
    """

    def null(leaf: Any) -> Any:
        leaf = jnp.asarray(leaf)
        if jnp.issubdtype(leaf.dtype, jnp.integer):
            return jnp.full(leaf.shape, -1, jnp.int32)
        return jnp.zeros_like(leaf)

    return jax.tree.map(null, cond)
