"""Training: the state, the pure step, the loop around it, and what it writes."""

from jaxdiff.training import (
    checkpoint,
    distributed,
    ema,
    optim,
    parallel,
    profiles,
    rundir,
    sharding,
    snapshots,
)
from jaxdiff.training.checkpoint import Checkpoints, latest_step, restore
from jaxdiff.training.grid_objectives import to_data, to_reference
from jaxdiff.training.learn_grid import Learned, learn_grid, mean_objective, numbers_of
from jaxdiff.training.loop import Fit, check, fit
from jaxdiff.training.moment_file import read_moments, write_moments
from jaxdiff.training.objective import (
    augmented,
    classification_loss,
    denoising_loss,
    importance_loss_of,
    loss_of,
    scaled,
)
from jaxdiff.training.optim import adam, lamb
from jaxdiff.training.ordered import make_ordered_step
from jaxdiff.training.state import TrainState, init_state
from jaxdiff.training.step import make_train_step

__all__ = [
    "Checkpoints",
    "Fit",
    "Learned",
    "TrainState",
    "adam",
    "augmented",
    "check",
    "checkpoint",
    "classification_loss",
    "denoising_loss",
    "distributed",
    "ema",
    "fit",
    "importance_loss_of",
    "init_state",
    "lamb",
    "latest_step",
    "learn_grid",
    "loss_of",
    "make_ordered_step",
    "make_train_step",
    "mean_objective",
    "numbers_of",
    "optim",
    "parallel",
    "profiles",
    "read_moments",
    "restore",
    "rundir",
    "scaled",
    "sharding",
    "snapshots",
    "to_data",
    "to_reference",
    "write_moments",
]
