"""`jaxdiff estimate-variance`: the second moments of the model in a run, level by level."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from jaxdiff import plots, reverse, training
from jaxdiff.cli import outputs, runs, variances
from jaxdiff.cli.say import say, show
from jaxdiff.config import Config, build
from jaxdiff.data import Dataset
from jaxdiff.grids import linspace, uniform_log_snr
from jaxdiff.reverse import ESTIMATORS, Moments
from jaxdiff.samplers import example_keys
from jaxdiff.schedules import whole_steps
from jaxdiff.training import interrupt
from jaxdiff.training.progress import Bar
from jaxdiff.typing import Grid

__all__ = ["main"]

_LEVELS = 200  # of a continuous clock
_SHOWN = 10  # levels in the table
_LEAST = {"n": 1, "levels": 2, "draws": 1, "batch": 1}


@dataclasses.dataclass(frozen=True)
class EstimateVariance:
    """Estimate the variance that the reverse steps of the model in a run should have.

    Writes the file that jaxdiff sample and jaxdiff likelihood read for --variance analytic and
    --trajectory optimal. Each example calls the network at each level --draws times. Ctrl-C ends it
    with nothing written.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run directory."""
    data: str | None = None
    """The data: "digits" or a path; what the run was trained on unless given."""
    value_range: tuple[float, float] | None = None
    """The numbers in the file of --data that stand for -1 and 1, where it does not say so."""
    split: Literal["heldout", "train", "all"] = "train"
    """Which part of them."""
    n: int = 1000
    """How many examples at most, evenly spaced among all."""
    levels: int | None = None
    """How many levels: all steps of a chain unless given, evenly spaced if fewer; of a continuous
    clock 200 unless given, evenly spaced in log SNR from its noisy end to its cleanest time, where
    the grids of sampling end too."""
    draws: int = 1
    """How often noise is drawn for each example and level."""
    labels: bool = True
    """Ask a conditional model with the data's labels, as samples are drawn; without them, as
    jaxdiff likelihood does unless told otherwise."""
    seed: int = 0
    """Of all noise, 0 <= seed < 2**63."""
    average: Annotated[runs.AverageFlags, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=runs.AverageFlags
    )
    checkpoint: int | Literal["best"] | None = None
    """The step of the checkpoint to use, or "best"; the newest unless given."""
    batch: int = 64
    """How many examples are worked on at once."""
    out: Path | None = None
    """The .npz file to write; RUN/moments.npz unless given."""
    plot: Path | None = None
    """A picture of all levels to write as well, .png, .pdf or .svg."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command; see `jaxdiff.cli.main`."""
    args = tyro.cli(EstimateVariance, prog="jaxdiff estimate-variance", args=arguments)
    run, console = runs.model_of_data(args.run, "which has no reverse steps"), Console(stderr=True)
    out = args.out or variances.moments_path(run.path)
    _check(args, out)
    config = runs.single_precision(run.config, console)
    dataset = runs.load(config, args.data, args.value_range, args.split)
    labels = _labels(args, config, dataset, console)
    grid = _grid(config, args.levels)
    state = run.restore(args.checkpoint)
    weights = runs.weights(run, state, args.average, console)
    denoise = build.build_denoiser(config, weights)
    denoise.check(grid.levels)
    x = dataset.images(args.n)
    moments = _moments(args, denoise, x, labels, grid, console)
    about = _about(args, config, dataset, len(x), labels, int(state.step))
    training.write_moments(out, moments, weights, **about)
    title = f"{dataset.name}, {args.split}, at step {int(state.step)}"
    show(_table(moments, f"{title}: n = {len(x)}, {args.draws} a level"))
    if args.plot is not None:
        covs = {by: moments.cov(by) for by in ESTIMATORS}
        eps = moments.eps.mean, moments.eps.error
        plots.moment_curves(moments.levels.log_snr, eps, covs, args.plot, title=title)
    where = "" if args.out is None else f" --moments {out}"
    say(
        console,
        f"{grid.num_steps} levels in {out}",
        f"next: jaxdiff sample {args.run} --sampler ddpm --variance analytic{where} --steps 10"
        " --out samples.npz --plot samples.png",
    )
    return 0


def _check(args: EstimateVariance, out: Path) -> None:
    for name, least in _LEAST.items():
        value = getattr(args, name)
        if value is not None and value < least:
            raise ValueError(f"--{name} must be at least {least}, got {value}")
    if not 0 <= args.seed < 2**63:
        raise ValueError(f"--seed must lie in 0 <= seed < 2**63, got {args.seed}")
    args.average.check()
    outputs.check("--out", out, (".npz",))
    outputs.check("--plot", args.plot, [f".{kind}" for kind in plots.FORMATS])


