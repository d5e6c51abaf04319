"""`jaxdiff likelihood`: how probable real data are to the model in a run."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console

from jaxdiff import likelihood, plots
from jaxdiff.cli import estimates, runs
from jaxdiff.cli.say import say
from jaxdiff.config import ClassifierConfig, Config, build
from jaxdiff.config.fields import GridName
from jaxdiff.data import Dataset
from jaxdiff.denoiser import clip_x0
from jaxdiff.likelihood import Estimate, Quantisation
from jaxdiff.reverse import VARIANCES
from jaxdiff.samplers import example_keys
from jaxdiff.samplers.integrators import ODE_SOLVERS, integrator
from jaxdiff.schedules import whole_steps
from jaxdiff.training import interrupt
from jaxdiff.training.progress import Bar
from jaxdiff.typing import Denoise, Grid

__all__ = ["main"]

Estimator = Callable[[jax.Array, Denoise, jax.Array], Estimate]
"""(keys [B], model, x [B, ...]) to their likelihood."""

_STEPS = 200  # of a continuous clock
_PROBES = 8


@dataclasses.dataclass(frozen=True)
class BoundFlags:
    """Of --method elbo."""

    steps: int | None = None
    """The number of steps, each a call of the network a draw; all of a chain's, 200 of a continuous
    clock unless given. More of them also end nearer to the data, where noise far below the width
    of a bin can cost more than it tells: look at the picture of the terms."""
    grid: GridName | None = None
    """Which levels they visit; the run's configuration says which unless given."""
    variance: Literal[tuple(VARIANCES)] | None = None  # type: ignore[valid-type]
    """That of the model's steps; small unless given."""
    eta: float | None = None
    """How much noise the steps add, in (0, 1]: 1, as DDPM, unless given."""
    last_std: float | None = None
    """The deviation of the last step, onto the data; its own noise unless given."""
    clip: bool = False
    """Whether the estimate of the data is held to [-1, 1]."""


@dataclasses.dataclass(frozen=True)
class FlowFlags:
    """Of the methods ode-..."""

    probes: int | None = None
    """Random probes of the trace, for ode-hutchinson and ode-hutchpp; 8 unless given."""
    distribution: Literal["rademacher", "gaussian"] | None = None
    """Of the probes; rademacher unless given."""
    start: float | None = None
    """The time, with noise, at which the flow meets the data; the cleanest that training draws
    unless given."""
    solver: Literal[tuple(ODE_SOLVERS)] | None = None  # type: ignore[valid-type]
    """The solver; tsit5 unless given."""
    rtol: float | None = None
    """Its relative tolerance; 1e-5 unless given."""
    atol: float | None = None
    """Its absolute tolerance; 1e-5 unless given."""
    max_steps: int | None = None
    """After how many steps it fails; 4096 unless given."""


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """Measure how probable real data are to the model in a run directory, with standard errors.

    elbo bounds the likelihood from below, term by term; the others take it from the
    probability-flow ODE, with the exact trace (a product with the Jacobian for each number of an
    example) or by random probes. Data of whole numbers are given bits of whole numbers: the ODE's
    by uniform dequantisation. Example i's numbers depend on the seed and i, not on the batch:
    those of elbo up to rounding, those of the ODE within its tolerance. The options from --steps to
    --clip are of elbo, those from --probes on of the ODE.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run directory."""
    method: Literal["elbo", "ode-exact", "ode-hutchinson", "ode-hutchpp"]
    """The estimator."""
    data: str | None = None
    """The data: "digits" or a path; what the run was trained on unless given."""
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
    raw: bool = False
    """Use the parameters themselves instead of their average."""
    ema: float | None = None
    """The decay of the average to use, of those that the run keeps."""
    checkpoint: int | Literal["best"] | None = None
    """The step of the checkpoint to use, or "best"; the newest unless given."""
    batch: int = 64
    """How many examples are worked on at once; of the ODE, times as many probes."""
    out: Path | None = None
    """All numbers, those of each example too, to write as well: .csv or .json."""
    plot: Path | None = None
    """A picture to write, .png, .pdf or .svg: of elbo its terms, of the others how examples
    differ."""
    bound: Annotated[BoundFlags, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=BoundFlags
    )
    flow: Annotated[FlowFlags, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=FlowFlags
    )


