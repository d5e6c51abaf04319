"""Where a network meets the mathematics, and the wrappers denoise -> denoise that clip x0.

`make_denoiser` turns any `apply(params, x, feature)` into a pytree that says both E[x_0 | x_t] and
E[eps | x_t]. Parameters and conditioning are its leaves: exchanging them recompiles nothing.
"""

from jaxdiff.denoiser.checked import Checked
from jaxdiff.denoiser.clipping import clip_x0, dynamic_threshold
from jaxdiff.denoiser.conditioning import null_cond
from jaxdiff.denoiser.network import Denoiser, make_denoiser
from jaxdiff.denoiser.plain import as_denoiser
from jaxdiff.denoiser.revision import add_score, own_heads, with_x0
from jaxdiff.denoiser.time_features import (
    TIME_FEATURES,
    clock,
    log_half_sigma,
    log_snr,
    quarter_log_sigma,
    rounded_steps,
    steps,
    thousandths,
    unit_steps,
)

__all__ = [
    "TIME_FEATURES",
    "Checked",
    "Denoiser",
    "add_score",
    "as_denoiser",
    "clip_x0",
    "clock",
    "dynamic_threshold",
    "log_half_sigma",
    "log_snr",
    "make_denoiser",
    "null_cond",
    "own_heads",
    "quarter_log_sigma",
    "rounded_steps",
    "steps",
    "thousandths",
    "unit_steps",
    "with_x0",
]
