"""Brownian paths of a batch, each example's from its own key."""

from typing import Any

import diffrax
import equinox
import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["Paths"]


class Paths(diffrax.AbstractBrownianPath):
    """One virtual Brownian tree an example, on [0, t1].

    A path is a function of its key alone: other steps see the same path, so that a solution
    refines; and no other example, nor how many there are, changes it.

    Attributes:
        keys: [B] keys.
        t1: [], where the paths end.
        tol: [], the time below which a path is interpolated.
        event: static, the shape and dtype of an example.
        levy_area: static, what a solver wants to know of the path over a step.

    Source: Jelincic et al. 2024, arXiv:2405.06464 (the tree of diffrax).
    """

    keys: Array
    t1: Array
    tol: Array
    event: jax.ShapeDtypeStruct = equinox.field(static=True)
    levy_area: Any = equinox.field(static=True)

    @property
    def t0(self) -> Array:
        """0."""
        return jnp.zeros_like(self.t1)

    def evaluate(self, t0: Any, t1: Any = None, left: bool = True, use_levy: bool = False) -> Any:
        """The increments from t0 to t1, [B, ...] each."""

        def one(key: Array) -> Any:
            tree = diffrax.VirtualBrownianTree(
                self.t0, self.t1, self.tol, self.event, key, self.levy_area
            )
            return tree.evaluate(t0, t1, left, use_levy)

        found = jax.vmap(one)(self.keys)
        # the length of the step, a field of what solvers get, is one for all
        return equinox.tree_at(lambda a: a.dt, found, found.dt[0]) if use_levy else found
