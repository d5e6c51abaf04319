"""Hubness: points that are near to many, how unequal that is, and latents chosen by it.

Arrays in, arrays out; knows nothing of diffusion.
"""

from jaxdiff.hubness import geometry, measures
from jaxdiff.hubness.latents import (
    PRIORS,
    Latents,
    Pool,
    central,
    draw,
    hub_latents,
    hub_pool,
    truncated,
)
from jaxdiff.hubness.measures import Hubness, measure
from jaxdiff.hubness.neighbours import METRICS, Neighbours, k_occurrence, nearest
from jaxdiff.hubness.reduction import REDUCTIONS, reduced

__all__ = [
    "METRICS",
    "PRIORS",
    "REDUCTIONS",
    "Hubness",
    "Latents",
    "Neighbours",
    "Pool",
    "central",
    "draw",
    "geometry",
    "hub_latents",
    "hub_pool",
    "k_occurrence",
    "measure",
    "measures",
    "nearest",
    "reduced",
    "truncated",
]
