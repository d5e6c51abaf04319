"""Training: the state, the pure step, the loop around it, and what it writes."""

from jaxdiff.training import checkpoint, ema, optim, rundir
from jaxdiff.training.checkpoint import Checkpoints, latest_step, restore
from jaxdiff.training.loop import Fit, fit
from jaxdiff.training.optim import adam
from jaxdiff.training.state import TrainState, init_state
from jaxdiff.training.step import make_train_step

__all__ = [
    "Checkpoints",
    "Fit",
    "TrainState",
    "adam",
    "checkpoint",
    "ema",
    "fit",
    "init_state",
    "latest_step",
    "make_train_step",
    "optim",
    "restore",
    "rundir",
]
