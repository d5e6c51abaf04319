"""The precision of every network, in one place.

    parameters, their gradients, the output     float32
    convolutions, products over pixels, tokens  `dtype`, the network's field
    statistics of norms, scores, softmax        float32 from operands in `dtype`
    what describes a whole example: features    float32, at Precision.HIGHEST
    of its time, embeddings, scales and shifts

float32 is float64 under jax_enable_x64. What describes an example is one vector, so that float32
costs nothing there, and it must be: 998 and 999 are one number in bfloat16, and the products of
float32 numbers are rounded to as little by default on TPUs.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxdiff import arrays

__all__ = ["DTYPES", "EXACT", "check", "output"]

EXACT = jax.lax.Precision.HIGHEST
"""Of products of float32 operands that must be products of float32 numbers."""

DTYPES = ("bfloat16", "float16", "float32")


def output(h: Array) -> Array:
    """A network's output, whatever it computed in, as float32."""
    return h.astype(arrays.float_dtype())


def check(dtype: Any) -> None:
    """Raises ValueError unless `dtype` is None or a float dtype that networks compute in."""
    if dtype is None:
        return
    try:
        name = jnp.dtype(dtype).name
    except TypeError:
        name = repr(dtype)
    if name not in DTYPES:
        raise ValueError(f"dtype must be None or one of {', '.join(DTYPES)}, got {name}")
