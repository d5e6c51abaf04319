"""The reverse process: the step p(x_s | x_t) and where its variance comes from.

moments = second_moments(key, denoise, x, grid)
x = sample(key, denoise, grid, shape, sampler=ddpm(analytic(moments, data_range=(-1, 1))))
"""

from jaxdiff.reverse.covariance import Table, table
from jaxdiff.reverse.kernel import p_reverse, reverse_mean
from jaxdiff.reverse.moments import (
    ESTIMATORS,
    Average,
    Moments,
    merge,
    moments_of_gamma,
    second_moments,
)
from jaxdiff.reverse.optimal import analytic, bounds, npr, optimal, sn, step_coefficients
from jaxdiff.reverse.variance import (
    TINY,
    VARIANCES,
    large,
    learned_range,
    resolve,
    second_to_last,
    small,
)

__all__ = [
    "ESTIMATORS",
    "TINY",
    "VARIANCES",
    "Average",
    "Moments",
    "Table",
    "analytic",
    "bounds",
    "large",
    "learned_range",
    "merge",
    "moments_of_gamma",
    "npr",
    "optimal",
    "p_reverse",
    "resolve",
    "reverse_mean",
    "second_moments",
    "second_to_last",
    "small",
    "sn",
    "step_coefficients",
    "table",
]
