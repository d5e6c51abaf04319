"""DPM-Solver and DPM-Solver++: exponential integrators of the probability flow in log-SNR.

With lam = log(alpha / sigma) and h = lam_s - lam_t the flow from t to s is, exactly,

    x_s = (alpha_s / alpha_t) x_t - sigma_s int exp(lam_s - lam) eps(lam) dlam      noise prediction
    x_s = (sigma_s / sigma_t) x_t + alpha_s int exp(lam - lam_s) x0(lam) dlam       data prediction

and a solver of order p replaces eps or x0 by a polynomial of degree p - 1. Singlestep solvers ask
the model between the two levels, multistep ones remember its last answers. Into a clean end
(h infinite) all of them take the first-order step, which is DDIM's and exact there.

Out of alpha = 0 (zero terminal SNR) data prediction takes DDIM's step; noise prediction refuses.
"""

from jaxdiff.samplers.dpm_solver.multistep import (
    dpm_solver_2m,
    dpm_solver_2m_sde,
    dpm_solver_3m,
    dpmpp_2m,
    dpmpp_2m_sde,
    dpmpp_3m,
    dpmpp_3m_sde,
)
from jaxdiff.samplers.dpm_solver.singlestep import dpm_solver, dpmpp_1s, dpmpp_2s, dpmpp_3s

__all__ = [
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
]
