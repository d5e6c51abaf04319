"""Schedules: the paths of noise levels that the literature uses, each with its inverse.

    x_t = alpha(t) x_0 + sigma(t) eps,    log_snr(t) = 2 log(alpha(t) / sigma(t)), falling in t

A schedule is a frozen pytree, its numbers are traced leaves: `jax.vmap` and `jax.grad` go through
`beta_max` or a table of betas. Discrete and continuous are two schedules, not two worlds: the
clock of `from_betas` runs over 0..N, exact at whole numbers, log alpha-bar linear between.

    clock   0..1     linear_vp, cosine, sub_vp, ve, rectified
            0..N     from_betas
            sigma    edm
            another  shifted(schedule, shift)
            its own  one_of(schedules, index)
            yours    from_path(alpha, sigma)

Levels are computed by `expm1` and `log1p` forms that keep full precision near the clean end.
Not here: which times are visited (`grids`), drift and diffusion (`sde`).
"""

from jaxdiff.schedules.choice import one_of
from jaxdiff.schedules.clock import (
    check_spread,
    cleanest_time,
    noisiest_time,
    too_little_noise,
    whole_steps,
)
from jaxdiff.schedules.continuous import cosine, edm, linear_vp, rectified, sub_vp, ve
from jaxdiff.schedules.discrete import (
    cosine_betas,
    from_betas,
    linear_betas,
    rescale_to_zero_terminal_snr,
    scaled_linear_betas,
    sigmoid_betas,
    sqrt_linear_betas,
    su_betas,
)
from jaxdiff.schedules.path import from_path
from jaxdiff.schedules.shift import shifted

__all__ = [
    "check_spread",
    "cleanest_time",
    "cosine",
    "cosine_betas",
    "edm",
    "from_betas",
    "from_path",
    "linear_betas",
    "linear_vp",
    "noisiest_time",
    "one_of",
    "rectified",
    "rescale_to_zero_terminal_snr",
    "scaled_linear_betas",
    "shifted",
    "sigmoid_betas",
    "sqrt_linear_betas",
    "su_betas",
    "sub_vp",
    "too_little_noise",
    "ve",
    "whole_steps",
]
