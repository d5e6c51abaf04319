"""`jaxdiff hubness`: how unequally the points of a file are neighbours of one another."""

import csv
import dataclasses
import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import jax
import numpy as np
import tyro

from jaxdiff import arrays, hubness, plots
from jaxdiff.cli import outputs
from jaxdiff.cli.say import show
from jaxdiff.data import files, load_points

__all__ = ["main"]

_PICTURES = (".png", ".pdf", ".svg")
_SHOWN = 12  # hubs, and antihubs, in a row of a picture


@dataclasses.dataclass(frozen=True)
class Hubness:
    """Count how often each point of FILE is among the k nearest of the others.

    FILE is an .npz file with x: [N, ...], an .npy file, or any data that jaxdiff train reads:
    embeddings, latents, features, images. Prints how unequal the counts are; --plot draws them,
    and --pictures the greatest hubs and points that are nobody's neighbour, where they are images.
    """

    file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """The points."""
    k: int = 5
    """How many neighbours of each point count."""
    metric: Literal[hubness.METRICS] = "euclidean"  # type: ignore[valid-type]
    """How far two points are."""
    reference: str | None = None
    """Other points, whose counts as neighbours of FILE's are taken instead of their own."""
    reduce: tuple[Literal[hubness.REDUCTIONS], ...] = ()  # type: ignore[valid-type]
    """Rescaled distances to show beside."""
    candidates: int = 100
    """How many nearest points of each are rescaled."""
    hub_size: float = 2.0
    """Points with counts of this times k or more are hubs."""
    limit: int | None = None
    """How many points to use at most, evenly spaced; all of them unless given."""
    seed: int = 0
    """Of the order among points that are equally far."""
    out: Path | None = None
    """A table of counts to write, one row a point: .csv, or .npy of counts alone."""
    plot: Path | None = None
    """A picture of the histogram of counts."""
    pictures: Path | None = None
    """A picture of hubs, in the upper row, and of points that are nobody's neighbour."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command; see `jaxdiff.cli.main`."""
    args = tyro.cli(Hubness, prog="jaxdiff hubness", args=arguments)
    for flag, path, endings in (
        ("--out", args.out, (".csv", ".npy")),
        ("--plot", args.plot, _PICTURES),
        ("--pictures", args.pictures, _PICTURES),
    ):
        outputs.check(flag, path, endings)
    given = [Path(source).resolve() for source in (args.file, args.reference) if source]
    if args.out is not None and args.out.resolve() in given:
        raise ValueError(f"--out would replace the points in {args.out}: give it another name")
    if args.seed < 0:
        raise ValueError(f"--seed must not be negative, got {args.seed}")
    if args.reduce and args.reference is not None:
        raise ValueError("--reduce is of points among themselves: leave out --reference")
    arrays.check_range("--hub-size", args.hub_size, 0, float("inf"), "()")
    x = _thinned(load_points(args.file), args.limit)
    other = None if args.reference is None else _thinned(load_points(args.reference), args.limit)
    shown = x if other is None else other
    if args.pictures is not None and shown.ndim == 3:
        shown = shown[..., None]
    if args.pictures is not None and (shown.ndim != 4 or shown.shape[-1] not in (1, 3, 4)):
        raise ValueError(
            f"--pictures needs images [N, H, W, C] or [N, H, W], got {list(shown.shape)}"
        )
    flat = [None if a is None else a.reshape(len(a), -1) for a in (x, other)]
    key = jax.random.key(args.seed)
    # Rescaled ones first: mistakes in their options are told before anything is counted.
    rescaled = {name: _rescaled(flat[0], name, args, key) for name in args.reduce}
    counts = {args.metric: _counted(*flat, args, key), **rescaled}
    measures = {
        name: hubness.measure(n, k=args.k, hub_size=args.hub_size) for name, n in counts.items()
    }
    title = f"{len(shown):,} points of {shown[0].size} numbers, k = {args.k}"
    show(plots.hubness_table(measures, title=title))
    _write(args, counts, shown)
    return 0


def _thinned(x: np.ndarray, limit: int | None) -> np.ndarray:
    if limit is None or limit >= len(x):
        return x
    if limit < 1:
        raise ValueError(f"--limit must be at least 1, got {limit}")
    return x[np.arange(limit) * len(x) // limit]


def _counted(x: np.ndarray, other: np.ndarray | None, args: Hubness, key: jax.Array) -> np.ndarray:
    return _waited(hubness.k_occurrence(x, other, k=args.k, metric=args.metric, key=key))


def _rescaled(x: np.ndarray, by: str, args: Hubness, key: jax.Array) -> np.ndarray:
    how = {"k": args.k, "candidates": min(args.candidates, len(x) - 1), "metric": args.metric}
    index = hubness.reduced(x, by=by, key=key, **how).index
    return np.bincount(np.ravel(_waited(index)), minlength=len(x))


def _waited(found: jax.Array) -> np.ndarray:
    """Waits in Python, where Ctrl-C is heard."""
    while not found.is_ready():
        time.sleep(0.05)
    return np.asarray(found)


def _write(args: Hubness, counts: dict[str, np.ndarray], shown: np.ndarray) -> None:
    first = counts[args.metric]
    if args.out is not None:
        with files.replacing(args.out) as file:
            if args.out.suffix == ".npy":
                np.save(file, first)
            else:
                text = io.StringIO(newline="")
                rows = csv.writer(text)
                rows.writerow(["point", *(f"N_{args.k} {name}" for name in counts)])
                rows.writerows(zip(range(len(first)), *counts.values(), strict=True))
                file.write(text.getvalue().encode())
    if args.plot is not None:
        plots.count_histogram(counts, args.plot, k=args.k)
    if args.pictures is not None:
        order = np.argsort(-first, kind="stable")
        row = min(_SHOWN, len(first) // 2)
        rows = np.concatenate([order[:row], order[-row:]])
        labels = [f"{first[i]}" for i in rows]
        plots.sample_grid(_seen(shown[rows], shown), args.pictures, labels=labels, columns=row)


def _seen(x: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Images in [-1, 1], whatever numbers they are in."""
    low, high = float(whole.min()), float(whole.max())
    return x if low >= -1 and high <= 1 else 2 * (x - low) / max(high - low, 1e-12) - 1
