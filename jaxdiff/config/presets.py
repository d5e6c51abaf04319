"""Recipes by name. A new one is one entry; `jaxdiff train --preset NAME` begins from it."""

import dataclasses
import functools
from collections.abc import Callable

from jaxdiff.config.fields import (
    Config,
    DataConfig,
    HeadName,
    LossConfig,
    MethodName,
    OptimizerConfig,
    ParametrizationConfig,
    SamplingConfig,
    ScheduleConfig,
    TimeFeature,
    TrainingConfig,
    TuningConfig,
    VarianceConfig,
)
from jaxdiff.config.networks import (
    AutoencoderConfig,
    ClassifierConfig,
    DhariwalConfig,
    DiTConfig,
    MLPConfig,
    NetworkConfig,
    SongConfig,
    SuAConfig,
    SuBConfig,
    UNetConfig,
)

__all__ = [
    "AUTOENCODER",
    "CLASSIFIER",
    "PRESETS",
    "STAGES",
    "preset",
    "preset_for",
    "preset_for_latents",
    "tune",
]


def _edm(
    model: NetworkConfig,
    data: DataConfig,
    *,
    lr: float,
    batch: int,
    images: float,
    half_life: float,
    steps: int,
) -> Config:
    """Training as the EDM paper has it, sizes in images (Karras et al. 2022, table 7)."""
    return Config(
        data=data,
        model=model,
        parametrization=ParametrizationConfig(name="edm"),
        schedule=ScheduleConfig(name="edm"),
        loss=LossConfig(
            weight="edm",
            times="log_normal",
            times_options={"mean": -1.2, "std": 1.2},
            cond_dropout=0.0,
        ),
        optimizer=OptimizerConfig(
            lr=lr,
            warmup=round(10e6 / batch),
            decay="constant",
            clip=None,
            ema_decay=0.5 ** (batch / half_life),
        ),
        training=TrainingConfig(batch_size=batch, steps=round(images / batch), save_every=5000),
        sampling=SamplingConfig(sampler="heun", steps=steps, grid="karras", clip=False),
    )


def _su(model: NetworkConfig, batch: int, feature: TimeFeature) -> Config:
    """Training as Su has it, to the end of the decay of the learning rate."""
    return Config(
        data=DataConfig(labels=False),
        model=model,
        parametrization=ParametrizationConfig(name="eps", time_feature=feature),
        schedule=ScheduleConfig(name="su_betas", options={"num_steps": 1000}),
        loss=LossConfig(weight="simple", times="uniform", reduction="sum", cond_dropout=0.0),
        optimizer=OptimizerConfig(
            name="lamb", warmup=4000, decay="su", eps=1e-6, clip=None, ema_decay=0.9999
        ),
        training=TrainingConfig(batch_size=batch, steps=40_000, save_every=2000),
        sampling=SamplingConfig(sampler="ddpm", steps=1000, clip=False),
    )


def _latent_dit(model: DiTConfig) -> Config:
    """A transformer of a published size in latents of 32x32x4, with patches of 2.

    Source: Peebles and Xie 2023, arXiv:2212.09748, section 4 and their release: a chain with a
    learned variance, Adam at 1e-4 throughout, batches of 256, 400,000 steps, 250 of them to sample.
    """
    return Config(
        data=DataConfig(flip=True),
        model=model,
        parametrization=ParametrizationConfig(name="eps"),
        schedule=ScheduleConfig(name="linear_betas", options={"num_steps": 1000}),
        loss=LossConfig(weight="simple", times="uniform"),
        variance=VarianceConfig(heads=("learned",)),
        optimizer=OptimizerConfig(lr=1e-4, warmup=0, decay="constant", clip=None, ema_decay=0.9999),
        training=TrainingConfig(batch_size=256, steps=400_000, save_every=5000),
        sampling=SamplingConfig(sampler="ddpm", steps=250, clip=False),
    )


