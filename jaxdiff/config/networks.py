"""Networks as typed values: their fields, less those that follow from the data."""

from dataclasses import dataclass
from typing import ClassVar, Literal

__all__ = [
    "A_MODEL",
    "MODELS",
    "AutoencoderConfig",
    "ClassifierConfig",
    "DhariwalConfig",
    "DiTConfig",
    "MLPConfig",
    "NetworkConfig",
    "SongConfig",
    "SuAConfig",
    "SuBConfig",
    "UNetConfig",
    "holds",
]

Embedding = Literal["sinusoidal", "fourier"]
DType = Literal["bfloat16", "float16", "float32"]


@dataclass(frozen=True)
class MLPConfig:
    """A residual multilayer perceptron, for vectors."""

    kind: ClassVar[str] = "mlp"
    width: int = 128
    """The width of every layer."""
    depth: int = 3
    """The number of residual blocks."""
    embedding: Embedding = "sinusoidal"
    """Of the time feature: sinusoidal for features of some hundreds, fourier for order one."""
    dropout: float = 0.0
    """The probability of a zero, in [0, 1)."""
    dtype: DType | None = None
    """The compute dtype; parameters stay float32."""


@dataclass(frozen=True)
class UNetConfig:
    """The UNet of the DDPM family, for images."""

    kind: ClassVar[str] = "unet"
    channels: int = 128
    """The channels of the first level."""
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    """The channels of each level, as multiples; each level but the last ends in a halving."""
    blocks: int = 2
    """Residual blocks a level."""
    attention: tuple[int, ...] = (16,)
    """The image heights at which there is attention."""
    heads: int = 1
    """Attention heads."""
    head_channels: int | None = None
    """The channels of a head instead."""
    skip: Literal["concat", "add"] = "concat"
    """How the way up takes in the way down."""
    scale_shift: bool = False
    """Whether conditioning scales and shifts after the norm, instead of being added."""
    resample: Literal["conv", "conv_around", "pool"] = "conv"
    """How sizes are halved and doubled."""
    embedding: Embedding = "sinusoidal"
    """Of the time feature: sinusoidal for features of some hundreds, fourier for order one."""
    endpoint: bool = True
    """Whether the longest period is among the sinusoidal ones."""
    middle_attention: bool | None = None
    """Whether the middle has attention; where any level has, unless given."""
    dropout: float = 0.0
    """The probability of a zero in a block, in [0, 1)."""
    groups: int = 32
    """The groups of the norms; must divide the channels of every level."""
    epsilon: float = 1e-5
    """What keeps the norms finite; Ho et al. have 1e-6."""
    dtype: DType | None = None
    """The compute dtype; parameters stay float32."""
    remat: bool = False
    """Whether blocks are recomputed on the way back: less memory, more time."""


@dataclass(frozen=True)
class DiTConfig:
    """The diffusion transformer, for images."""

    kind: ClassVar[str] = "dit"
    width: int = 384
    """The length of a token."""
    depth: int = 12
    """The number of blocks."""
    heads: int = 6
    """Attention heads."""
    patch: int = 2
    """The side of a patch in pixels."""
    expansion: int = 4
    """The hidden layer of a block's perceptron, as a multiple of the width."""
    embedding: Embedding = "sinusoidal"
    """Of the time feature: sinusoidal for features of some hundreds, fourier for order one."""
    waves: int = 128
    """How many sines and cosines describe the time."""
    dropout: float = 0.0
    """The probability of a zero on each branch, in [0, 1)."""
    dtype: DType | None = None
    """The compute dtype; parameters stay float32."""
    epsilon: float = 1e-5
    """What keeps the norms finite."""
    perceptron_epsilon: float | None = None
    """The same of the norms before perceptrons."""
    remat: bool = False
    """Whether blocks are recomputed on the way back: less memory, more time."""
    positions: str = "sinusoidal"
    """How patches know their places: none, learned, sinusoidal, sincos, bias, t5, shaw, xl,
    deberta, alibi, rotary, factor, urpe, or a sum such as sinusoidal+factor."""
    skips: bool = False
    """Whether blocks of the second half see the outputs of the first."""
    implementation: Literal["xla", "cudnn"] | None = None
    """What computes attention that can be fused; cudnn on NVIDIA GPUs in half precision."""


@dataclass(frozen=True)
class ClassifierConfig:
    """A classifier of noisy images, for guidance: the way down of a UNet."""

    kind: ClassVar[str] = "classifier"
    channels: int = 32
    """The channels of the first level."""
    multipliers: tuple[int, ...] = (1, 2)
    """The channels of each level, as multiples; each level but the last ends in a halving."""
    blocks: int = 1
    """Residual blocks a level."""
    attention: tuple[int, ...] = ()
    """The image heights at which there is attention."""
    heads: int = 1
    """Attention heads."""
    resample: Literal["conv", "pool"] = "pool"
    """How sizes are halved."""
    dropout: float = 0.1
    """The probability of a zero in a block, in [0, 1)."""
    groups: int = 8
    """The groups of the norms; must divide the channels of every level."""
    dtype: DType | None = None
    """The compute dtype; parameters stay float32."""


