"""Trainings that begin from a run: `jaxdiff train DATA --preset npr --from RUN --out RUN2`.

And `--method lst --from RUN`, which tunes its network to other data.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax

from jaxdiff import config as configs
from jaxdiff import training
from jaxdiff.cli import runs
from jaxdiff.config import Config, build
from jaxdiff.training import rundir

__all__ = ["base", "begun", "check_same", "source", "tuned"]

_KEPT = ("model.", "parametrization.", "schedule.")  # what the trained network is


def base(named: str | None, begins: str | None) -> Config:
    """The configuration of a stage before its flags: that of its run, with what the stage changes.

    Args:
        named: what --preset says.
        begins: what --from says.

    Raises:
        FileNotFoundError: it is no run directory.
        ValueError: one without the other, or a run that no head can be put on.
    """
    stages = " or ".join(configs.STAGES)
    if named not in configs.STAGES:
        given = "no preset" if named is None else f"--preset {named}"
        raise ValueError(
            f"--from {begins} goes with --preset {stages}, or with --method, got {given}"
        )
    if begins is None:
        raise ValueError(f"--preset {named} is a second stage: give --from RUN, a trained run")
    config = _trained(begins)
    if "learned" in config.variance.heads:
        raise ValueError(f"--from {begins} has a variance of its own (variance.heads learned)")
    return dataclasses.replace(configs.STAGES[named](config), preset=named, begins=begins)


def tuned(method: str, named: str | None, begins: str | None) -> Config:
    """The configuration of a tuning before its flags: that of its run, with another optimiser.

    Args:
        method: what --method says.
        named: what --preset says.
        begins: what --from says.

    Raises:
        FileNotFoundError: it is no run directory.
        ValueError: an unknown method, a preset besides, no run, or one that cannot be tuned.
    """
    if method not in configs.METHODS:
        raise ValueError(f"--method must be one of {', '.join(configs.METHODS)}, got {method!r}")
    if begins is None:
        raise ValueError(f"--method {method} tunes a network: give --from RUN, a trained run")
    if named is not None:
        raise ValueError(f"--method {method} takes the recipe of --from, got --preset {named}")
    config = _trained(begins)
    if set(config.variance.heads) - {"learned"}:
        raise ValueError(
            f"--from {begins} has heads for the variance: tune the run below, {config.begins}"
        )
    return dataclasses.replace(configs.tune(method, config), begins=begins)


def _trained(begins: str) -> Config:
    """The configuration of a run that another may begin from."""
    config = runs.read_config(Path(begins))[0]
    held = configs.holds(config.model)
    if held != configs.A_MODEL:
        raise ValueError(f"--from {begins} holds {held}, wanted {configs.A_MODEL}")
    if config.tuning.method is not None:
        raise ValueError(f"--from {begins} is tuned already: begin from {config.begins}")
    return config


def check_same(stored: Config, begins: str | None, method: str | None) -> None:
    """Raises ValueError where a run is resumed from another run, or by another method."""
    if method not in (None, stored.tuning.method):
        raise ValueError(
            f"--method {method}: the run was begun with {stored.tuning.method or 'none'}"
        )
    if begins is None:
        return
    if stored.begins is None or Path(stored.begins).resolve() != Path(begins).resolve():
        raise ValueError(f"--from {begins}: the run was begun from {stored.begins or 'no other'}")


def source(out: Path | None, config: Config, abstract: Any, *, resume: bool) -> runs.Run | None:
    """The run whose parameters are to be taken: None of no stage, or of one that is under way.

    Args:
        out: the run directory of the stage, None where nothing is written.
        config: that of the stage.
        abstract: shapes and dtypes of its state.
        resume: whether to go on with what is in `out`.

    Raises:
        FileNotFoundError: it is no run directory, or has no checkpoint.
        ValueError: heads on a network that is neither trained nor to be trained, another network,
            data of a shape that it cannot take, or the very run that is to be written.
    """
    part = config.variance
    if config.begins is None:
        if part.frozen and part.heads and "learned" not in part.heads:
            raise ValueError(
                f"variance.heads {' '.join(part.heads)} would be trained on a network that is not:"
                " give --preset npr or sn with --from RUN, or --variance.no-frozen"
            )
        return None
    if out is not None and resume and training.latest_step(rundir.checkpoints(out)) is not None:
        return None
    if out is not None and out.resolve() == Path(config.begins).resolve():
        raise ValueError(f"--out must be another directory than --from, got {out} for both")
    run = runs.open_run(Path(config.begins))
    changed = configs.changes(run.config, config).items()
    other = [f"{name} {old} -> {new}" for name, (old, new) in changed if name.startswith(_KEPT)]
    if other:
        raise ValueError(f"a second stage keeps the network of its run, got {'; '.join(other)}")
    try:
        jax.eval_shape(build.begin, abstract, build.averaged(run.config, run.abstract))
    except ValueError as error:
        old, new = (list(c.data.shape) for c in (run.config, config))
        if old == new:
            raise
        raise ValueError(
            f"the network of {run.path} is for examples {old}, those of {config.data.source} are"
            f" {new}: {error}"
        ) from error
    if training.latest_step(rundir.checkpoints(run.path)) is None:
        raise FileNotFoundError(f"--from {run.path} has no checkpoint")
    return run


def begun(state: training.TrainState, run: runs.Run) -> training.TrainState:
    """The state that begins with the averaged parameters of a run."""
    return build.begin(state, build.averaged(run.config, run.restore()))