_CIFAR10 = {"lr": 1e-3, "batch": 512, "images": 200e6, "half_life": 0.5e6, "steps": 18}

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
    # 28x28 grey images and an hour on two cores.
    "mnist": Config(
        model=UNetConfig(
            channels=24,
            multipliers=(1, 2, 3),
            blocks=1,
            attention=(7,),
            skip="add",
            resample="pool",
            dropout=0.1,
            groups=8,
        ),
        loss=LossConfig(weight="plain"),
        optimizer=OptimizerConfig(lr=2e-3, b2=0.99, ema_decay=0.9995),
        training=TrainingConfig(batch_size=32, steps=5000, log_every=100, evaluate=True),
    ),
    # Vectors [N, D]: points of the plane, tables, latents.
    "mlp": Config(
        model=MLPConfig(),
        optimizer=OptimizerConfig(ema_decay=0.995),
        training=TrainingConfig(batch_size=256, steps=10_000),
        sampling=SamplingConfig(clip=False),
    ),
    # Images of 16, 32 or 64 pixels, on a GPU.
    "unet": Config(
        model=UNetConfig(channels=64, multipliers=(1, 2, 2, 2), attention=(8,), dropout=0.1),
        optimizer=OptimizerConfig(lr=4e-4, warmup=1000, ema_decay=0.9995),
        training=TrainingConfig(steps=50_000, evaluate=True),
    ),
    # The same by a transformer: no convolution.
    "dit": Config(
        model=DiTConfig(width=256, depth=8, heads=4),
        optimizer=OptimizerConfig(lr=4e-4, warmup=1000, ema_decay=0.9995),
        training=TrainingConfig(steps=50_000, evaluate=True),
    ),
    # Latents of 4x4x4 of 8x8 images, by `jaxdiff autoencoder digits`; minutes on two cores.
    "digits-latent": Config(
        model=DiTConfig(width=96, depth=4, heads=4, patch=1),
        loss=LossConfig(weight="plain"),
        optimizer=OptimizerConfig(lr=1e-3, b2=0.99),
        training=TrainingConfig(batch_size=32, steps=6000, log_every=100),
        sampling=SamplingConfig(clip=False),
    ),
    # Latents of 32x32x4 of images of 256 pixels.
    "dit-s2-latent": _latent_dit(DiTConfig(width=384, depth=12, heads=6)),
    "dit-b2-latent": _latent_dit(DiTConfig(width=768, depth=12, heads=12)),
    "dit-l2-latent": _latent_dit(DiTConfig(width=1024, depth=24, heads=16)),
    "dit-xl2-latent": _latent_dit(DiTConfig(width=1152, depth=28, heads=16)),
    # Ho et al. 2020, arXiv:2006.11239, appendix B.
    "ddpm-cifar10": Config(
        data=DataConfig(labels=False, flip=True),
        model=UNetConfig(dropout=0.1, epsilon=1e-6),
        parametrization=ParametrizationConfig(name="eps"),
        schedule=ScheduleConfig(name="linear_betas", options={"num_steps": 1000}),
        loss=LossConfig(weight="simple", times="uniform", cond_dropout=0.0),
        optimizer=OptimizerConfig(lr=2e-4, warmup=5000, decay="constant", ema_decay=0.9999),
        training=TrainingConfig(steps=800_000, save_every=5000),
        sampling=SamplingConfig(sampler="ddpm", steps=1000),
    ),
    # Nichol and Dhariwal 2021, arXiv:2102.09672: the flags and defaults of their release. There
    # the network is told its steps scaled to 0..1000.
    "improved-cifar10": Config(
        data=DataConfig(labels=False),
        model=UNetConfig(blocks=3, attention=(16, 8), heads=4, scale_shift=True, dropout=0.3),
        parametrization=ParametrizationConfig(name="eps"),
        schedule=ScheduleConfig(name="cosine_betas", options={"num_steps": 4000}),
        loss=LossConfig(times="uniform", cond_dropout=0.0),
        variance=VarianceConfig(heads=("learned",)),
        optimizer=OptimizerConfig(lr=1e-4, warmup=0, decay="constant", clip=None, ema_decay=0.9999),
        training=TrainingConfig(steps=500_000, save_every=5000),
        sampling=SamplingConfig(sampler="ddpm", steps=4000),
    ),
    # Karras et al. 2022, arXiv:2206.00364, table 7, configuration F: DDPM++ (VP), unconditional.
    "edm-cifar10": _edm(
        SongConfig(dropout=0.13), DataConfig(labels=False, augment=0.12), **_CIFAR10
    ),
    # The same with NCSN++ (VE).
    "edm-ncsnpp-cifar10": _edm(
        SongConfig(
            embedding="fourier",
            waves=2,
            encoder="residual",
            taps=(1.0, 3.0, 3.0, 1.0),
            dropout=0.13,
        ),
        DataConfig(labels=False, augment=0.12),
        **_CIFAR10,
    ),
    # The same table for ImageNet at 64x64 with classes; float16 there.
    "adm-imagenet64": _edm(
        DhariwalConfig(dropout=0.1, dtype="bfloat16"),
        DataConfig(),
        lr=1e-4,
        batch=4096,
        images=2500e6,
        half_life=50e6,
        steps=40,
    ),
    # Su 2022, kexue.fm/archives/9152, and Keras-DDPM: ddpm.py and ddpm2.py, for faces of 128x128.
    "su-a": _su(SuAConfig(), 64, "rounded_steps"),
    "su-b": _su(SuBConfig(), 32, "steps"),
}

