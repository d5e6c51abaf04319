"""Training objectives: which times are drawn, how errors are weighted, and the losses themselves.

loss, metrics = denoising(key, denoiser, x0, schedule, times=stratified, weight=min_snr(5.0))
"""

from jaxdiff.losses.classification import classification
from jaxdiff.losses.denoising import denoising, drop_cond
from jaxdiff.losses.times import (
    TIMES,
    LossHistory,
    antithetic,
    importance,
    log_normal,
    loss_history,
    stratified,
    uniform,
)
from jaxdiff.losses.weights import (
    WEIGHTS,
    ErrorWeight,
    edm,
    min_snr,
    on_output,
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
    "classification",
    "denoising",
    "drop_cond",
    "edm",
    "importance",
    "log_normal",
    "loss_history",
    "min_snr",
    "on_output",
    "p2",
    "plain",
    "sigmoid",
    "simple",
    "snr",
    "stratified",
    "truncated_snr",
    "uniform",
    "vlb",
]