def main(arguments: Sequence[str]) -> int:
    """Runs the command; see `jaxdiff.cli.main`."""
    args = tyro.cli(Likelihood, prog="jaxdiff likelihood", args=arguments)
    _check(args)
    run, console = runs.open_run(args.run), Console(stderr=True)
    if isinstance(run.config.model, ClassifierConfig):
        raise ValueError(f"{args.run} holds a classifier, which knows no density of the data")
    config = _single_precision(run.config, console)
    dataset = _dataset(args, config)
    labels = _labels(args, config, dataset)
    quantisation = _quantisation(args, dataset)
    estimator, how, grid = _estimator(args, config, quantisation)
    state = run.restore(args.checkpoint)
    weights = state.params if args.raw else build.averaged(config, state, args.ema)
    denoise = build.build_denoiser(config, weights)
    estimate = _estimate(args, estimator, denoise, dataset.images(args.n), labels, console)
    what = f"{dataset.name}, {args.split}"
    report = estimates.report(
        estimate, method=args.method, data=what, step=int(state.step), how=how,
        bins=None if quantisation is None else quantisation.bins, grid=grid,
    )  # fmt: skip
    Console().print(estimates.table(report))
    if args.out is not None:
        estimates.write(report, args.out)
    if args.plot is not None:
        estimates.picture(report, args.plot)
    return 0


def _check(args: Likelihood) -> None:
    for name in ("n", "draws", "batch"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}")
    if not 0 <= args.seed < 2**63:
        raise ValueError(f"--seed must lie in 0 <= seed < 2**63, got {args.seed}")
    if args.density and args.bins is not None:
        raise ValueError(f"--density has no bins, got --bins {args.bins} as well")
    if args.out is not None and args.out.suffix not in (".csv", ".json"):
        raise ValueError(f"--out must end in .csv or .json, got {args.out}")
    if args.plot is not None and args.plot.suffix.removeprefix(".") not in plots.FORMATS:
        raise ValueError(f"--plot must end in one of {plots.FORMATS}, got {args.plot}")
    for path in (args.out, args.plot):
        if path is not None and not path.absolute().parent.is_dir():
            raise FileNotFoundError(f"there is no directory {path.parent} to write {path.name} in")
    others = args.flow if args.method == "elbo" else args.bound
    foreign = [*_given(others)]
    if args.method == "ode-exact":
        foreign += [name for name in ("probes", "distribution") if name in _given(args.flow)]
    if foreign:
        raise ValueError(f"--{foreign[0].replace('_', '-')} is not of --method {args.method}")


def _given(flags: BoundFlags | FlowFlags) -> dict[str, Any]:
    """Those of a group that were given, by name."""
    return {k: v for k, v in vars(flags).items() if v is not None and v is not False}


def _single_precision(config: Config, console: Console) -> Config:
    """The configuration with a network that computes in float32."""
    dtype = getattr(config.model, "dtype", None)
    if dtype not in ("bfloat16", "float16"):
        return config
    say(console, f"the network was trained in {dtype} and is evaluated in float32")
    model = dataclasses.replace(config.model, dtype="float32")
    return dataclasses.replace(config, model=model)


def _dataset(args: Likelihood, config: Config) -> Dataset:
    part = config.data if args.data is None else dataclasses.replace(config.data, source=args.data)
    dataset = build.load_data(part, args.split)
    if dataset.example_shape != tuple(config.data.shape):
        raise ValueError(
            f"{dataset.name} holds examples {list(dataset.example_shape)}, the model is of"
            f" {list(config.data.shape)}"
        )
    return dataset


