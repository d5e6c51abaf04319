"""The reverse step p(x_s | x_t), one line for DDPM, DDIM and the optimal variances.

    (4) p(x_s | x_t) = N(alpha_s x0 + sqrt(sigma_s**2 - l**2) eps,  std**2)
        l**2 = eta**2 sigma_s**2 (1 - r)

with x0 and eps the model's. eta = 1 is DDPM, eta = 0 DDIM; std is l or what `variance` says.
"""

from collections.abc import Callable
from typing import Any

from jax import Array

from jaxdiff.arrays import expand_to, safe_sqrt
from jaxdiff.reverse.variance import resolve
from jaxdiff.typing import Denoised, NoiseLevel, Normal, ReverseVariance

__all__ = ["p_reverse", "reverse_mean"]


def reverse_mean(denoised: Denoised, *, t: NoiseLevel, s: NoiseLevel, eta: Any = 1.0) -> Array:
    """The mean of equation (4).

    Args:
        denoised: x0 and eps, [B, ...], estimated at level t.
        t: the noisier level, [] or [B], sigma_t > 0.
        s: the cleaner level.
        eta: [], the share of the noise that is fresh; multiplies the deviation, as in DDIM.

    Returns:
        [B, ...].

    Source: Song et al. 2021, arXiv:2010.02502, eq. 12.
    """
    x0, eps = denoised.x0, denoised.eps
    root = t.alpha * s.sigma / (s.alpha * t.sigma)
    # 1 - eta**2 (1 - r), exactly r at eta = 1
    kept = safe_sqrt((1 - eta) * (1 + eta) + (eta * root) ** 2)
    return expand_to(s.alpha, x0) * x0 + expand_to(s.sigma * kept, eps) * eps


def p_reverse(
    denoised: Denoised,
    x_t: Array,
    *,
    t: NoiseLevel,
    s: NoiseLevel,
    eta: Any = 1.0,
    variance: ReverseVariance | Callable | str = "small",
) -> Normal:
    """The model's p(x_s | x_t), equation (4).

    Args:
        denoised: what the model says of x_t.
        x_t: [B, ...], at level t.
        t: the noisier level, [] or [B], sigma_t > 0.
        s: the cleaner level.
        eta: [], 1 for DDPM, 0 for DDIM; eta**2 (1 - r) <= 1.
        variance: where the deviation comes from: a ReverseVariance or its name.

    Returns:
        Normal with mean [B, ...].

    Source: Ho et al. 2020, arXiv:2006.11239, eq. 1 and section 3.2; Song et al. 2021,
        arXiv:2010.02502, eq. 12.
    """
    std = resolve(variance).std(denoised, t=t, s=s, eta=eta)
    return Normal(reverse_mean(denoised, t=t, s=s, eta=eta), expand_to(std, x_t) ** 2)
