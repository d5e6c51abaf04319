"""`jaxdiff export`: a run's sampler as a program that needs JAX alone."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import jax.numpy as jnp
import tyro
from jax import Array
from rich.console import Console

from jaxdiff import guidance, interop
from jaxdiff.cli import outputs, runs
from jaxdiff.cli.say import say
from jaxdiff.config import Config, build
from jaxdiff.config.fields import SamplerName
from jaxdiff.denoiser import Denoiser
from jaxdiff.grids import GRIDS
from jaxdiff.interop.program import PLATFORMS
from jaxdiff.typing import Denoise

__all__ = ["main"]


@dataclasses.dataclass(frozen=True)
class Export:
    """Write the sampler of a run, its network and its steps, as one program for other machines.

    `jaxdiff serve-file` runs it, or a few lines of plain JAX without jaxdiff: see the README.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run directory."""
    out: Path
    """The .npz file to write."""
    platforms: str = "cpu,cuda,tpu"
    """Where it is to run, with commas: of cpu, cuda, rocm, tpu; none of them need be here."""
    sampler: SamplerName | None = None
    """The sampler; the run's configuration says which unless given."""
    steps: int | None = None
    """Its number of steps."""
    eta: float | None = None
    """How much noise its steps add, for those that know it: 0 none, 1 as DDPM."""
    grid: str | None = None
    """Which levels it visits, by name."""
    guided: bool = True
    """Take a guidance scale as an input, where the model was trained for it: two evaluations a step
    instead of one."""
    batch: int | None = None
    """How many are drawn at once; any number unless given."""
    beside: bool = False
    """Write the weights to a .safetensors beside the program instead of inside."""
    average: Annotated[runs.AverageFlags, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=runs.AverageFlags
    )
    checkpoint: int | Literal["best"] | None = None
    """The step of the checkpoint to use, or "best"; the newest unless given."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command; see `jaxdiff.cli.main`."""
    args = tyro.cli(Export, prog="jaxdiff export", args=arguments)
    platforms = _check(args)
    run = runs.model_of_data(args.run, "which draws nothing")
    config = run.config
    part = config.sampling
    eta = build.own_eta(config, args.sampler, args.eta)
    sampler = build.build_sampler(args.sampler or part.sampler, eta=eta)
    grid = build.build_grid(config, args.grid or part.grid, args.steps or part.steps)
    labelled = bool(config.data.label_counts)
    guided = args.guided and labelled and config.loss.cond_dropout > 0
    state = run.restore(args.checkpoint)
    weights = runs.weights(run, state, args.average, Console(stderr=True))
    weights, decode = _with_decoder(weights, config)

    def denoise_of(weights: Any, label: Array | None, scale: Array | None) -> Denoise:
        def guide(denoiser: Denoiser, labels: Array | None) -> Denoise:
            return denoiser if scale is None else guidance.cfg(denoiser, scale)

        return build.build_denoise(config, {"params": weights["params"]}, label, guide)

    program = interop.export_sampler(
        denoise_of,
        weights,
        grid,
        config.data.shape,
        sampler=sampler,
        labelled=labelled,
        guided=guided,
        decode=lambda weights, x: jnp.clip(decode(weights, x), -1, 1),
        platforms=platforms,
        batch=args.batch,
    )
    about = {
        "label_counts": list(config.data.label_counts),
        "sampler": args.sampler or part.sampler,
        "steps": grid.num_steps,
        "trained": int(state.step),
    }
    program = dataclasses.replace(program, about={**program.about, **about})
    written = interop.write_program(args.out, program, beside=args.beside)
    sizes = " and ".join(f"{path} ({path.stat().st_size / 2**20:.1f} MiB)" for path in written)
    say(
        Console(stderr=True),
        f"{sizes}: {about['sampler']} in {about['steps']} steps, for {', '.join(platforms)};"
        f" inputs {', '.join(program.about['inputs'])}",
    )
    return 0


def _with_decoder(weights: Any, config: Config) -> tuple[Any, Callable[[Any, Array], Array]]:
    """The weights of a program, a decoder's among them where the network draws latents."""
    if config.data.latents is None:
        return weights, lambda weights, x: x
    codec = build.open_codec(config.data).codec
    half = dataclasses.replace(codec, encoder=None)
    return {**weights, "decoder": half}, lambda weights, z: weights["decoder"].decode(z)


def _check(args: Export) -> tuple[str, ...]:
    """The platforms, once the flags are in order."""
    for name in ("steps", "batch"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}")
    if args.grid is not None and args.grid not in GRIDS:
        raise ValueError(f"--grid must be one of {', '.join(GRIDS)}, got {args.grid!r}")
    platforms = tuple(name.strip() for name in args.platforms.split(","))
    if not set(platforms) <= set(PLATFORMS):
        raise ValueError(f"--platforms must be of {', '.join(PLATFORMS)}, got {args.platforms!r}")
    args.average.check()
    outputs.check("--out", args.out, (".npz",))
    return platforms
