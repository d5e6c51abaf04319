"""A linear layer without a module: what is put into a network from outside."""

import jax.numpy as jnp
from jax import Array

from jaxdiff import arrays
from jaxdiff.models import layers

__all__ = ["dense", "start"]


def start(
    key: Array, inputs: int, outputs: int, kernel_init: layers.Initializer = layers.LECUN
) -> dict[str, Array]:
    """Its parameters: {"kernel": [inputs, outputs], "bias": [outputs]}, the bias 0."""
    dtype = arrays.float_dtype()
    return {
        "kernel": kernel_init(key, (inputs, outputs), dtype),
        "bias": jnp.zeros((outputs,), dtype),
    }


def dense(params: dict[str, Array], h: Array) -> Array:
    """h kernel + bias over the last axis: [..., inputs] to [..., outputs], in the dtype of h."""
    product = h @ params["kernel"].astype(h.dtype)
    return product + params["bias"].astype(h.dtype).reshape((1,) * (h.ndim - 1) + (-1,))
