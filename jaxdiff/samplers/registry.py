"""The samplers by name: what the command line offers and the test battery runs.

A new sampler is one row.
"""

import inspect
from collections.abc import Callable
from typing import NamedTuple

from jaxdiff.samplers.ancestral import ddim, ddpm
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
from jaxdiff.samplers.langevin import predictor_corrector
from jaxdiff.samplers.restart import restart
from jaxdiff.samplers.score_sde import euler_maruyama, reverse_diffusion
from jaxdiff.samplers.unipc import unic, unipc
from jaxdiff.typing import Sampler

__all__ = ["SAMPLERS", "Row", "make_sampler"]


class Row(NamedTuple):
    """One sampler.

    Attributes:
        factory: makes the sampler; its keywords and defaults are the hyperparameters.
        paper: where it comes from.
        refuses: what it cannot run on, in words; "" if nothing.
    """

    factory: Callable[..., Sampler]
    paper: str
    refuses: str = ""


_LU = "Lu et al. 2022, arXiv:2206.00927"
_LU_PP = "Lu et al. 2022, arXiv:2211.01095"
_KARRAS = "Karras et al. 2022, arXiv:2206.00364"
_SONG = "Song et al. 2021, arXiv:2011.13456"
_CLOCK = "alpha = 0 (zero terminal SNR): the clock sigma / alpha ends there"
_DRIFT = "levels without a schedule: it asks for the drift"

SAMPLERS: dict[str, Row] = {
    "ddpm": Row(ddpm, "Ho et al. 2020, arXiv:2006.11239"),
    "ddim": Row(ddim, "Song et al. 2021, arXiv:2010.02502"),
    "dpm_solver": Row(dpm_solver, _LU, _CLOCK),
    "dpm_solver_2m": Row(dpm_solver_2m, _LU, _CLOCK),
    "dpm_solver_3m": Row(dpm_solver_3m, _LU, _CLOCK),
    "dpm_solver_2m_sde": Row(dpm_solver_2m_sde, _LU_PP, _CLOCK),
    "dpmpp_1s": Row(dpmpp_1s, _LU_PP),
    "dpmpp_2s": Row(dpmpp_2s, _LU_PP),
    "dpmpp_3s": Row(dpmpp_3s, _LU_PP),
    "dpmpp_2m": Row(dpmpp_2m, _LU_PP),
    "dpmpp_3m": Row(dpmpp_3m, _LU_PP),
    "dpmpp_2m_sde": Row(dpmpp_2m_sde, _LU_PP),
    "dpmpp_3m_sde": Row(dpmpp_3m_sde, _LU_PP),
    "unipc": Row(unipc, "Zhao et al. 2023, arXiv:2302.04867"),
    "unic": Row(unic, "Zhao et al. 2023, arXiv:2302.04867"),
    "deis": Row(deis, "Zhang and Chen 2023, arXiv:2204.13902", _CLOCK),
    "lms": Row(lms, "k-diffusion (K. Crowson)", _CLOCK),
    "euler": Row(euler, _KARRAS, _CLOCK),
    "heun": Row(heun, _KARRAS, _CLOCK),
    "dpm2": Row(dpm2, "k-diffusion (K. Crowson)", _CLOCK),
    "euler_ancestral": Row(euler_ancestral, "k-diffusion (K. Crowson)"),
    "dpm2_ancestral": Row(dpm2_ancestral, "k-diffusion (K. Crowson)", _CLOCK),
    "restart": Row(restart, "Xu et al. 2023, arXiv:2306.14878", _CLOCK),
    "predictor_corrector": Row(predictor_corrector, _SONG),
    "reverse_diffusion": Row(reverse_diffusion, _SONG),
    "euler_maruyama": Row(euler_maruyama, _SONG, _DRIFT),
}


def make_sampler(name: str, **hyperparameters) -> Sampler:
    """A sampler by name.

    Args:
        name: a key of `SAMPLERS`.
        hyperparameters: what its factory takes.

    Returns:
        A Sampler.

    Raises:
        ValueError: an unknown sampler, or a hyperparameter it does not have.
    """
    if name not in SAMPLERS:
        raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, got {name!r}")
    factory = SAMPLERS[name].factory
    known = list(inspect.signature(factory).parameters)
    for unknown in set(hyperparameters) - set(known):
        takes = ", ".join(known) or "no hyperparameters"
        raise ValueError(f"{name} takes {takes}, got {unknown!r}")
    return factory(**hyperparameters)
