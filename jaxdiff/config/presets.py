"""Recipes by name. A new one is one entry; `jaxdiff train --preset NAME` begins from it."""

import dataclasses

from jaxdiff.config.fields import (
    Config,
    DataConfig,
    LossConfig,
    OptimizerConfig,
    ParametrizationConfig,
    SamplingConfig,
    ScheduleConfig,
    TrainingConfig,
)
from jaxdiff.config.networks import ClassifierConfig, DiTConfig, MLPConfig, UNetConfig

__all__ = ["CLASSIFIER", "PRESETS", "preset", "preset_for"]

PRESETS: dict[str, Config] = {
    # 8x8 grey images and five minutes on two cores: convolutions are slow there, so no attention,
    # resampling without weights, small batches, and one label a digit to make the most of them.
    "digits": Config(
        model=UNetConfig(
            channels=32,
            multipliers=(1, 2),
            attention=(),
            skip="add",
            resample="pool",
            dropout=0.1,
            groups=8,
        ),
        loss=LossConfig(weight="plain"),
        optimizer=OptimizerConfig(lr=2e-3, b2=0.99),
        training=TrainingConfig(batch_size=32, steps=9000, log_every=100),
    ),
    # Vectors [N, D]: points of the plane, tables, latents.
    "mlp": Config(
        model=MLPConfig(),
        optimizer=OptimizerConfig(ema_decay=0.995),
        training=TrainingConfig(batch_size=256, steps=10_000),
        sampling=SamplingConfig(clip=False),
    ),
    # Images of 16 to 64 pixels, on a GPU.
    "unet": Config(
        model=UNetConfig(channels=64, multipliers=(1, 2, 2), attention=(8,), dropout=0.1),
        optimizer=OptimizerConfig(lr=4e-4, warmup=1000, ema_decay=0.9995),
        training=TrainingConfig(steps=50_000),
    ),
    # The same by a transformer: no convolution.
    "dit": Config(
        model=DiTConfig(width=256, depth=8, heads=4),
        optimizer=OptimizerConfig(lr=4e-4, warmup=1000, ema_decay=0.9995),
        training=TrainingConfig(steps=50_000),
    ),
    # Ho et al. 2020, arXiv:2006.11239, appendix B.
    "ddpm-cifar10": Config(
        data=DataConfig(labels=False, flip=True),
        model=UNetConfig(dropout=0.1),
        parametrization=ParametrizationConfig(name="eps"),
        schedule=ScheduleConfig(name="linear_betas", options={"num_steps": 1000}),
        loss=LossConfig(weight="simple", times="uniform", cond_dropout=0.0),
        optimizer=OptimizerConfig(lr=2e-4, warmup=5000, decay="constant", ema_decay=0.9999),
        training=TrainingConfig(steps=800_000, save_every=5000),
        sampling=SamplingConfig(sampler="ddpm", steps=1000),
    ),
}

CLASSIFIER = Config(
    preset="classifier",
    model=ClassifierConfig(),
    optimizer=OptimizerConfig(lr=1e-3, ema_decay=0.995, weight_decay=0.05),
    training=TrainingConfig(batch_size=64, steps=4000, log_every=100),
)
"""The recipe of `jaxdiff classifier`, whose runs hold no model to sample from."""


def preset(name: str) -> Config:
    """The recipe of that name.

    Raises:
        ValueError: there is none; the choices are listed.
    """
    if name not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
    return dataclasses.replace(PRESETS[name], preset=name)


def preset_for(shape: tuple[int, ...]) -> str:
    """The name of the recipe that suits examples of a shape, (D,) or (H, W, C)."""
    if len(shape) == 1:
        return "mlp"
    return "digits" if max(shape[:2]) <= 8 else "unet"
