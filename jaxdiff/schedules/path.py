"""The schedule of a path that the user gives, as two functions of time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.lax import stop_gradient

from jaxdiff import arrays
from jaxdiff.arrays import check_range, wide_float
from jaxdiff.typing import NoiseLevel

__all__ = ["Path", "from_path"]

CHECKED = 1000  # times on which a path is looked at


@arrays.pytree
class Path:
    """A schedule of two functions of time; see `from_path`."""

    alpha_of: Callable[[Array], Any]
    sigma_of: Callable[[Array], Any]
    t_min: Any
    t_max: Any
    prior: Any

    @property
    def prior_std(self):
        """What was given, else the noise at the end of the path."""
        return self(self.t_max).sigma if self.prior is None else self.prior

    def __call__(self, t) -> NoiseLevel:
        """The level at t in t_min..t_max."""
        t = wide_float(t)
        ends = [arrays.concrete(end) for end in (self.t_min, self.t_max)]
        if all(end is not None for end in ends):
            low, high = (float(np.asarray(end, t.dtype)) for end in ends)
            check_range("t", t, low, high)
        alpha, sigma = (
            jnp.broadcast_to(jnp.asarray(function(t), t.dtype), t.shape)
            for function in (self.alpha_of, self.sigma_of)
        )
        return NoiseLevel(t, alpha, sigma)

    def time(self, log_snr) -> Array:
        """By bisection, one more bit of t a round; the nearest end where the path has no such SNR.

        Two Newton steps from there, worth nothing in value, carry the derivatives, the second
        ones too: each doubles the order to which the inverse is right.
        """
        log_snr = wide_float(log_snr)
        low, high = (jnp.asarray(end, log_snr.dtype) for end in (self.t_min, self.t_max))
        t = self._bisect(*(stop_gradient(a) for a in (log_snr, low, high)))
        before = log_snr >= self._log_snr(low)
        after = log_snr <= self._log_snr(high)
        t = jnp.where(before | after, 0.5 * (low + high), t)
        for _ in range(2):
            fall, slope = jax.jvp(self._log_snr, (t,), (jnp.ones_like(t),))
            step = (jnp.where(before | after, fall, log_snr) - fall) / jnp.where(slope, slope, -1)
            t = t + step - stop_gradient(step)
        t = jnp.where(before, low, jnp.where(after, high, t))
        return jnp.where(jnp.isnan(log_snr), log_snr, t)

    def _log_snr(self, t: Array) -> Array:
        return self(t).log_snr

    def _bisect(self, log_snr: Array, low: Array, high: Array) -> Array:
        def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            middle = 0.5 * (ends[0] + ends[1])
            early = self._log_snr(middle) > log_snr
            return jnp.where(early, middle, ends[0]), jnp.where(early, ends[1], middle)

        # as many rounds again as the dtype has bits: small times keep their digits too
        rounds = 2 * jnp.finfo(log_snr.dtype).nmant
        ends = (jnp.broadcast_to(end, log_snr.shape) for end in (low, high))
        return 0.5 * sum(jax.lax.fori_loop(0, rounds, halve, tuple(ends)))


def from_path(
    alpha: Callable[[Array], Any],
    sigma: Callable[[Array], Any],
    *,
    t_min: Any = 0.0,
    t_max: Any = 1.0,
    prior_std: Any = None,
) -> Path:
    """The schedule of any Gaussian path, given as its two scales.

        x_t = alpha(t) x_0 + sigma(t) eps

    Its SDE is `sde.coefficients`, by autodiff, its inverse a bisection. Write sigma so that it
    keeps its digits and its slope near clean data, where 1 - alpha**2 cancels and the root of 0
    has an infinite slope: `arrays.safe_sqrt(-jnp.expm1(2 * log_alpha))`.

    Args:
        alpha, sigma: of an array of times, elementwise, differentiable; any callable. What they
            hold is traced if they are pytrees; a plain function may close over traced numbers
            inside a transformation.
        t_min, t_max: the clock, clean end first.
        prior_std: the deviation that sampling starts from; sigma(t_max) if None, which is right
            as long as alpha(t_max) times the spread of the data is small beside it.

    Returns:
        A schedule on the clock t_min..t_max.

    Raises:
        ValueError: t_min not below t_max, prior_std not positive, alpha(t_min) not positive; on
            any of 1000 even times a scale that is not finite or negative, or a sigma / alpha
            that falls: no diffusion takes noise away. Not checked while traced.
        TypeError: alpha or sigma is no function.

    Source: Su 2022, kexue.fm article 9209, which builds the SDE from the path; Kingma et al.
        2021, arXiv:2107.00630, section 3.
    """
    low, high = arrays.concrete(t_min), arrays.concrete(t_max)
    if low is not None and high is not None and not np.all(low < high):
        raise ValueError(f"t_min must lie below t_max, got {t_min} and {t_max}")
    if prior_std is not None:
        check_range("prior_std", prior_std, 0, np.inf, "()")
    path = Path(arrays.as_pytree(alpha), arrays.as_pytree(sigma), t_min, t_max, prior_std)
    if low is not None and high is not None:
        _check_path(path)
    return path


def _check_path(path: Path) -> None:
    """Raises as `from_path` does where the functions give concrete numbers."""
    t = jnp.linspace(path.t_min, path.t_max, CHECKED, dtype=arrays.float_dtype())
    level = path(t)
    if arrays.is_traced(level):
        return
    t, alpha, sigma = (np.asarray(field) for field in level)
    for name, scale in (("alpha", alpha), ("sigma", sigma)):
        bad = ~(np.isfinite(scale) & (scale >= 0))
        if bad.any():
            i = int(np.argmax(bad))
            raise ValueError(
                f"{name}(t) must be finite and at least 0, got {scale[i]:g} at t = {t[i]:g}"
            )
    if alpha[0] <= 0:
        raise ValueError(f"alpha(t_min) must be positive, got 0 at t = {t[0]:g}")
    with np.errstate(divide="ignore"):
        ratio = np.where(alpha > 0, sigma / np.where(alpha > 0, alpha, 1), np.inf)
    # rounding of a formula may turn a flat stretch down by some last digits
    falls = ratio[1:] < ratio[:-1] * (1 - 100 * np.finfo(ratio.dtype).eps)
    if falls.any() or ratio[-1] <= ratio[0]:
        i = int(np.argmax(falls)) if falls.any() else len(t) - 2
        j = i if falls.any() else 0
        raise ValueError(
            f"sigma / alpha must grow with t, got {ratio[j]:g} at t = {t[j]:g} and"
            f" {ratio[i + 1]:g} at t = {t[i + 1]:g}"
        )
