"""The predictors of score_sde: two first-order discretisations of the reverse SDE.

    x_s = (2 - a) x_t - (G**2 / sigma_t) eps + G noise                        reverse_diffusion
        a = alpha_t / alpha_s,  G**2 = sigma_t**2 (1 - r): the transition from s to t
    x_s = x_t - (f x_t + (1 + lam**2) / 2 g**2 eps / sigma_t) h + lam g sqrt(h) noise
        h = t - s on the schedule's clock, f and g**2 those of the SDE        euler_maruyama

The third, ancestral sampling, is `ddpm`; correctors are in `langevin`.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxdiff import arrays, sde
from jaxdiff.arrays import check_range, expand_to, safe_sqrt
from jaxdiff.gaussian import snr_drop
from jaxdiff.schedules.clock import of_levels
from jaxdiff.typing import Grid

__all__ = ["euler_maruyama", "reverse_diffusion"]


@arrays.pytree
class ReverseDiffusion:
    """See `reverse_diffusion`."""

    noises = 1

    def init(self, x_T: Array, denoise: Any, grid: Grid) -> tuple:
        """No memory."""
        return ()

    def step(self, x, memory, denoise, noise, *, k, t, s, grid):
        """The forward transition's drift and noise, applied backwards."""
        var = t.sigma**2 * snr_drop(t, s)
        kept = expand_to(2 - t.alpha / s.alpha, x) * x
        mean = kept - expand_to(var / t.sigma, x) * denoise(x, t).eps
        std = jnp.where(s.sigma > 0, safe_sqrt(var), 0)
        return mean + expand_to(std, x) * noise[0], memory


@arrays.pytree
class EulerMaruyama:
    """See `euler_maruyama`. One compile serves every lam, so lam = 0 draws noise as well."""

    lam: Any
    noises = 1

    def init(self, x_T: Array, denoise: Any, grid: Grid) -> tuple:
        """No memory."""
        return ()

    def step(self, x, memory, denoise, noise, *, k, t, s, grid):
        """Euler-Maruyama; to and from where its coefficients are infinite, exact marginals."""
        d, clean, silent = denoise(x, t), s.sigma <= 0, t.alpha <= 0
        time = jnp.where(clean | silent, 0.5 * (t.t + s.t), t.t)
        f, g2 = sde.coefficients(of_levels(grid.schedule), time)
        h = t.t - s.t
        slope = (1 + self.lam**2) / 2 * g2 / t.sigma
        mean = expand_to(1 - f * h, x) * x - expand_to(slope * h, x) * d.eps
        moved = mean + expand_to(self.lam * safe_sqrt(g2 * h), x) * noise[0]
        kept = safe_sqrt((1 - self.lam) * (1 + self.lam))
        remade = expand_to(s.alpha, x) * d.x0
        remade += expand_to(s.sigma * kept, x) * d.eps
        remade += expand_to(s.sigma * self.lam, x) * noise[0]
        return jnp.where(clean | silent, remade, moved), memory

    def check(self, grid: Grid) -> None:
        """Raises ValueError on a grid without schedule."""
        if grid.schedule is None:
            raise ValueError(
                "euler_maruyama needs a grid on a schedule, whose drift it asks; on levels given"
                " as numbers use reverse_diffusion or ddpm"
            )


def reverse_diffusion() -> ReverseDiffusion:
    """The reverse-diffusion predictor, on any schedule from its levels alone.

    The drift and the noise of the forward transition q(x_t | x_s) are taken backwards, so that
    1 / a is taken for 2 - a: rough where a step's a = alpha_t / alpha_s is far from 1. The step
    into a clean end is noiseless.

    Returns:
        A Sampler.

    Source: Song et al. 2021, arXiv:2011.13456, appendix E, which it is to the letter for VE and
        VP. For sub-VP the authors' code takes Euler's discretisation of the forward SDE, ours
        the exact transition as for every schedule.
    """
    return ReverseDiffusion()


def euler_maruyama(lam=1.0) -> EulerMaruyama:
    """Euler-Maruyama on the family of reverse SDEs that share their marginals.

        dx = (f x - (1 + lam**2) / 2 g**2 score) dt + lam g dw,    score = -eps / sigma

    The step into a clean end is the model's x0 for every lam: Euler's would overshoot, since
    there g**2 h / sigma**2 comes to 2 where sigma is proportional to t. The step out of alpha = 0,
    where f is infinite, is equation (4) with eta = lam. The step h is the grid's own; on a shifted
    schedule it and the drift are of the base's clock, which levels carry.

    Args:
        lam: [], in [0, 1]: 1 is the reverse SDE, 0 Euler's method on the probability flow.

    Returns:
        A Sampler.

    Raises:
        ValueError: lam outside [0, 1]; when sampling, a grid without schedule.

    Source: Song et al. 2021, arXiv:2011.13456, section 4.1, whose code takes 1/N for h on a grid
        of spacing (1 - eps)/(N - 1); the family in Zhang and Chen 2023, arXiv:2204.13902, eq. 6.
    """
    check_range("lam", lam, 0, 1)
    return EulerMaruyama(lam)
