"""`jaxdiff sample`: from a run directory to images."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax import Array
from rich.console import Console
from rich.progress import Progress

from jaxdiff import plots
from jaxdiff.cli import guiding, outputs, runs, variances
from jaxdiff.cli.say import say
from jaxdiff.config import build
from jaxdiff.config.fields import SamplerName
from jaxdiff.config.grid_file import GridFile, read_grid
from jaxdiff.data import npz
from jaxdiff.grids import GRIDS, from_steps
from jaxdiff.samplers import example_keys, sample
from jaxdiff.typing import Grid, Sampler

__all__ = ["choose_labels", "in_chunks", "main", "spread_labels", "write"]

_GRID = (
    f"Which levels it visits: one of {', '.join(GRIDS)}, or a .json file of jaxdiff learn-grid,"
    " which names its sampler as well."
)
_SHOWN = 100  # images in a picture, which is to be looked at whole


@dataclasses.dataclass(frozen=True)
class Sample:
    """Draw samples from the model in a run directory.

    Writes an .npz file with x: float32 [N,H,W,C] (or [N,D]) in [-1, 1], and y: [N] where the
    model is conditioned on labels. Example i depends on the seed and on i alone: neither N nor
    the chunk changes it.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run directory."""
    out: Path
    """The .npz file to write."""
    n: int = 64
    """How many."""
    sampler: SamplerName | None = None
    """The sampler; the run's configuration says which unless given."""
    steps: int | None = None
    """Its number of steps."""
    eta: float | None = None
    """How much noise its steps add, for those that know it: 0 none, 1 as DDPM."""
    grid: Annotated[str | None, tyro.conf.arg(help=_GRID)] = None
    label: int | None = None
    """The class to draw; all classes in the proportions of the data unless given."""
    seed: int = 0
    """Of all noise, 0 <= seed < 2**63."""
    plot: Path | None = None
    """A picture of the first samples to write, .png, .pdf or .svg."""
    average: Annotated[runs.AverageFlags, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=runs.AverageFlags
    )
    checkpoint: int | Literal["best"] | None = None
    """The step of the checkpoint to use, or "best"; the newest unless given."""
    chunk: int = 256
    """How many are drawn at once."""
    last_values: Literal[1, 2, "none"] | None = None
    """How many of 256 values the noise that reaches the cleanest level may come to on average, with
    ddpm or ddim; as published unless given: with analytic, npr or sn 2 for ddpm on linear betas,
    else 1, and none with the others."""
    reverse: Annotated[variances.VarianceFlags, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=variances.VarianceFlags
    )
    guided: Annotated[guiding.GuidanceFlags, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=guiding.GuidanceFlags
    )


def main(arguments: Sequence[str]) -> int:
    """Runs the command; see `jaxdiff.cli.main`."""
    args = tyro.cli(Sample, prog="jaxdiff sample", args=arguments)
    _check(args)
    run = runs.model_of_data(args.run, "which draws nothing")
    file = _grid_file(args, run)
    if file is not None:
        args = _as_learned(args, file)
    if args.guided == guiding.GuidanceFlags():  # nothing was asked for: as configured
        guided = guiding.GuidanceFlags(guidance=run.config.sampling.guidance)
        args = dataclasses.replace(args, guided=guided)
    guide = guiding.guide(args.guided, run)
    labels = choose_labels(args.label, guiding.label_counts(args.guided, run.config), args.n)
    state = run.restore(args.checkpoint)
    weights = runs.weights(run, state, args.average, Console(stderr=True))
    chosen = variances.choose(args.reverse, run, weights, clip=run.config.sampling.clip)
    sampler = _sampler(args, run, chosen)
    grid = _grid(args, run, chosen, file)
    x = _draw(args, run, weights, sampler, grid, labels, guide)
    written = write(args.out, args.plot, x, labels)
    say(Console(stderr=True), f"{args.n} samples of step {int(state.step)} in {written}")
    return 0


def _check(args: Sample) -> None:
    for name in ("n", "steps", "chunk"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}")
    if not 0 <= args.seed < 2**63:
        raise ValueError(f"--seed must lie in 0 <= seed < 2**63, got {args.seed}")
    args.average.check()
    variances.check(args.reverse, args.grid)
    outputs.check("--out", args.out, (".npz",))
    outputs.check("--plot", args.plot, [f".{kind}" for kind in plots.FORMATS])
    if args.grid is not None and not _is_file(args.grid) and args.grid not in GRIDS:
        raise ValueError(f"--grid must be one of {', '.join(GRIDS)}, or a .json, got {args.grid!r}")


def _is_file(grid: str) -> bool:
    return grid.lower().endswith(".json")


def _grid_file(args: Sample, run: runs.Run) -> GridFile | None:
    """The learned grid, where --grid is a file."""
    if args.grid is None or not _is_file(args.grid):
        return None
    file = read_grid(Path(args.grid))
    file.check(run.config, Path(args.grid))
    if args.steps not in (None, len(file.t)):
        raise ValueError(f"--steps {args.steps}: {args.grid} holds {len(file.t)} steps")
    return file