def _labels(args: Likelihood, config: Config, dataset: Dataset) -> np.ndarray | None:
    """The label of each example that is asked for, -1 for none; None for an unconditional model."""
    classes = len(config.data.label_counts)
    if args.labels and not classes:
        raise ValueError("--labels: the model was trained without labels")
    if not classes:
        return None
    if not args.labels:
        if config.loss.cond_dropout == 0:
            raise ValueError(
                "the model was trained with loss.cond_dropout 0, so that it knows nothing without"
                " a label: give --labels"
            )
        return np.full(len(dataset) if args.n is None else min(args.n, len(dataset)), -1, np.int32)
    labels = dataset.labels(args.n)
    if labels is None:
        raise ValueError(f"--labels: {dataset.name} has none")
    if labels.max() >= classes:
        raise ValueError(f"--labels must be in 0..{classes - 1}, got {labels.max()} in the data")
    return labels


def _quantisation(args: Likelihood, dataset: Dataset) -> Quantisation | None:
    if args.density:
        return None
    bins = dataset.bins if args.bins is None else args.bins
    if bins is None:
        raise ValueError(
            f"{dataset.name} holds floats, of which it is not known how many values they take:"
            " give --bins N, or --density for data of a continuum"
        )
    return likelihood.quantised(bins)


def _estimator(
    args: Likelihood, config: Config, quantisation: Quantisation | None
) -> tuple[Estimator, str, Grid | None]:
    """The estimator, how it works in words, and the grid of a bound."""
    common = {"quantisation": quantisation}
    schedule = build.build_schedule(config)
    if args.method != "elbo":
        return _flow(args, schedule, {**common, "draws": args.draws if quantisation else 1})
    flags = args.bound
    steps = (whole_steps(schedule) or _STEPS) if flags.steps is None else flags.steps
    name = flags.grid or config.sampling.grid
    grid = build.build_grid(config, name, steps)
    options = {k: getattr(flags, k) for k in ("variance", "eta", "last_std") if k in _given(flags)}
    words = [f"{steps} steps {name}", *(f"{k} {v}" for k, v in options.items())]
    words += ["clipped"] if flags.clip else []

    def bound(keys: jax.Array, denoise: Denoise, x: jax.Array) -> Estimate:
        denoise = clip_x0(denoise) if flags.clip else denoise
        return likelihood.elbo(keys, denoise, x, grid, draws=args.draws, **common, **options)

    return bound, ", ".join([*words, f"{args.draws} draws of noise"]), grid


def _flow(args: Likelihood, schedule: Any, options: dict[str, Any]) -> tuple[Estimator, str, None]:
    given = _given(args.flow)
    trace = {k: given.pop(k) for k in ("probes", "distribution") if k in given}
    start = given.pop("start", None)
    words = [f"{given.get('solver', 'tsit5')}, rtol {given.get('rtol', 1e-5):g}"]
    if args.method == "ode-exact":
        divergence = likelihood.exact()
    else:
        trace = {"probes": _PROBES, **trace}
        divergence = getattr(likelihood, args.method.removeprefix("ode-"))(**trace)
        words.append(f"{trace['probes']} {trace.get('distribution', 'rademacher')} probes")
    if options["quantisation"] is not None:
        words.append(f"{options['draws']} draws of dequantisation")
    options |= {"divergence": divergence, "how": integrator(**given), "start": start}

    def density(keys: jax.Array, denoise: Denoise, x: jax.Array) -> Estimate:
        return likelihood.log_prob(keys, denoise, x, schedule, **options)

    return density, ", ".join(words), None


def _estimate(
    args: Likelihood,
    estimator: Estimator,
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
    if not np.isfinite(so_far.per_example).all():
        raise FloatingPointError("the likelihood is not finite: the model diverged")
    return so_far


def _first(count: int, term: jax.Array) -> jax.Array:
    return term[:count]
