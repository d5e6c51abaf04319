"""DDPM and DDIM: the reverse kernel of equation (4), drawn from step by step.

x_s = alpha_s x0 + sqrt(sigma_s**2 - l**2) eps + std noise,    l = eta sigma_s sqrt(1 - r)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import check_range, expand_to
from jaxdiff.gaussian import snr_drop
from jaxdiff.reverse import reverse_mean
from jaxdiff.reverse.variance import resolve
from jaxdiff.typing import Grid, ReverseVariance

__all__ = ["ddim", "ddpm", "visible"]


@arrays.pytree
class Ancestral:
    """See `ddpm` and `ddim`. One compile serves every eta, so eta = 0 draws noise as well."""

    eta: Any
    variance: ReverseVariance
    last_noise: Any
    last_std: Any
    noises = 1

    def init(self, x_T: Array, denoise: Any, grid: Grid) -> tuple:
        """No memory."""
        return ()

    def step(self, x, memory, denoise, noise, *, k, t, s, grid):
        """Equation (4), with less noise in the last two steps where it is asked for."""
        d = denoise(x, t)
        std = self.variance.std(d, t=t, s=s, eta=self.eta)
        cleanest = k == jnp.sum(grid.levels.sigma > 0) - 2  # the level that this step reaches
        std = jnp.where(cleanest, jnp.minimum(std, self.last_std), std)
        std = jnp.where(s.sigma > 0, std, self.last_noise * std)
        return reverse_mean(d, t=t, s=s, eta=self.eta) + expand_to(std, x) * noise[0], memory

    def check(self, grid: Grid) -> None:
        """Raises ValueError if eta asks for more noise than a level holds, a number is several,
        or the variance can say nothing of a level."""
        if hasattr(self.variance, "check"):
            self.variance.check(grid.levels)
        for name in ("eta", "last_noise", "last_std"):
            shape = jnp.shape(getattr(self, name))
            if shape:
                raise ValueError(
                    f"{name} must be one number, got shape {shape}; many samplers go through"
                    " jax.vmap"
                )
        if arrays.is_traced((self.eta, grid.levels)):
            return
        with jax.ensure_compile_time_eval():  # numbers, even where the caller is being traced
            t, s = grid.pairs
            share = snr_drop(t._replace(sigma=jnp.where(t.sigma > 0, t.sigma, 1)), s)
            share = np.asarray(jnp.where(s.sigma > 0, share, 0))
        largest = np.max(np.square(self.eta)) * np.max(share)
        if np.max(self.eta) > 1 and largest > 1:
            raise ValueError(
                f"eta must keep eta**2 (1 - r) <= 1 on every step, got {np.max(self.eta):g},"
                f" which reaches {largest:.3g}; eta <= 1 always fits"
            )


def ddpm(
    variance: ReverseVariance | Callable | str = "small", *, last_noise=0.0, last_std=np.inf
) -> Ancestral:
    """Ancestral sampling of DDPM.

    Args:
        variance: "small" (beta-tilde), "large" (beta), "learned", "npr", "sn", or a
            ReverseVariance such as `reverse.analytic`.
        last_noise: [], the share of its noise that the step into the clean end keeps; 0 as the
            papers do, 1 as the equation reads.
        last_std: [], the largest deviation of the step before it, which reaches the cleanest noisy
            level; `visible(1)` or `visible(2)` with optimal variances, as their papers do.

    Returns:
        A Sampler.

    Raises:
        ValueError: an unknown variance, last_noise outside [0, 1], or negative last_std.

    Source: Ho et al. 2020, arXiv:2006.11239, algorithm 2, over any pairs of levels; Bao et al.
        2022, arXiv:2201.06503, appendix F.2, for last_std.
    """
    return ddim(1.0, variance, last_noise=last_noise, last_std=last_std)


def ddim(
    eta=0.0,
    variance: ReverseVariance | Callable | str = "small",
    *,
    last_noise=0.0,
    last_std=np.inf,
) -> Ancestral:
    """DDIM: deterministic at eta = 0, DDPM at eta = 1.

    Args:
        eta: [], >= 0, multiplies the deviation of the noise (not its variance).
        variance: as for `ddpm`; "large" with eta = 1 is the paper's sigma-hat, and with an
            optimal variance eta = 0 is Analytic-DDIM, which draws noise.
        last_noise, last_std: as for `ddpm`.

    Returns:
        A Sampler.

    Raises:
        ValueError: negative eta, an unknown variance, last_noise outside [0, 1], or negative
            last_std.

    Source: Song et al. 2021, arXiv:2010.02502, eq. 12 and 16.
    """
    check_range("eta", eta, 0, np.inf, "[)")
    check_range("last_noise", last_noise, 0, 1)
    check_range("last_std", last_std, 0, np.inf)
    return Ancestral(eta, resolve(variance), last_noise, last_std)


def visible(values, *, bins: int = 256, low=-1.0, high=1.0) -> Any:
    """The deviation of noise whose mean size is so many of the values that a number takes.

        std = values (high - low) / (bins - 1) sqrt(pi / 2)

    Args:
        values: [], >= 0. Analytic-DPM takes 2 for its DDPM on CIFAR-10 (linear betas) and CelebA,
            1 for all else; inf is no limit.
        bins: how many values a number takes, evenly over [low, high].
        low, high: the range of the data.

    Returns:
        [], for `last_std`.

    Raises:
        ValueError: values negative or NaN, bins below 2.

    Source: Bao et al. 2022, arXiv:2201.06503, appendix F.2.
    """
    check_range("values", values, 0, np.inf)
    arrays.check_count("bins", bins, 2)
    check_range("high - low", high - low, 0, np.inf, "()")
    return values * ((high - low) / (bins - 1) * np.sqrt(np.pi / 2))
