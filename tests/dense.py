"""Conditioning of joint Gaussians in 60 decimal digits: the truth the kernels are held to.

Every variable is a linear map of independent sources. Nothing is assumed of the maps, so a
formula of the literature is checked against the definition of a conditional law and no more.
"""

import decimal

import numpy as np

_CONTEXT = decimal.Context(prec=60)
decimals = np.vectorize(lambda v: decimal.Decimal(float(v)), otypes=[object])
"""Floats as they are, digit for digit."""


def root(x: decimal.Decimal) -> decimal.Decimal:
    """The square root; of a rounding below zero, zero."""
    return _CONTEXT.sqrt(max(x, decimal.Decimal(0)))


def conditional(mean, cov, seen, value, wanted) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of `wanted @ z` given `seen @ z = value`, with z ~ N(mean, cov).

    Args:
        mean: [n] floats or decimals.
        cov: [n, n].
        seen: [k, n], of full rank under cov.
        value: [k].
        wanted: [m, n].

    Returns:
        [m] and [m, m] float64, rounded from 60 digits.
    """
    mean, cov, seen, value, wanted = (_as_decimals(a) for a in (mean, cov, seen, value, wanted))
    with decimal.localcontext(_CONTEXT):
        cross = wanted @ cov @ seen.T
        gain = _solve(seen @ cov @ seen.T, cross.T).T
        first = wanted @ mean + gain @ (value - seen @ mean)
        second = wanted @ cov @ wanted.T - gain @ cross.T
    return first.astype(float), second.astype(float)


def _as_decimals(a):
    a = np.asarray(a)
    return a if a.dtype == object else decimals(a)


def _solve(a, b):
    """a^-1 b by Gauss and Jordan, pivots by size."""
    a, b = a.copy(), b.copy()
    for i in range(len(a)):
        pivot = i + int(np.argmax(np.abs(a[i:, i])))
        for m in (a, b):
            m[[i, pivot]] = m[[pivot, i]]
        b[i], a[i] = b[i] / a[i, i], a[i] / a[i, i]
        for j in range(len(a)):
            if j != i:
                b[j], a[j] = b[j] - a[j, i] * b[i], a[j] - a[j, i] * a[i]
    return b


def markov(alpha_t, sigma_t, alpha_s, sigma_s) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x_0, x_s and x_t as maps of the sources (x_0, e_s, e_t), the last two N(0, 1).

    x_s = alpha_s x_0 + sigma_s e_s, and x_t diffuses on from x_s: what it must add so that
    x_t = alpha_t x_0 + sigma_t noise is all that is used.
    """
    a_t, sd_t, a_s, sd_s = decimals([alpha_t, sigma_t, alpha_s, sigma_s])
    zero, one = decimals([0, 1])
    with decimal.localcontext(_CONTEXT):
        keep = a_t / a_s
        fresh = root(sd_t**2 - (keep * sd_s) ** 2)
        return tuple(
            np.asarray([row])
            for row in ([one, zero, zero], [a_s, sd_s, zero], [a_t, keep * sd_s, fresh])
        )
