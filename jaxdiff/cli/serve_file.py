"""`jaxdiff serve-file`: draws by a program that `jaxdiff export` wrote."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from jax import Array
from rich.console import Console

from jaxdiff import interop, plots
from jaxdiff.cli import outputs
from jaxdiff.cli.sample import choose_labels, in_chunks, write
from jaxdiff.cli.say import say

__all__ = ["main"]


@dataclasses.dataclass(frozen=True)
class ServeFile:
    """Draw samples by an exported program; no run directory is needed.

    Example i is the one that `jaxdiff sample` draws with this seed.
    """

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """The .npz that `jaxdiff export` wrote."""
    out: Path
    """The .npz file to write: x, and y where there are labels."""
    n: int = 64
    """How many."""
    label: int | None = None
    """The class to draw; all classes in the proportions of the data unless given."""
    guidance: float | None = None
    """The scale, where the program takes one: 1, the model itself, unless given."""
    seed: int = 0
    """Of all noise, 0 <= seed < 2**63."""
    plot: Path | None = None
    """A picture of the first samples to write, .png, .pdf or .svg."""
    weights: Path | None = None
    """A .safetensors with the weights to use instead of the file's."""
    chunk: int = 256
    """How many are drawn at once, where the program leaves it open."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command; see `jaxdiff.cli.main`."""
    args = tyro.cli(ServeFile, prog="jaxdiff serve-file", args=arguments)
    for name in ("n", "chunk"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(args, name)}")
    if not 0 <= args.seed < 2**63:
        raise ValueError(f"--seed must lie in 0 <= seed < 2**63, got {args.seed}")
    outputs.check("--out", args.out, (".npz",))
    outputs.check("--plot", args.plot, [f".{kind}" for kind in plots.FORMATS])
    program = interop.read_program(args.file, weights=args.weights)
    about = program.about
    inputs: dict[str, Any] = {}
    if "guidance" in about["inputs"]:
        inputs["guidance"] = 1.0 if args.guidance is None else args.guidance
    elif args.guidance is not None:
        raise ValueError(f"--guidance {args.guidance:g}: {args.file} takes no scale")
    labels = choose_labels(args.label, about.get("label_counts", ()), args.n)

    def draw(index: np.ndarray) -> Array:
        if labels is not None:
            inputs["label"] = np.resize(labels[index[0] :], len(index))
        return program(jax.random.key(args.seed), index, **inputs)

    if about["batch"] is None:
        x = in_chunks(args.n, args.chunk, draw)
    else:
        size = about["batch"]
        whole = -(-args.n // size) * size
        x = in_chunks(whole, size, draw)[: args.n]
    written = write(args.out, args.plot, x, labels)
    say(Console(stderr=True), f"{args.n} samples in {written}")
    return 0
