"""Everything that fixes a run, as typed values: what to train, on what, how, and how to sample.

The choices of names are the keys of the library's own tables, so that a new schedule, weight or
sampler is in the configuration and on the command line as soon as it is in its table.

Not here: networks (`networks`), recipes (`presets`), files (`codec`), and what the values stand
for (`build`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import tyro

from jaxdiff import losses, schedules
from jaxdiff.config.networks import NetworkConfig, UNetConfig
from jaxdiff.denoiser import TIME_FEATURES
from jaxdiff.grids import GRIDS
from jaxdiff.parametrization import PARAMETRIZATIONS
from jaxdiff.samplers.registry import SAMPLERS
from jaxdiff.training.optim import DECAYS

__all__ = [
    "HEADS",
    "METHODS",
    "SCHEDULES",
    "Config",
    "DataConfig",
    "LossConfig",
    "OptimizerConfig",
    "ParametrizationConfig",
    "SamplingConfig",
    "ScheduleConfig",
    "TrainingConfig",
    "TuningConfig",
    "VarianceConfig",
]


def _chain(betas: Callable) -> Callable:
    """A chain's schedule from its table of betas."""

    def schedule(num_steps: float = 1000) -> Any:
        if num_steps % 1:
            raise ValueError(f"num_steps must be a whole number, got {num_steps}")
        return schedules.from_betas(betas(int(num_steps)))

    return schedule


SCHEDULES: dict[str, Callable] = {
    "linear_vp": schedules.linear_vp,
    "cosine": schedules.cosine,
    "sub_vp": schedules.sub_vp,
    "ve": schedules.ve,
    "edm": schedules.edm,
    "rectified": schedules.rectified,
    "linear_betas": _chain(schedules.linear_betas),
    "scaled_linear_betas": _chain(schedules.scaled_linear_betas),
    "sqrt_linear_betas": _chain(schedules.sqrt_linear_betas),
    "cosine_betas": _chain(schedules.cosine_betas),
    "sigmoid_betas": _chain(schedules.sigmoid_betas),
    "su_betas": _chain(schedules.su_betas),
}
"""Schedules by name; their factories' keywords are what `ScheduleConfig.options` may hold."""

HEADS = {"npr": "residual2", "sn": "eps2", "learned": "log_var_fraction"}
"""What a network must say besides the mean, by the reverse variance that it is for."""

METHODS = ("lst", "full", "lora", "adapter", "bitfit", "head")
"""How a trained network may be tuned to other data; `config.tuned` says what they are."""

DecayName = Literal[tuple(DECAYS)]
GridName = Literal[tuple(GRIDS)]
HeadName = Literal[tuple(HEADS)]
MethodName = Literal[METHODS]
ParametrizationName = Literal[tuple(PARAMETRIZATIONS)]
SamplerName = Literal[tuple(SAMPLERS)]
ScheduleName = Literal[tuple(SCHEDULES)]
TimeFeature = Literal[tuple(TIME_FEATURES)]
TimesName = Literal[(*losses.TIMES, "log_normal", "importance")]
WeightName = Literal[tuple(losses.WEIGHTS)]


@dataclass(frozen=True)
class DataConfig:
    """What is trained on."""

    source: tyro.conf.Suppress[str] = "digits"
    """"digits", or the path of a data file."""
    value_range: tuple[float, float] | None = None
    """The numbers in the file that stand for -1 and 1, where it does not say so itself."""
    heldout_every: int | None = None
    """One row in so many is held out for evaluation; the reader's own choice unless given."""
    labels: bool = True
    """Whether to condition on labels, where the data have them."""
    size: int | None = None
    """The side of the squares that images in a folder are resized and cropped to."""
    strict: bool = False
    """Whether a damaged image in a folder is an error, rather than left out with a warning."""
    coarse: bool = False
    """Whether the labels of CIFAR-100 are its 20 superclasses instead of its 100 classes."""
    flip: bool = False
    """Whether images are mirrored left to right at random."""
    augment: float = 0.0
    """The probability of each geometric distortion, of which the network is told; EDM's is .12."""
    latents: str | None = None
    """The run of jaxdiff autoencoder in whose latents the network learns and draws."""
    codec: tyro.conf.Suppress[str | None] = None
    """The digest of that autoencoder and its scale; found out from it."""
    shape: tyro.conf.Suppress[tuple[int, ...]] = ()
    """The shape of an example, or of its latents; found out from the data."""
    label_counts: tyro.conf.Suppress[tuple[int, ...]] = ()
    """How many training examples each class has, if conditioned on it; found out as well."""
    bins: tyro.conf.Suppress[int | None] = None
    """How many values a number of the data takes, None for a continuum; found out as well."""


@dataclass(frozen=True)
class ParametrizationConfig:
    """What the network predicts, and what of the noise level it is told."""

    name: ParametrizationName = "v"
    """What it predicts."""
    time_feature: TimeFeature | None = None
    """What it is told; what suits the schedule's clock unless given."""
    sigma_data: float = 0.5
    """The deviation of the data, for name = edm."""


@dataclass(frozen=True)
class ScheduleConfig:
    """How noise grows with time."""

    name: ScheduleName = "cosine"
    """The schedule; those named after betas are chains."""
    options: dict[str, float] = field(default_factory=dict)
    """Its numbers by name, such as beta_max 15 or num_steps 500."""
    shift: float = 1.0
    """Factor on sigma / alpha at every time; above 1 for large images."""


