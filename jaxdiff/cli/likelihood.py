"""`jaxdiff likelihood`: how probable real data are to the model in a run."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console

from jaxdiff import likelihood, plots
from jaxdiff.arrays import check_range
from jaxdiff.cli import estimates, estimators, outputs, runs, variances
from jaxdiff.cli.say import show
from jaxdiff.config import Config, build
from jaxdiff.data import Dataset
from jaxdiff.likelihood import Estimate, Quantisation
from jaxdiff.likelihood.quantisation import model_units
from jaxdiff.samplers import example_keys
from jaxdiff.training import interrupt
from jaxdiff.training.progress import Bar

__all__ = ["main"]

_LEAST = {"steps": 1, "probes": 1, "max_steps": 1, "n": 1, "draws": 1, "batch": 1, "bins": 2}
_RANGES = {  # of the numbers that are not whole
    "eta": (0, 1, "(]"),
    "last_std": (0, np.inf, "()"),
    "rtol": (0, np.inf, "()"),
    "atol": (0, np.inf, "()"),
}


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """Measure how probable real data are to the model in a run directory, with standard errors.

    elbo bounds the likelihood from below, term by term; the others take it from the
    probability-flow ODE, with the exact trace (a product with the Jacobian for each number of an
    example) or by random probes. Data of whole numbers are given bits of whole numbers: the ODE's
    by uniform dequantisation. Example i's numbers depend on the seed and i, not on the batch:
    those of elbo up to rounding, those of the ODE within its tolerance. The options from --steps to
    --trajectory are of elbo, those from --probes on of the ODE.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run directory."""
    method: Literal["elbo", "ode-exact", "ode-hutchinson", "ode-hutchpp"]
    """The estimator."""
    data: str | None = None
    """The data: "digits" or a path; what the run was trained on unless given."""
    value_range: tuple[float, float] | None = None
    """The numbers in the file of --data that stand for -1 and 1, where it does not say so."""
    split: Literal["heldout", "train", "all"] = "heldout"
    """Which part of them."""
    n: int | None = None
    """How many examples, evenly spaced among all; all of them unless given."""
    bins: int | None = None
    """How many values a number of the data takes, evenly over [-1, 1], where they do not say so
    themselves: bytes 256."""
    density: bool = False
    """Take the data as they are, points of a continuum, and give their density."""
    labels: bool = False
    """Give a conditional model the data's labels; else it is asked without one."""
    draws: int = 2
    """How often noise, or dequantisation, is drawn for each example; from 2 on errors split."""
    seed: int = 0
    """Of all noise, 0 <= seed < 2**63."""
    average: Annotated[runs.AverageFlags, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=runs.AverageFlags
    )
    checkpoint: int | Literal["best"] | None = None
    """The step of the checkpoint to use, or "best"; the newest unless given."""
    batch: int = 64
    """How many examples are worked on at once; of the ODE, times as many probes."""
    out: Path | None = None
    """All numbers, those of each example too, to write as well: .csv or .json."""
    plot: Path | None = None
    """A picture to write, .png, .pdf or .svg: of elbo its terms, of the others how examples
    differ."""
    bound: Annotated[estimators.BoundFlags, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=estimators.BoundFlags
    )
    reverse: Annotated[variances.VarianceFlags, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=variances.VarianceFlags
    )
    flow: Annotated[estimators.FlowFlags, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=estimators.FlowFlags
    )


def main(arguments: Sequence[str]) -> int:
    """Runs the command; see `jaxdiff.cli.main`."""
    args = tyro.cli(Likelihood, prog="jaxdiff likelihood", args=arguments)
    _check(args)
    run = runs.model_of_data(args.run, "which knows no density of the data")
    console = Console(stderr=True)
    config = runs.single_precision(run.config, console)
    dataset = runs.load(config, args.data, args.value_range, args.split)
    labels = _labels(args, config, dataset)
    x = dataset.images(args.n)
    quantisation = _quantisation(args, dataset, x)
    common = config, quantisation, args.draws
    state = run.restore(args.checkpoint)
    weights = runs.weights(run, state, args.average, console)
    if args.method == "elbo":
        chosen = variances.choose(args.reverse, run, weights, clip=args.bound.clip)
        estimator, how, grid = estimators.bound(args.bound, chosen, *common)
    else:
        (estimator, how), grid = estimators.flow(args.method, args.flow, *common), None
    denoise = build.build_denoiser(config, weights)
    estimate = _estimate(args, estimator, denoise, x, labels, console)
    what = f"{dataset.name}, {args.split}"
    report = estimates.report(
        estimate, method=args.method, data=what, step=int(state.step), how=how,
        bins=None if quantisation is None else quantisation.bins, grid=grid,
    )  # fmt: skip
    show(estimates.table(report))
    if args.out is not None:
        estimates.write(report, args.out)
    if args.plot is not None:
        estimates.picture(report, args.plot)
    return 0


