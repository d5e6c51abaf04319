"""jaxdiff: the diffusion library for JAX.

A Gaussian diffusion model is fixed by two numbers at each time, x_t = alpha x_0 + sigma eps, and
the library is functions of one or two such noise levels:

    schedule = jaxdiff.schedules.linear_vp()
    grid = jaxdiff.grids.uniform(schedule, 50)
    x_0 = jaxdiff.sample(key, denoise, grid, (16, 8, 8, 1), sampler=jaxdiff.ddim())

`denoise(x_t, level) -> Denoised` is any function, or a network through `make_denoiser`. Submodules
follow the order in which they build on each other: `typing`, `schedules`, `grids`, `gaussian`,
`parametrization`, `sde`, `divergence`, `latent`, `exact`, `denoiser`, `reverse`, `guidance`,
`losses`, `samplers`, `likelihood`, then `training`. Networks (`models`), data and metrics stand
beside them and are imported by name. `likelihood` is loaded when first asked for, since diffrax
takes a while.
"""

import importlib
from typing import Any

from jaxdiff import (
    denoiser,
    divergence,
    exact,
    gaussian,
    grids,
    guidance,
    latent,
    losses,
    parametrization,
    reverse,
    samplers,
    schedules,
    sde,
    typing,
)
from jaxdiff.denoiser import clip_x0, dynamic_threshold, make_denoiser
from jaxdiff.gaussian import (
    discretized_log_prob,
    normal_kl,
    q_marginal,
    q_posterior,
    q_sample,
    q_transition,
)
from jaxdiff.guidance import cfg
from jaxdiff.losses import denoising
from jaxdiff.reverse import p_reverse
from jaxdiff.samplers import (
    circular,
    ddim,
    ddim_encode,
    ddpm,
    draw_noise,
    heun_encode,
    make_sampler,
    sample,
    slerp,
)
from jaxdiff.schedules import (
    cosine,
    edm,
    from_betas,
    linear_vp,
    rectified,
    shifted,
    sub_vp,
    ve,
)
from jaxdiff.typing import CLEAN, Denoised, Grid, NoiseLevel, Normal

__version__ = "0.1.0"

__all__ = [
    "CLEAN",
    "Denoised",
    "Grid",
    "NoiseLevel",
    "Normal",
    "cfg",
    "circular",
    "clip_x0",
    "cosine",
    "ddim",
    "ddim_encode",
    "ddpm",
    "denoiser",
    "denoising",
    "discretized_log_prob",
    "divergence",
    "draw_noise",
    "dynamic_threshold",
    "edm",
    "exact",
    "from_betas",
    "gaussian",
    "grids",
    "guidance",
    "heun_encode",
    "latent",
    "likelihood",
    "linear_vp",
    "losses",
    "make_denoiser",
    "make_sampler",
    "normal_kl",
    "p_reverse",
    "parametrization",
    "q_marginal",
    "q_posterior",
    "q_sample",
    "q_transition",
    "rectified",
    "reverse",
    "sample",
    "samplers",
    "schedules",
    "sde",
    "shifted",
    "slerp",
    "sub_vp",
    "typing",
    "ve",
]


def __getattr__(name: str) -> Any:
    """`jaxdiff.likelihood`, so that only its users wait for diffrax."""
    if name == "likelihood":
        return importlib.import_module("jaxdiff.likelihood")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
