"""Samplers: frozen pytrees with two pure methods, and the one driver that runs them."""

from jaxdiff.samplers.ancestral import ddim, ddpm
from jaxdiff.samplers.base import draw_noise, example_keys, sample
from jaxdiff.samplers.latents import circular, ddim_encode, heun_encode, slerp
from jaxdiff.samplers.registry import SAMPLERS, make_sampler

__all__ = [
    "SAMPLERS",
    "circular",
    "ddim",
    "ddim_encode",
    "ddpm",
    "draw_noise",
    "example_keys",
    "heun_encode",
    "make_sampler",
    "sample",
    "slerp",
]