def _grid(config: Config, levels: int | None) -> Grid:
    schedule = build.build_schedule(config)
    total = whole_steps(schedule)
    if total is None:
        return uniform_log_snr(schedule, levels or _LEVELS)
    if levels is not None and levels > total:
        raise ValueError(f"--levels must be at most {total}, the steps of the chain, got {levels}")
    return linspace(schedule, levels or total)


def _labels(
    args: EstimateVariance, config: Config, dataset: Dataset, console: Console
) -> np.ndarray | None:
    """The label of each example that is asked for, -1 for none; None for an unconditional model."""
    if not config.data.label_counts:
        return None
    labels = runs.own_labels(config, dataset, args.n) if args.labels else None
    if labels is not None:
        return labels
    nothing = runs.no_labels(config, dataset, args.n)
    why = f"{dataset.name} has no labels" if args.labels else "--no-labels"
    say(console, f"{why}: the model is asked without one")
    return nothing


def _moments(
    args: EstimateVariance,
    denoise: Any,
    x: np.ndarray,
    labels: np.ndarray | None,
    grid: Grid,
    console: Console,
) -> Moments:
    """Chunk by chunk, all with the mean of the whole."""
    n, found = len(x), None
    key, mean = jax.random.key(args.seed), jnp.asarray(x.mean(axis=0, dtype=np.float64), x.dtype)
    # products of float32 numbers, on devices that round them to fewer digits by default too
    precise = jax.default_matmul_precision("float32")
    shown = Bar(0, n, console=console, unit="example", number="mean square of eps")
    with precise, interrupt.catch() as caught, shown as bar:
        for first in range(0, n, args.batch):
            chunk = jnp.asarray(x[first : first + args.batch])
            given = denoise
            if labels is not None:
                given = denoise.with_cond(jnp.asarray(labels[first : first + args.batch]))
            keys = example_keys(key, len(chunk), first)
            part = reverse.second_moments(keys, given, chunk, grid, draws=args.draws, mean=mean)
            found = part if found is None else reverse.merge(found, part)
            bar.update(first + len(chunk), n, float(found.eps.mean.mean()))
            if caught.signal is not None:
                raise SystemExit(128 + caught.signal)
    return found


def _about(
    args: EstimateVariance,
    config: Config,
    dataset: Dataset,
    n: int,
    labels: np.ndarray | None,
    step: int,
) -> dict[str, Any]:
    """How the moments came about, in words."""
    about = {
        "data": f"{dataset.name} {args.split}",
        "examples": n,
        "draws": args.draws,
        "step": step,
        "parameters": args.average.describe(config),
    }
    if labels is not None:
        about["labels"] = "none" if labels.max() < 0 else "the data's"
    return about


def _table(moments: Moments, title: str) -> Table:
    """Some levels, for a terminal."""
    table = Table(
        title=title,
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        caption=(
            "± one standard error. Of the exact mean the three variances of x0 given x_t are one."
            " A gap, to that by residual in standard errors, beyond some 3 is the error of the"
            " model's own mean; then --by residual makes the likelihood largest."
        ),
    )
    names = ("t", "log SNR", "sigma²\nGamma", *(f"by\n{by}" for by in ESTIMATORS))
    for name in (*names, *(f"gap of\n{by}" for by in ESTIMATORS[:2])):
        table.add_column(name, justify="right")
    levels, covs = moments.levels, {by: moments.cov(by) for by in ESTIMATORS}
    for k in np.unique(np.linspace(0, len(levels.t) - 1, _SHOWN).round().astype(int)):
        pairs = {by: (float(cov[k]), float(error[k])) for by, (cov, error) in covs.items()}
        table.add_row(
            f"{levels.t[k]:.4g}",
            f"{levels.log_snr[k]:.2f}",
            _number(float(moments.eps.mean[k]), float(moments.eps.error[k])),
            *(_number(*pair) for pair in pairs.values()),
            *(_gap(pairs["residual"], pairs[by]) for by in ESTIMATORS[:2]),
        )
    return table


def _number(value: float, error: float) -> str:
    if not np.isfinite(value):
        return "-"
    return f"{value:.3g}\n±{error:.1g}" if np.isfinite(error) else f"{value:.3g}"


def _gap(a: tuple[float, float], b: tuple[float, float]) -> str:
    """The difference in its standard errors, as of independent estimates."""
    error = np.hypot(a[1], b[1])
    return f"{(a[0] - b[0]) / error:+.1f}" if 0 < error < np.inf else "-"
