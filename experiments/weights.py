"""Random parameters for networks that are only timed."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["drawn"]


def drawn(module: nn.Module, *inputs: Any, seed: int = 0) -> Any:
    """Parameters for such inputs, Gaussian of variance 1 / fan-in, none of them zero.

    Drawn by numpy: to compile a network's own initialisation takes longer than the network, and
    leaves layers zero, whose output tells nothing.
    """
    generator = np.random.default_rng(seed)

    def draw(leaf: Any) -> jax.Array:
        fan = math.prod(leaf.shape[:-1])
        return jnp.asarray(generator.normal(size=leaf.shape) / math.sqrt(fan), leaf.dtype)

    return jax.tree.map(draw, jax.eval_shape(module.init, jax.random.key(0), *inputs))
