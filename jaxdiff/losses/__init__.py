"""Training objectives: which times are drawn, how errors are weighted, and the losses themselves.

loss, metrics = denoising(key, denoiser, x0, schedule, times=stratified, weight=min_snr(5.0))
nats, metrics = continuous_bound(key, denoiser, x0, schedule)
loss, metrics = second_moment(key, denoiser, x0, schedule)  # of heads for optimal variances
"""

from jaxdiff.losses.asking import drop_cond
from jaxdiff.losses.bound import continuous_bound
from jaxdiff.losses.classification import classification
from jaxdiff.losses.denoising import denoising
from jaxdiff.losses.hybrid import chain_bound, hybrid
from jaxdiff.losses.score_matching import explicit, implicit, sliced
from jaxdiff.losses.second_moment import joint, second_moment
from jaxdiff.losses.times import (
    TIMES,
    LossHistory,
    antithetic,
    importance,
    log_normal,
    loss_history,
    stratified,
    uniform,
    uniform_log_snr,
)
from jaxdiff.losses.weights import (
    WEIGHTS,
    ErrorWeight,
    edm,
    min_snr,
    on_output,
    one_of,
    p2,
    plain,
    sigmoid,
    simple,
    snr,
    truncated_snr,
    vlb,
)

__all__ = [
    "TIMES",
    "WEIGHTS",
    "ErrorWeight",
    "LossHistory",
    "antithetic",
    "chain_bound",
    "classification",
    "continuous_bound",
    "denoising",
    "drop_cond",
    "edm",
    "explicit",
    "hybrid",
    "implicit",
    "importance",
    "joint",
    "log_normal",
    "loss_history",
    "min_snr",
    "on_output",
    "one_of",
    "p2",
    "plain",
    "second_moment",
    "sigmoid",
    "simple",
    "sliced",
    "snr",
    "stratified",
    "truncated_snr",
    "uniform",
    "uniform_log_snr",
    "vlb",
]