@dataclass(frozen=True)
class AutoencoderConfig:
    """A convolutional autoencoder, in whose latents other networks learn."""

    kind: ClassVar[str] = "autoencoder"
    latents: int = 4
    """The channels of a latent pixel."""
    channels: int = 128
    """The channels of the first level."""
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    """The channels of each level, as multiples; each level but the last ends in a halving."""
    blocks: int = 2
    """Residual blocks a level."""
    attention: bool = True
    """Whether there is attention in the middle."""
    groups: int = 32
    """The groups of the norms; must divide the channels of every level."""
    epsilon: float = 1e-6
    """What keeps the norms finite."""
    std: float = 0.1
    """The deviation of a number of the data around what is decoded: smaller for less error, larger
    for latents nearer to a normal."""
    dtype: DType | None = None
    """The compute dtype; parameters stay float32."""


@dataclass(frozen=True)
class SongConfig:
    """DDPM++ and NCSN++ of the EDM paper, for images."""

    kind: ClassVar[str] = "song"
    channels: int = 128
    """The channels of the first convolution."""
    multipliers: tuple[int, ...] = (2, 2, 2)
    """The channels of each level, as multiples."""
    blocks: int = 4
    """Residual blocks a level."""
    attention: tuple[int, ...] = (16,)
    """The image heights at which there is attention."""
    embedding: Embedding = "sinusoidal"
    """Of the time feature; either is used with EDM's."""
    waves: int = 1
    """How many sines and cosines describe the time, as a multiple of the channels."""
    encoder: Literal["standard", "residual"] = "standard"
    """Whether the image itself is carried down beside the blocks: residual."""
    taps: tuple[float, ...] = (1.0, 1.0)
    """The filter by which sizes are halved and doubled."""
    dropout: float = 0.0
    """The probability of a zero in a block, in [0, 1)."""
    dtype: DType | None = None
    """The compute dtype; parameters stay float32."""
    remat: bool = False
    """Whether blocks are recomputed on the way back: less memory, more time."""


@dataclass(frozen=True)
class DhariwalConfig:
    """ADM as the EDM paper has it, for images."""

    kind: ClassVar[str] = "dhariwal"
    channels: int = 192
    """The channels of the first level, before its multiplier."""
    multipliers: tuple[int, ...] = (1, 2, 3, 4)
    """The channels of each level, as multiples."""
    blocks: int = 3
    """Residual blocks a level."""
    attention: tuple[int, ...] = (32, 16, 8)
    """The image heights at which there is attention."""
    head_channels: int = 64
    """The channels of an attention head."""
    dropout: float = 0.0
    """The probability of a zero in a block, in [0, 1)."""
    dtype: DType | None = None
    """The compute dtype; parameters stay float32."""
    remat: bool = False
    """Whether blocks are recomputed on the way back: less memory, more time."""


@dataclass(frozen=True)
class SuAConfig:
    """The light network of Su's recipe, for images: sums across, norms after."""

    kind: ClassVar[str] = "su_a"
    channels: int = 128
    """The channels of the first convolution."""
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    """The channels of each level, as multiples."""
    blocks: int = 2
    """Blocks a level; 1 where memory is short."""
    min_size: int = 4
    """The size at which halving ends."""
    num_steps: int = 1000
    """The steps of the chain, each of which has a learned row."""
    groups: int = 32
    """The groups of the norms; must divide the channels."""
    dtype: DType | None = None
    """The compute dtype; parameters stay float32."""


@dataclass(frozen=True)
class SuBConfig:
    """The network of Su's recipe that is nearer to Ho's, for images: joins across, norms before."""

    kind: ClassVar[str] = "su_b"
    channels: int = 128
    """The channels of the first convolution."""
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    """The channels of each level, as multiples; each level but the last ends in a halving."""
    blocks: int = 2
    """Blocks a level; 1 where memory is short."""
    groups: int = 32
    """The groups of the norms; must divide the channels."""
    dtype: DType | None = None
    """The compute dtype; parameters stay float32."""


NetworkConfig = (
    MLPConfig
    | UNetConfig
    | DiTConfig
    | SongConfig
    | DhariwalConfig
    | SuAConfig
    | SuBConfig
    | ClassifierConfig
    | AutoencoderConfig
)

MODELS = {c.kind: c for c in NetworkConfig.__args__}
"""Kinds of network by name."""

A_MODEL = "a model of the data"
_OTHERS: dict[type, str] = {ClassifierConfig: "a classifier", AutoencoderConfig: "an autoencoder"}


def holds(model: NetworkConfig) -> str:
    """What a run of such a network holds, in words: `A_MODEL`, or something else."""
    return _OTHERS.get(type(model), A_MODEL)