def _check(args: Likelihood) -> None:
    given = {
        **estimators.given(args),
        **estimators.given(args.bound),
        **estimators.given(args.reverse),
        **estimators.given(args.flow),
    }
    for name, least in _LEAST.items():
        if name in given and given[name] < least:
            raise ValueError(f"{_flag(name)} must be at least {least}, got {given[name]}")
    for name, ends in _RANGES.items():
        if name in given:
            check_range(_flag(name), given[name], *ends)
    if not 0 <= args.seed < 2**63:
        raise ValueError(f"--seed must lie in 0 <= seed < 2**63, got {args.seed}")
    if args.density and args.bins is not None:
        raise ValueError(f"--density has no bins, got --bins {args.bins} as well")
    args.average.check()
    outputs.check("--out", args.out, (".csv", ".json"))
    outputs.check("--plot", args.plot, [f".{kind}" for kind in plots.FORMATS])
    variances.check(args.reverse, args.bound.grid)
    foreign = [args.flow] if args.method == "elbo" else [args.bound, args.reverse]
    foreign = [name for flags in foreign for name in estimators.given(flags)]
    if args.method == "ode-exact":
        foreign += sorted(given.keys() & {"probes", "distribution"})
    if foreign:
        raise ValueError(f"{_flag(foreign[0])} is not of --method {args.method}")


def _flag(name: str) -> str:
    """An option as it is typed."""
    return f"--{name.replace('_', '-')}"


def _labels(args: Likelihood, config: Config, dataset: Dataset) -> np.ndarray | None:
    """The label of each example that is asked for, -1 for none; None for an unconditional model."""
    classes = config.data.label_counts
    if args.labels and not classes:
        raise ValueError("--labels: the model was trained without labels")
    if not classes:
        return None
    if not args.labels:
        return runs.no_labels(config, dataset, args.n)
    labels = runs.own_labels(config, dataset, args.n)
    if labels is None:
        raise ValueError(f"--labels: {dataset.name} has none")
    return labels


def _quantisation(args: Likelihood, dataset: Dataset, x: np.ndarray) -> Quantisation | None:
    if args.density:
        return None
    bins = dataset.bins if args.bins is None else args.bins
    if bins is None:
        raise ValueError(
            f"{dataset.name} holds floats, of which it is not known how many values they take:"
            " give --bins N, or --density for data of a continuum"
        )
    quantisation = likelihood.quantised(bins)
    if args.bins is not None:
        try:
            for first in range(0, len(x), args.batch):
                model_units(x[first : first + args.batch], quantisation)
        except ValueError as error:
            raise ValueError(
                f"--bins {bins}: {dataset.name} must hold the {bins} values evenly over [-1, 1]"
                " alone; --density takes its numbers as they are"
            ) from error
    return quantisation


def _estimate(
    args: Likelihood,
    estimator: estimators.Estimator,
    denoise: Any,
    x: np.ndarray,
    labels: np.ndarray | None,
    console: Console,
) -> Estimate:
    """Chunk by chunk, all chunks of one size so that one program does."""
    n, size = len(x), min(args.batch, len(x))
    parts: list[Estimate] = []
    key = jax.random.key(args.seed)
    # products of float32 numbers, on devices that round them to fewer digits by default too
    precise = jax.default_matmul_precision("float32")
    shown = Bar(0, n, console=console, unit="example", number="bits/dim")
    with precise, interrupt.catch() as caught, shown as bar:
        for first in range(0, n, size):
            rows = np.arange(first, first + size) % n
            count = min(size, n - first)
            given = denoise if labels is None else denoise.with_cond(jnp.asarray(labels[rows]))
            found = estimator(example_keys(key, size, first), given, jnp.asarray(x[rows]))
            parts.append(jax.tree.map(functools.partial(_first, count), found))
            so_far = likelihood.concatenate(parts)
            bar.update(first + count, n, float(so_far.bits_per_dim))
            if caught.signal is not None:
                raise SystemExit(128 + caught.signal)
    bad = n - int(np.isfinite(so_far.per_example).sum())
    if bad:
        raise FloatingPointError(f"the likelihood of {bad} of {n} examples is not finite")
    return so_far


def _first(count: int, term: jax.Array) -> jax.Array:
    return term[:count]
