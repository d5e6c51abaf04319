"""Samplers: frozen pytrees with two pure methods, and the one driver that runs them.

Beside them diffrax: `solve_ode`, `solve_sde` and `simulate`, loaded when first asked for.
"""

import importlib
from typing import Any

from jaxdiff.samplers.ancestral import ddim, ddpm, visible
from jaxdiff.samplers.base import draw_noise, draw_start, example_keys, sample
from jaxdiff.samplers.bases import (
    Basis,
    Known,
    colour_basis,
    grey_known,
    linear_basis,
    linear_known,
)
from jaxdiff.samplers.deis import deis, lms
from jaxdiff.samplers.dpm_solver import (
    dpm_solver,
    dpm_solver_2m,
    dpm_solver_2m_sde,
    dpm_solver_3m,
    dpmpp_1s,
    dpmpp_2m,
    dpmpp_2m_sde,
    dpmpp_2s,
    dpmpp_3m,
    dpmpp_3m_sde,
    dpmpp_3s,
)
from jaxdiff.samplers.edm import dpm2, dpm2_ancestral, euler, euler_ancestral, heun
from jaxdiff.samplers.inpainting import (
    colorisation,
    linear_measurement,
    repaint,
    replacement,
    replacement_corrector,
)
from jaxdiff.samplers.langevin import (
    Corrector,
    annealed_langevin,
    langevin,
    predictor_corrector,
)
from jaxdiff.samplers.latents import circular, ddim_encode, heun_encode, slerp
from jaxdiff.samplers.registry import SAMPLERS, make_sampler
from jaxdiff.samplers.restart import restart
from jaxdiff.samplers.score_sde import euler_maruyama, reverse_diffusion
from jaxdiff.samplers.unipc import unic, unipc

__all__ = [
    "SAMPLERS",
    "Basis",
    "Corrector",
    "Known",
    "annealed_langevin",
    "circular",
    "colorisation",
    "colour_basis",
    "ddim",
    "ddim_encode",
    "ddpm",
    "deis",
    "dpm2",
    "dpm2_ancestral",
    "dpm_solver",
    "dpm_solver_2m",
    "dpm_solver_2m_sde",
    "dpm_solver_3m",
    "dpmpp_1s",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_2s",
    "dpmpp_3m",
    "dpmpp_3m_sde",
    "dpmpp_3s",
    "draw_noise",
    "draw_start",
    "euler",
    "euler_ancestral",
    "euler_maruyama",
    "example_keys",
    "grey_known",
    "heun",
    "heun_encode",
    "integrator",
    "langevin",
    "linear_basis",
    "linear_known",
    "linear_measurement",
    "lms",
    "make_sampler",
    "predictor_corrector",
    "repaint",
    "replacement",
    "replacement_corrector",
    "restart",
    "reverse_diffusion",
    "sample",
    "simulate",
    "slerp",
    "solve_ode",
    "solve_sde",
    "unic",
    "unipc",
    "visible",
]

_BY_DIFFRAX = ("integrator", "simulate", "solve_ode", "solve_sde")


def __getattr__(name: str) -> Any:
    """The functions of `adaptive`, so that only their users wait for diffrax."""
    if name in _BY_DIFFRAX:
        return getattr(importlib.import_module("jaxdiff.samplers.adaptive"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
