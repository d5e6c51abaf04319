"""The schedule of a chain of betas, and the tables of betas that the literature uses.

    alpha-bar_n = prod_{i <= n} (1 - beta_i),    alpha = sqrt(alpha-bar),    clock n = 0..N

Tables are numpy float64, built on the host: in float32 `1 - alpha_bar` at n = 1 would lose three
digits.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import check_range, safe_sqrt
from jaxdiff.schedules.clock import check_end, clock, log_alpha_bar
from jaxdiff.typing import NoiseLevel

__all__ = [
    "cosine_betas",
    "from_betas",
    "linear_betas",
    "rescale_to_zero_terminal_snr",
    "scaled_linear_betas",
    "sigmoid_betas",
    "sqrt_linear_betas",
    "su_betas",
]


@arrays.pytree
class FromBetas:
    """A chain of N steps; see `from_betas`. `log_table` [N+1] is log alpha-bar, 0 first."""

    log_table: Any
    t_min = 0.0
    prior_std = 1.0

    @property
    def num_steps(self) -> int:
        """N."""
        return self.log_table.shape[-1] - 1

    @property
    def t_max(self) -> float:
        """N."""
        return float(self.num_steps)

    def __call__(self, t) -> NoiseLevel:
        """The level at t in 0..N."""
        t = clock(t, self.num_steps)
        table = jnp.asarray(self.log_table, t.dtype)
        # at a whole number the step that leads up to it, so that slopes are its own
        start = jnp.clip(jnp.ceil(t) - 1, 0, self.num_steps - 1)
        n = start.astype(int)
        low, high, fraction = table[n], table[n + 1], t - start
        # a last step to zero SNR is linear in alpha, since log alpha-bar has no line to -inf
        ends = jnp.isneginf(high)
        rise = jnp.where(ends, low, high) - low
        up, down = low + fraction * rise, jnp.where(ends, low, high) - (1 - fraction) * rise
        log_bar = jnp.where(fraction < 0.5, up, down)  # exact at both ends
        alpha = jnp.exp(0.5 * log_bar) * jnp.where(ends, 1 - fraction, 1)
        var = jnp.where(ends, (1 - alpha) * (1 + alpha), -jnp.expm1(log_bar))
        return NoiseLevel(t, alpha, safe_sqrt(var))

    def time(self, log_snr) -> Array:
        """The step before, by bisection of the table, and the fraction beyond it."""
        log_bar = log_alpha_bar(log_snr)
        table = jnp.asarray(self.log_table, log_bar.dtype)
        n = jnp.clip(jnp.searchsorted(-table, -log_bar, side="right") - 1, 0, self.num_steps - 1)
        low, high = table[n], table[n + 1]
        ends = jnp.isneginf(high)
        line = (log_bar - low) / (jnp.where(ends, low - 1, high) - low)
        fraction = jnp.where(ends, -jnp.expm1(0.5 * (log_bar - low)), line)
        return n.astype(table.dtype) + fraction

    def coefficients(self, t) -> tuple[Array, Array]:
        """f = (1/2) d log alpha-bar / dt, g**2 = -2 f, of the step that leads up to t."""
        t = clock(t, self.num_steps)
        table = jnp.asarray(self.log_table, t.dtype)
        start = jnp.clip(jnp.ceil(t) - 1, 0, self.num_steps - 1)
        n = start.astype(int)
        ends = jnp.isneginf(table[n + 1])
        rate = jnp.where(ends, -2 / (1 - (t - start)), table[n + 1] - table[n])
        return 0.5 * rate, -rate


def from_betas(betas) -> FromBetas:
    """The schedule of a DDPM chain: whole times are its steps, 0 is clean.

        log alpha_bar(n) = sum_{i <= n} log(1 - beta_i),    linear in between

    Args:
        betas: [N], each in (0, 1); the last may be 1 (zero terminal SNR).

    Returns:
        A schedule on the clock 0..N.

    Raises:
        ValueError: betas of another rank, outside (0, 1), or so small or few that
            alpha_bar_N > 0.01: signal would be left where sampling starts from pure noise.

    Source: Ho et al. 2020, arXiv:2006.11239, eq. 4.
    """
    values = arrays.concrete(betas)
    if values is None:
        total = jnp.cumsum(jnp.log1p(-betas))
        return FromBetas(jnp.concatenate([jnp.zeros_like(total[:1]), total]))
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"betas must have shape [N] with N >= 1, got {list(values.shape)}")
    values = values.astype(np.float64)
    check_range("betas", values[:-1], 0, 1, "()")
    check_range("betas[-1]", values[-1], 0, 1, "(]")
    with np.errstate(divide="ignore"):  # a last beta of 1 means log 0
        table = np.concatenate([[0.0], np.cumsum(np.log1p(-values))])
    check_end(np.exp(table[-1]))
    return FromBetas(table)


def _check_steps(num_steps: int) -> None:
    if int(num_steps) != num_steps or num_steps < 1:
        raise ValueError(f"num_steps must be a whole number >= 1, got {num_steps}")


def linear_betas(num_steps: int = 1000) -> np.ndarray:
    """Ho et al.'s betas, 1e-4 to 0.02 evenly; both ends scaled by 1000 / N for other N.

    Args:
        num_steps: N > 20; below, the last beta reaches 1.

    Returns:
        [N] float64.

    Raises:
        ValueError: N <= 20.

    Source: Ho et al. 2020, section 4; the scaling: Nichol and Dhariwal 2021, section 3.
    """
    _check_steps(num_steps)
    if num_steps <= 20:
        raise ValueError(
            f"num_steps must exceed 20, got {num_steps}: the scaled last beta 20 / N reaches 1"
        )
    return np.linspace(1e-4, 0.02, num_steps) * (1000 / num_steps)


def scaled_linear_betas(
    num_steps: int = 1000, first: float = 0.00085, last: float = 0.012
) -> np.ndarray:
    """Betas whose square roots are evenly spaced, as latent diffusion uses.

        beta_n = (sqrt(first) + (sqrt(last) - sqrt(first)) (n - 1) / (N - 1))**2

    Args:
        num_steps: N >= 1.
        first, last: the end values.

    Returns:
        [N] float64.

    Source: Rombach et al. 2022, arXiv:2112.10752, and its public configurations.
    """
    _check_steps(num_steps)
    return np.linspace(first**0.5, last**0.5, num_steps) ** 2


def sqrt_linear_betas(num_steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> np.ndarray:
    """Betas that are the square roots of evenly spaced numbers, latent diffusion's "sqrt".

        beta_n = sqrt(first + (last - first) (n - 1) / (N - 1))

    Args:
        num_steps: N >= 1.
        first, last: the squares of the end values.

    Returns:
        [N] float64.

    Source: the beta tables of Rombach et al. 2022, arXiv:2112.10752.
    """
    _check_steps(num_steps)
    return np.linspace(first, last, num_steps) ** 0.5


def cosine_betas(num_steps: int = 1000, offset: float = 0.008, largest: float = 0.999):
    """Nichol and Dhariwal's cosine betas, cut at `largest`.

        beta_n = min(1 - f(n) / f(n - 1), largest),    f(n) = cos(((n/N) + s) / (1 + s) pi/2)**2

    Args:
        num_steps: N >= 1.
        offset: s.
        largest: the cut; at 0.999 the last step multiplies errors of eps by some 31.

    Returns:
        [N] float64.

    Source: Nichol and Dhariwal 2021, arXiv:2102.09672, eq. 17 and the text below.
    """
    _check_steps(num_steps)
    f = np.cos((np.arange(num_steps + 1) / num_steps + offset) / (1 + offset) * np.pi / 2) ** 2
    return np.minimum(1 - f[1:] / f[:-1], largest)


def sigmoid_betas(num_steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> np.ndarray:
    """Betas along a sigmoid over -6..6.

        beta_n = first + (last - first) sigmoid(-6 + 12 (n - 1) / (N - 1))

    Args:
        num_steps: N >= 1.
        first, last: the limits.

    Returns:
        [N] float64.

    Source: Xu et al. 2022 (GeoDiff), arXiv:2203.02923, and its code.
    """
    _check_steps(num_steps)
    return first + (last - first) / (1 + np.exp(-np.linspace(-6, 6, num_steps)))


def su_betas(num_steps: int = 1000) -> np.ndarray:
    """Su's betas; they do not rescale with N, so a short chain ends with signal left.

        beta_n = 0.02 n / N

    Args:
        num_steps: N >= 1; `from_betas` wants about 460 or more.

    Returns:
        [N] float64.

    Source: Su 2022, kexue.fm article 9152, and the Keras-DDPM repository.
    """
    _check_steps(num_steps)
    return 0.02 * np.arange(1, num_steps + 1) / num_steps


def rescale_to_zero_terminal_snr(betas) -> np.ndarray:
    """Betas of the same chain, shifted and scaled so that the last step holds no signal.

        sqrt(alpha_bar)_n <- (sqrt(alpha_bar)_n - sqrt(alpha_bar)_N)
                              sqrt(alpha_bar)_1 / (sqrt(alpha_bar)_1 - sqrt(alpha_bar)_N)

    Args:
        betas: [N], each in (0, 1).

    Returns:
        [N] float64, the last exactly 1.

    Source: Lin et al. 2023, arXiv:2305.08891, algorithm 1.
    """
    betas = np.asarray(betas, np.float64)
    check_range("betas", betas, 0, 1, "()")
    root = np.sqrt(np.cumprod(1 - betas))
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return 1 - np.concatenate([root[:1] ** 2, (root[1:] / root[:-1]) ** 2])