def _sampler(args: Sample, run: runs.Run, chosen: variances.Chosen) -> Sampler:
    name = args.sampler or run.config.sampling.sampler
    options = {"eta": build.own_eta(run.config, args.sampler, args.eta)}
    if chosen.variance is not None or args.last_values is not None:
        if name not in ("ddpm", "ddim"):
            flag = "--last-values" if chosen.variance is None else "--variance"
            raise ValueError(f"{flag} is of the samplers ddpm and ddim, got {name}")
        last = variances.last_std(args.last_values, args.reverse, name, run.config)
        options |= {"variance": chosen.variance, "last_std": last}
    return build.build_sampler(name, **options)


def _grid(args: Sample, run: runs.Run, chosen: variances.Chosen, file: GridFile | None) -> Grid:
    part = run.config.sampling
    if file is not None:
        return _on_schedule(args, run, file)
    if chosen.fine is not None:
        return chosen.steps(args.steps or part.steps)
    return build.build_grid(run.config, args.grid or part.grid, args.steps or part.steps)


def _on_schedule(args: Sample, run: runs.Run, file: GridFile) -> Grid:
    try:
        return from_steps(build.build_schedule(run.config), file.t)
    except ValueError as error:
        raise ValueError(f"{args.grid}: {error}") from error


def _as_learned(args: Sample, file: GridFile) -> Sample:
    """The flags, where they are not given, as they were when the grid was learned."""
    guided = args.guided
    if guided.guidance is None:
        guided = dataclasses.replace(guided, guidance=file.guidance)
    eta = file.eta if args.eta is None and args.sampler in (None, file.sampler) else args.eta
    return dataclasses.replace(args, sampler=args.sampler or file.sampler, eta=eta, guided=guided)


def choose_labels(label: int | None, counts: Sequence[int], n: int) -> np.ndarray | None:
    """The label of each of n examples: one class, or all in the proportions of `counts`.

    None for an unconditional model, which has no counts.

    Raises:
        ValueError: no such class.
    """
    if not counts:
        if label is not None:
            raise ValueError(f"--label {label}: the model was trained without labels")
        return None
    if label is None:
        return spread_labels(counts, n)
    if not 0 <= label < len(counts):
        raise ValueError(f"--label must be in 0..{len(counts) - 1}, got {label}")
    return np.full(n, label, np.int32)


def spread_labels(counts: Sequence[int], n: int) -> np.ndarray:
    """Labels in the proportions of `counts`, evenly from the first few on; entry i alone by i.

    The fractional parts of i times the golden ratio fill [0, 1) as evenly as any sequence.
    """
    place = np.arange(n) * ((np.sqrt(5) - 1) / 2) % 1
    share = np.cumsum(counts) / np.sum(counts)
    return np.searchsorted(share, place, side="right").astype(np.int32)


def _draw(
    args: Sample,
    run: runs.Run,
    weights: Any,
    sampler: Any,
    grid: Any,
    labels: Any,
    guide: guiding.Guide,
) -> np.ndarray:
    """[N, ...] in [-1, 1]."""
    decode = build.build_decode(run.config.data)

    def draw(index: np.ndarray) -> Array:
        keys = example_keys(jax.random.key(args.seed), len(index), int(index[0]))
        chosen = None if labels is None else jnp.asarray(np.resize(labels[index[0] :], len(index)))
        denoise = build.build_denoise(run.config, weights, chosen, guide)
        shape = (len(index), *run.config.data.shape)
        return decode(sample(keys, denoise, grid, shape, sampler=sampler))

    return in_chunks(args.n, args.chunk, draw)


def in_chunks(n: int, chunk: int, draw: Callable[[np.ndarray], Array]) -> np.ndarray:
    """Examples 0..n-1, [n, ...] in [-1, 1], under a progress bar.

    Args:
        n: how many.
        chunk: how many at once.
        draw: from indices to examples; all chunks are of one size so that one program does, and
            what the last one has beyond n is dropped.

    Raises:
        FloatingPointError: an example is not finite.
    """
    size, parts, console = min(chunk, n), [], Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("sampling", total=n)
        for first in range(0, n, size):
            parts.append(np.asarray(draw(np.arange(first, first + size))))
            bar.advance(task, size)
    x = np.concatenate(parts)[:n]
    if not np.isfinite(x).all():
        raise FloatingPointError("samples are not finite: the model or the sampler diverged")
    return np.clip(x, -1, 1)


def write(out: Path, plot: Path | None, x: np.ndarray, labels: np.ndarray | None) -> str:
    """Writes samples, and a picture of them where one is wanted; the files in words."""
    npz.write(out, x, labels)
    if plot is None:
        return str(out)
    _picture(plot, x, labels)
    return f"{out} and {plot}"


def _picture(path: Path, x: np.ndarray, labels: np.ndarray | None) -> None:
    """Draws the first examples: images, or the first two numbers of vectors."""
    if x.ndim == 2:
        plots.scatter({"samples": x[:, :2]}, path)
        return
    shown = None if labels is None else labels[:_SHOWN].tolist()
    plots.sample_grid(x[:_SHOWN], path, labels=shown)
