"""Score matching: the Fisher divergence from a model's score to that of p_t, in four guises.

With s = -eps / sigma of the model, s* = grad log p_t, and means over x_t ~ p_t of D numbers,

    (1) explicit    E 1/2 |s - s*|**2                        the Fisher divergence F itself
    (2) implicit    E 1/2 |s|**2 + div s                     = F - E 1/2 |s*|**2
    (3) sliced      E 1/2 (u's)**2 + u' grad(s) u            = F - E 1/2 |s*|**2,  E u u' = I
    (4) denoising   E 1/2 |s + noise / sigma|**2             = F - E 1/2 |s*|**2 + D / (2 sigma**2)

so that all have one minimum and one gradient. (1) needs the truth, (2) and (3) no more than draws
of x_t, (4) the noise that made them: that is `losses.denoising`, without a second derivative.

Each is nats of one example, [B], summed over the event; mean and weight are the caller's.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import event_sum, expand_to
from jaxdiff.divergence import Divergence, exact, hutchinson, is_random
from jaxdiff.keys import example_keys
from jaxdiff.typing import Denoise, NoiseLevel

__all__ = ["explicit", "implicit", "sliced"]


def explicit(denoise: Denoise, x_t: Array, level: NoiseLevel, true_score: Array) -> Array:
    """Explicit score matching, equation (1).

    Args:
        denoise: the model; gradients flow to its leaves.
        x_t: [B, ...], draws of p_t, float.
        level: fields [] or [B], sigma > 0.
        true_score: [B, ...], grad log p_t(x_t).

    Returns:
        [B], 1/2 |s - s*|**2.

    Raises:
        ValueError: a clean level or one of another shape, integer or half-precision x_t, scores of
            another shape.

    Source: Hyvarinen 2005, JMLR 6:695, eq. 2.
    """
    x_t = _checked(x_t, level)
    if jnp.shape(true_score) != x_t.shape:
        raise ValueError(
            f"true_score must be {list(x_t.shape)} as x_t is, got {list(jnp.shape(true_score))}"
        )
    return 0.5 * event_sum((_score(denoise, x_t, level) - true_score) ** 2)


def implicit(
    key: Array | None,
    denoise: Denoise,
    x_t: Array,
    level: NoiseLevel,
    divergence: Divergence = exact(),  # noqa: B008 frozen, without numbers
) -> Array:
    """Implicit score matching, equation (2), which needs no truth.

    With `hutchinson` probes it is the variance-reduced form of sliced score matching (FPSSM, or
    SSM-VR): 1/2 |s|**2 is kept as it is, only the divergence is sliced.

    Args:
        key: for the probes; or [B] keys, one an example; None where the divergence is exact.
        denoise: the model; gradients flow to its leaves.
        x_t: [B, ...], draws of p_t, float.
        level: fields [] or [B], sigma > 0.
        divergence: an estimator of `jaxdiff.divergence`; of several probes the mean is taken.

    Returns:
        [B], 1/2 |s|**2 + div s.

    Raises:
        ValueError: a clean level or one of another shape, integer or half-precision x_t, a number
            of keys other than B.

    Source: Hyvarinen 2005, JMLR 6:695, eq. 4; Song et al. 2019, arXiv:1905.07088, eq. 8.
    """
    s, estimates, _ = _sliced(key, denoise, x_t, level, divergence)
    return 0.5 * event_sum(s**2) + jnp.mean(estimates, axis=1)


def sliced(key: Array, denoise: Denoise, x_t: Array, level: NoiseLevel, slices: int = 1) -> Array:
    """Sliced score matching, equation (3): both terms along random directions.

    Directions are Rademacher, u in {-1, 1}**D.

    Args:
        key: for the directions; or [B] keys, one an example.
        denoise: the model; gradients flow to its leaves.
        x_t: [B, ...], draws of p_t, float.
        level: fields [] or [B], sigma > 0.
        slices: static, how many directions each example is seen along; the mean is taken.

    Returns:
        [B].

    Raises:
        ValueError: as `implicit`, and slices below 1.

    Source: Song et al. 2019, arXiv:1905.07088, eq. 7.
    """
    arrays.check_count("slices", slices)
    s, estimates, u = _sliced(key, denoise, x_t, level, hutchinson(slices))
    along = jnp.sum(u * s[None], axis=tuple(range(2, u.ndim)))
    return jnp.mean(0.5 * along.T**2 + estimates, axis=1)


def _sliced(key, denoise, x_t, level, divergence) -> tuple:
    """The score [B, ...], estimates of its divergence [B, P], and the probes of these."""
    x_t = _checked(x_t, level)
    keys = example_keys(key if is_random(divergence) else jax.random.key(0), len(x_t))
    probes = divergence.draw(keys, x_t.shape, x_t.dtype)
    field = lambda x: _score(denoise, x, level)  # noqa: E731
    return *divergence(field, x_t, probes), probes


def _score(denoise: Denoise, x_t: Array, level: NoiseLevel) -> Array:
    return -denoise(x_t, level).eps / expand_to(level.sigma, x_t)


def _checked(x_t: Any, level: NoiseLevel) -> Array:
    x_t = jnp.asarray(x_t)
    if x_t.dtype not in (jnp.float32, jnp.float64):
        raise ValueError(f"x_t must be float32 or float64, got {x_t.dtype}")
    if x_t.ndim < 2 or x_t.size == 0:
        raise ValueError(f"x_t must have shape [B, ...] with B >= 1, got {list(x_t.shape)}")
    for name in ("alpha", "sigma"):
        shape = jnp.shape(getattr(level, name))
        if shape not in ((), x_t.shape[:1]):
            raise ValueError(f"level.{name} must be [] or [{len(x_t)}], got {list(shape)}")
    sigma = arrays.concrete(level.sigma)
    if sigma is not None and not np.all(sigma > 0):
        raise ValueError(f"level must hold noise, got sigma = {np.min(sigma):g}: no score there")
    return x_t