@dataclass(frozen=True)
class LossConfig:
    """What is minimised."""

    weight: WeightName = "simple"
    """The weight of each noise level."""
    weight_options: dict[str, float] = field(default_factory=dict)
    """Its numbers by name, such as gamma 5."""
    times: TimesName = "stratified"
    """How times are drawn."""
    times_options: dict[str, float] = field(default_factory=dict)
    """Its numbers by name: mean and std of log_normal, floor of importance."""
    reduction: Literal["mean", "sum"] = "mean"
    """Over the numbers of an example; the sum keeps gradients large in half precision."""
    cond_dropout: float = 0.1
    """How often an example trains without its label, in [0, 1]; what guidance needs."""


@dataclass(frozen=True)
class VarianceConfig:
    """What the network learns of the variance of a reverse step."""

    heads: tuple[HeadName, ...] = ()
    """What for: npr and sn, optimal variances; or learned, a place between small and large."""
    form: Literal["simple", "residual"] = "simple"
    """Of the heads for npr and sn: a convolution, or a residual block and a convolution."""
    frozen: bool = True
    """Whether those two are trained alone, on a network that stays as it is; else beside it."""
    objective: Literal["hybrid", "bound"] = "hybrid"
    """By what learned is trained: the bound beside the loss of the mean, or the bound alone."""
    bound_weight: float = 0.001
    """The weight of the bound in hybrid."""


@dataclass(frozen=True)
class TuningConfig:
    """What of a trained network is trained further, on other data."""

    method: tyro.conf.Suppress[MethodName | None] = None
    """How; None where all is trained from the start."""
    classes: tyro.conf.Suppress[int] = 0
    """How many classes the trained network knows; found out from its run."""
    ratio: int = 4
    """lst: the side network is narrower by it."""
    rank: int = 8
    """lora: of the change of a layer."""
    alpha: float = 8.0
    """lora: what the change is scaled with, times the rank."""
    layers: tuple[str, ...] = ()
    """lora: patterns of the layers, such as */qkv; those of the attention unless given."""
    width: int = 16
    """adapter: of the small perceptrons."""
    head: tuple[str, ...] = ()
    """head and bitfit: patterns of what is the head; the last layer unless given."""


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser, its learning rate, and the averages of the parameters."""

    name: Literal["adam", "lamb"] = "adam"
    """Adam, or LAMB, which scales each layer's step by the size of its parameters."""
    lr: float = 1e-3
    """The peak learning rate."""
    warmup: int = 100
    """Steps over which it rises."""
    decay: DecayName = "cosine"
    """How it falls, over the whole run."""
    b1: float = 0.9
    """The decay of Adam's first moment."""
    b2: float = 0.999
    """The decay of its second."""
    eps: float = 1e-8
    """What keeps its quotient finite."""
    clip: float | None = 1.0
    """The largest norm of the gradient, None for no limit."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    ema_decay: float = 0.999
    """The decay of the average of the parameters, which samples are drawn with."""
    more_ema_decays: tuple[float, ...] = ()
    """Decays of further averages, for jaxdiff sample --ema."""
    power_widths: tuple[float, ...] = ()
    """Relative widths of averages by powers of time, such as 0.05 0.1: each checkpoint leaves a
    snapshot of them, from which jaxdiff sample --ema-width rebuilds an average of any width."""


@dataclass(frozen=True)
class TrainingConfig:
    """How long, how often."""

    batch_size: int = 128
    """Examples a step."""
    accumulate: int = 1
    """Microbatches a step, for less memory."""
    steps: int | None = 5000
    """The number of steps; None where seconds are given."""
    seconds: float | None = None
    """How long to train instead, compilation included."""
    seed: int = 0
    """Of parameters, noise and the order of the data."""
    log_every: int = 50
    """Steps between rows of the log."""
    save_every: int = 1000
    """Steps between checkpoints."""
    keep: int = 3
    """How many of the newest checkpoints stay."""
    evaluate: bool = False
    """Whether held-out loss and a picture of samples are made at each checkpoint."""
    heldout: int = 1024
    """How many held-out examples that loss is over, at most."""
    samples: int = 64
    """How many samples are drawn; from 500 on, their distance to held-out images is noted."""
    best: Literal["heldout_loss", "frechet"] | None = None
    """By which of these the best checkpoint stays as well; needs evaluate."""
    tensorboard: bool = False
    """Whether the log is also written for TensorBoard."""
    explode: float = 100.0
    """A loss of so many times the first ends the run as failed."""
    devices: int | None = None
    """Over how many devices a batch is split; all that divide it unless given."""
    fully_sharded: bool = False
    """Whether each of them keeps a part of the state alone, instead of a copy of it."""
    model_devices: int = 1
    """Over how many devices more the heads and hidden units of a transformer are split."""
    ordered: int | None = None
    """In so many parts a batch is taken, whose gradients are added in their order: the same bits on
    any number of devices that divides it."""


@dataclass(frozen=True)
class SamplingConfig:
    """How samples are drawn unless asked otherwise."""

    sampler: SamplerName = "ddim"
    """The sampler."""
    steps: int = 50
    """Its number of steps."""
    grid: GridName = "uniform"
    """Which levels it visits."""
    clip: bool = True
    """Whether each step's estimate of the data is held to [-1, 1]."""
    eta: float | None = None
    """How much noise the sampler adds, of those that take it; its own unless given."""
    guidance: float | None = None
    """The scale of classifier-free guidance; none unless given."""


@dataclass(frozen=True)
class Config:
    """A whole run."""

    preset: tyro.conf.Suppress[str] = "digits"
    """The recipe that the other values began as."""
    begins: tyro.conf.Suppress[str | None] = None
    """The run whose averaged parameters it begins from: a second stage of training, or tuning."""
    data: DataConfig = field(default_factory=DataConfig)
    model: NetworkConfig = field(default_factory=UNetConfig)
    parametrization: ParametrizationConfig = field(default_factory=ParametrizationConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    variance: VarianceConfig = field(default_factory=VarianceConfig)
    tuning: TuningConfig = field(default_factory=TuningConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