CLASSIFIER = Config(
    preset="classifier",
    model=ClassifierConfig(),
    optimizer=OptimizerConfig(lr=1e-3, ema_decay=0.995, weight_decay=0.05),
    training=TrainingConfig(batch_size=64, steps=4000, log_every=100),
)
"""The recipe of `jaxdiff classifier`, whose runs hold no model to sample from."""

AUTOENCODER = Config(
    preset="autoencoder",
    data=DataConfig(labels=False),
    model=AutoencoderConfig(
        channels=16, multipliers=(1, 2), blocks=1, attention=False, groups=8, std=0.05
    ),
    optimizer=OptimizerConfig(lr=2e-3, b2=0.99, ema_decay=0.995),
    training=TrainingConfig(batch_size=32, steps=4000, log_every=100),
)
"""The recipe of `jaxdiff autoencoder`, for small images."""


def _stage(head: HeadName, config: Config) -> Config:
    """A head on a trained network, which stays as it is.

    Adam at 1e-4 as published (Bao et al. 2022, arXiv:2206.07309, appendix); the average is over
    the last 1,000 steps, not their 10,000, since a head alone is trained in some thousands.
    """
    return dataclasses.replace(
        config,
        variance=VarianceConfig(heads=(head,)),
        optimizer=OptimizerConfig(lr=1e-4, decay="constant", ema_decay=0.999),
    )


STAGES: dict[str, Callable[[Config], Config]] = {
    name: functools.partial(_stage, name) for name in ("npr", "sn")
}
"""Second stages by name: from the configuration of the run that they begin from to their own."""


_RATES = {"lst": 3e-3, "full": 3e-4, "lora": 3e-3, "adapter": 3e-3, "bitfit": 3e-3, "head": 3e-3}


def tune(method: MethodName, config: Config) -> Config:
    """The recipe of tuning a run's network to other data.

    What is trained on and how is the run's, but for how its data were read. The learning rate is
    Sung et al.'s (2022, arXiv:2206.06522) where parameters are few, a tenth where all are trained.

    Args:
        method: its name.
        config: of the run.
    """
    old = config.data
    data = DataConfig(
        labels=bool(old.label_counts),
        flip=old.flip,
        augment=old.augment,
        latents=old.latents,
        codec=old.codec,
    )
    part = TuningConfig(method=method, classes=len(old.label_counts))
    optimizer = dataclasses.replace(config.optimizer, lr=_RATES[method])
    return dataclasses.replace(config, data=data, tuning=part, optimizer=optimizer)


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
    if max(shape[:2]) <= 8:
        return "digits"
    return "mnist" if shape == (28, 28, 1) else "unet"


def preset_for_latents(shape: tuple[int, ...]) -> str:
    """The name of the recipe that suits latents of a shape (h, w, C)."""
    return "digits-latent" if max(shape[:2]) <= 8 else "dit-s2-latent"
