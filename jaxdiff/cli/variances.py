"""The variance of the reverse steps and which steps they are: the flags, and what they make."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp

from jaxdiff import reverse, training
from jaxdiff.cli import runs
from jaxdiff.config import HEADS, Config, build
from jaxdiff.grids import from_steps
from jaxdiff.reverse import ESTIMATORS, VARIANCES, Moments
from jaxdiff.samplers import visible
from jaxdiff.trajectory import optimal_grid
from jaxdiff.typing import Grid, ReverseVariance

__all__ = ["Chosen", "VarianceFlags", "check", "choose", "last_std", "moments_path"]

OPTIMAL = ("analytic", "npr", "sn")
_RANGE = (-1.0, 1.0)  # of all data


@dataclasses.dataclass(frozen=True)
class VarianceFlags:
    """How much noise the reverse steps add, and which steps they are."""

    variance: Literal[("analytic", *VARIANCES)] | None = None  # type: ignore[valid-type]
    """The variance of a step, small unless given: small and large are fixed, analytic is from the
    file of jaxdiff estimate-variance, learned, npr and sn from a network that was trained so."""
    moments: Path | None = None
    """The file of jaxdiff estimate-variance; RUN/moments.npz unless given."""
    by: Literal[ESTIMATORS] | None = None  # type: ignore[valid-type]
    """What analytic takes from it: eps, as published, unless given; residual is best for the
    likelihood of a mean that errs."""
    trajectory: Literal["even", "optimal"] | None = None
    """even takes the levels of --grid; optimal those levels of the moments file for which the
    bound on the likelihood is the tightest."""


@dataclasses.dataclass(frozen=True)
class Chosen:
    """What the flags make of a run; `choose` makes it.

    Attributes:
        variance: None where it was left open.
        optimal: whether it is one that is to be best, of which the data's step is, too.
        words: the flags in words.
        fine: the levels to choose steps among, None where --grid says which.
        moments: of the model, None where nothing needs them.
        options: what the estimates are taken with.
    """

    variance: ReverseVariance | None
    optimal: bool
    words: tuple[str, ...]
    fine: Grid | None
    moments: Moments | None
    options: dict[str, Any]

    def steps(self, num_steps: int) -> Grid:
        """The best steps among `fine`."""
        if num_steps > self.fine.num_steps:
            raise ValueError(
                f"--steps must be at most {self.fine.num_steps}, the levels of the moments, with"
                f" --trajectory optimal, got {num_steps}"
            )
        return optimal_grid(self.moments, self.fine, num_steps, **self.options)


def check(flags: VarianceFlags, grid: str | None) -> None:
    """Raises ValueError where flags contradict each other; `grid` is what --grid says."""
    needed = flags.variance == "analytic" or flags.trajectory == "optimal"
    for name in ("moments", "by"):
        value = getattr(flags, name)
        if value is not None and not needed:
            raise ValueError(f"--{name} {value} needs --variance analytic or --trajectory optimal")
    if flags.trajectory == "optimal" and grid is not None:
        raise ValueError(f"--trajectory optimal says which levels, got --grid {grid} as well")


def choose(flags: VarianceFlags, run: runs.Run, weights: Any, *, clip: bool) -> Chosen:
    """What the flags make of the model in `run` with such parameters.

    By heads the variance of x_0 is held to the range of the data, as published. Analytic is where
    `clip` says that the estimates of x_0 are: those that are not may err by more than that range.

    Raises:
        FileNotFoundError: there is no file of moments.
        ValueError: it is of another model, or damaged.
    """
    name = flags.variance
    options = {"by": flags.by or "eps", "data_range": _RANGE if clip else None}
    moments = fine = variance = None
    if name == "analytic" or flags.trajectory == "optimal":
        moments = _read(flags, run, weights)
    if flags.trajectory == "optimal":
        fine = from_steps(build.build_schedule(run.config), moments.levels.t)
    if name == "analytic":
        variance = reverse.analytic(moments, **options)
    elif name == "learned":
        _check_head(run, name, "train with --variance.heads learned")
        variance = build.build_learned_range(run.config)
    elif name is not None:
        if name in HEADS:
            _check_head(run, name, f"jaxdiff train --preset {name} --from {run.path} adds one")
        held = {"data_range": _RANGE} if name in OPTIMAL else {}
        variance = VARIANCES[name](**held)
    words = [f"variance {name}"] if name is not None else []
    words += [f"by {options['by']}"] if moments is not None else []
    words += ["trajectory optimal"] if fine is not None else []
    return Chosen(variance, name in OPTIMAL, tuple(words), fine, moments, options)


def _check_head(run: runs.Run, name: str, how: str) -> None:
    heads = run.config.variance.heads
    if name not in heads:
        raise ValueError(
            f"--variance {name} needs a model with that head, {run.path} has"
            f" {', '.join(heads) or 'none'}: {how}"
        )


def moments_path(run: Path) -> Path:
    """Where the moments of a run lie unless another file is named."""
    return run / "moments.npz"


def _read(flags: VarianceFlags, run: runs.Run, weights: Any) -> Moments:
    path = flags.moments or moments_path(run.path)
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no file of moments {path}: jaxdiff estimate-variance {run.path} makes it"
        )
    try:
        return training.read_moments(path, build.build_schedule(run.config), weights)
    except ValueError as error:
        raise ValueError(
            f"{error}; jaxdiff estimate-variance {run.path} makes it anew, with the same --raw,"
            " --ema and --checkpoint"
        ) from error


def last_std(
    values: Literal[1, 2, "none"] | None, flags: VarianceFlags, sampler: str, config: Config
) -> Any:
    """The largest deviation of the last noise, for samplers; as published where values is None.

    Source: Bao et al. 2022, arXiv:2201.06503, appendix F.2: 2 for DDPM with linear betas, else 1.
    """
    if values == "none" or (values is None and flags.variance not in OPTIMAL):
        return jnp.inf
    if values is None:
        linear = config.schedule.name in ("linear_betas", "linear_vp")
        values = 2 if sampler == "ddpm" and linear else 1
    return visible(values)
