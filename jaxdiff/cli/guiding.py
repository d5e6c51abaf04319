"""The guidance part of `jaxdiff sample`: flags, what they refuse, and what they make of a model."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from jax import Array

from jaxdiff import config as configs
from jaxdiff import guidance
from jaxdiff.cli import runs
from jaxdiff.config import ClassifierConfig, Config, build
from jaxdiff.denoiser import Denoiser
from jaxdiff.typing import Denoise

__all__ = ["GuidanceFlags", "Guide", "guide", "label_counts"]

Guide = Callable[[Denoiser, Array | None], Denoise]
"""What guidance makes of a network, given its labels [B]."""


@dataclasses.dataclass(frozen=True)
class GuidanceFlags:
    """How the model is guided."""

    guidance: float | None = None
    """The scale: 0 is the unconditional model, 1 the model itself, above 1 further that way."""
    guidance_interval: tuple[float, float] | None = None
    """The noise in which it is guided: LOW < sigma / alpha <= HIGH; all of it unless given."""
    rescale: float | None = None
    """How far, in [0, 1], the contrast of guided samples is drawn back to that of unguided ones."""
    classifier: Path | None = None
    """A run of `jaxdiff classifier` to guide by, instead of the model without its labels; a scale
    of 0 is no guidance then."""
    autoguide: Path | None = None
    """The run of a weaker model to guide away from, instead of the model without its labels."""


def label_counts(flags: GuidanceFlags, config: Config) -> tuple[int, ...]:
    """How many training examples each class has that may be asked for, () if none may.

    Those of the model; of the classifier, where the model knows no labels.
    """
    if config.data.label_counts or flags.classifier is None:
        return config.data.label_counts
    return runs.open_run(flags.classifier).config.data.label_counts


def guide(flags: GuidanceFlags, run: runs.Run) -> Guide:
    """What the flags make of the model in `run`.

    Raises:
        ValueError: flags that contradict each other, or a model that cannot be guided so.
        FileNotFoundError: a run that is none.
    """
    scale = _scale(flags)
    if scale is None:
        return lambda denoiser, labels: denoiser
    if flags.classifier is not None:
        return _by_classifier(flags, run, scale)
    if flags.autoguide is not None:
        return _by_weaker(flags, run, scale)
    if not run.config.data.label_counts:
        raise ValueError(
            f"--guidance {flags.guidance:g}: {run.path} was trained without labels; guide it by"
            " --classifier or --autoguide"
        )
    if run.config.loss.cond_dropout == 0:
        raise ValueError(
            f"--guidance {flags.guidance:g}: {run.path} was trained with loss.cond_dropout 0, so"
            " that it knows nothing without a label; guide it by --classifier or --autoguide"
        )
    return lambda denoiser, labels: guidance.cfg(denoiser, scale, rescale=flags.rescale)


def _scale(flags: GuidanceFlags) -> guidance.Limited | float | None:
    """The scale, None for no guidance at all."""
    if flags.guidance is None:
        for name in ("guidance_interval", "rescale", "classifier", "autoguide"):
            if getattr(flags, name) is not None:
                raise ValueError(f"--{name.replace('_', '-')} needs --guidance, the scale")
        return None
    if flags.classifier is not None and flags.autoguide is not None:
        raise ValueError("give --classifier or --autoguide, got both")
    if flags.classifier is not None and flags.rescale is not None:
        raise ValueError("--rescale is of guidance by two models, got --classifier")
    if flags.guidance_interval is None:
        return flags.guidance
    return guidance.limited(flags.guidance, *flags.guidance_interval)


def _by_classifier(flags: GuidanceFlags, run: runs.Run, scale: guidance.Limited | float) -> Guide:
    other = runs.open_run(flags.classifier)
    if not isinstance(other.config.model, ClassifierConfig):
        raise ValueError(f"--classifier {other.path}: it holds {configs.holds(other.config.model)}")
    _check_alike("--classifier", other, run)
    reader = build.build_classifier(other.config, build.averaged(other.config, other.restore()))

    def guided(denoiser: Denoiser, labels: Array | None) -> Denoise:
        return guidance.classifier(denoiser, reader, labels, scale)

    return guided


def _by_weaker(flags: GuidanceFlags, run: runs.Run, scale: guidance.Limited | float) -> Guide:
    other = runs.open_run(flags.autoguide)
    held = configs.holds(other.config.model)
    if held != configs.A_MODEL:
        raise ValueError(f"--autoguide {other.path}: it holds {held}")
    _check_alike("--autoguide", other, run)
    if other.config.schedule != run.config.schedule:
        raise ValueError(
            f"--autoguide {other.path}: it was trained on another schedule,"
            f" {configs.to_json(other.config)['schedule']}"
        )
    weaker = build.build_denoiser(other.config, build.averaged(other.config, other.restore()))

    def guided(denoiser: Denoiser, labels: Array | None) -> Denoise:
        reference = weaker.with_cond(labels) if other.config.data.label_counts else weaker
        return guidance.autoguidance(denoiser, reference, scale, rescale=flags.rescale)

    return guided


def _check_alike(flag: str, other: runs.Run, run: runs.Run) -> None:
    """Raises ValueError unless both runs are of data of one shape, with the same classes."""
    mine, theirs = run.config.data, other.config.data
    if theirs.shape != mine.shape:
        raise ValueError(
            f"{flag} {other.path}: its examples are {list(theirs.shape)}, those of {run.path}"
            f" {list(mine.shape)}"
        )
    if theirs.codec != mine.codec:
        raise ValueError(f"{flag} {other.path}: it does not see data in the latents of {run.path}")
    known = [len(part.label_counts) for part in (mine, theirs)]
    if 0 not in known and known[0] != known[1]:
        raise ValueError(
            f"{flag} {other.path}: it knows {known[1]} classes, {run.path} knows {known[0]}"
        )
    if theirs.label_counts and not mine.label_counts and flag == "--autoguide":
        raise ValueError(f"{flag} {other.path}: it needs labels, which {run.path} knows not of")
