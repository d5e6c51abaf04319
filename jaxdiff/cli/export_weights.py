"""`jaxdiff export-weights`: the network of a run as another library's weights."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np
import tyro
from rich.console import Console

from jaxdiff import interop
from jaxdiff.cli import outputs, runs
from jaxdiff.cli.say import say
from jaxdiff.config import build, foreign

__all__ = ["main"]


@dataclasses.dataclass(frozen=True)
class ExportWeights:
    """Write the network of a run as the weights that another library reads.

    diffusers gets a folder for `from_pretrained`, the others a .safetensors file of what
    `load_state_dict` takes. A network that theirs cannot be is refused, and what it differs in
    named.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run directory."""
    out: Path
    """What to write."""
    format: Literal[foreign.FORMATS] = "diffusers"  # type: ignore[valid-type]
    """Whose names the weights are to have."""
    order: Literal["legacy", "new"] = "legacy"
    """adm: how queries, keys and values are to lie."""
    average: Annotated[runs.AverageFlags, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=runs.AverageFlags
    )
    checkpoint: int | Literal["best"] | None = None
    """The step of the checkpoint to use, or "best"; the newest unless given."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command; see `jaxdiff.cli.main`."""
    args = tyro.cli(ExportWeights, prog="jaxdiff export-weights", args=arguments)
    args.average.check()
    if args.order != "legacy" and args.format != "adm":
        raise ValueError(f"--order is of adm, not of {args.format}")
    if args.format != "diffusers":
        outputs.check("--out", args.out, (".safetensors",))
    elif args.out.suffix or args.out.is_file():
        raise ValueError(f"--out must be a folder for diffusers, got {args.out}")
    run = runs.model_of_data(args.run, "which diffusers has no form of")
    console = Console(stderr=True)
    weights = runs.weights(run, run.restore(args.checkpoint), args.average, console)
    params = jax.tree.map(np.asarray, weights["params"])
    net, shape = build.build_model(run.config), tuple(run.config.data.shape)
    if args.format == "diffusers":
        interop.write_diffusers(args.out, net, params, shape)
    else:
        interop.write_safetensors(args.out, _tensors(args, run, net, params, shape))
    say(console, f"{build.count_parameters(params):,} parameters for {args.format} in {args.out}")
    return 0


def _tensors(
    args: ExportWeights, run: runs.Run, net: Any, params: Any, shape: tuple[int, ...]
) -> dict[str, np.ndarray]:
    if args.format == "edm":
        return interop.to_edm(net, params, shape)
    if args.format == "score_sde":
        return interop.to_score_sde(net, foreign.negated(run.config, params), shape)
    return interop.to_adm(net, params, shape, order=args.order)
