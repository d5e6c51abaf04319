"""Configurations: typed values, recipes by name, JSON, and (in `config.build`) what they mean.

`build` imports networks and optimisers and is therefore imported by name.
"""

from jaxdiff.config.codec import changes, from_json, to_json
from jaxdiff.config.fields import (
    HEADS,
    METHODS,
    SCHEDULES,
    Config,
    DataConfig,
    LossConfig,
    MethodName,
    OptimizerConfig,
    ParametrizationConfig,
    SamplingConfig,
    ScheduleConfig,
    TrainingConfig,
    TuningConfig,
    VarianceConfig,
)
from jaxdiff.config.networks import (
    MODELS,
    ClassifierConfig,
    DhariwalConfig,
    DiTConfig,
    MLPConfig,
    SongConfig,
    SuAConfig,
    SuBConfig,
    UNetConfig,
)
from jaxdiff.config.presets import CLASSIFIER, PRESETS, STAGES, preset, preset_for, tune

__all__ = [
    "CLASSIFIER",
    "HEADS",
    "METHODS",
    "MODELS",
    "PRESETS",
    "SCHEDULES",
    "STAGES",
    "ClassifierConfig",
    "Config",
    "DataConfig",
    "DhariwalConfig",
    "DiTConfig",
    "LossConfig",
    "MLPConfig",
    "MethodName",
    "OptimizerConfig",
    "ParametrizationConfig",
    "SamplingConfig",
    "ScheduleConfig",
    "SongConfig",
    "SuAConfig",
    "SuBConfig",
    "TrainingConfig",
    "TuningConfig",
    "UNetConfig",
    "VarianceConfig",
    "changes",
    "from_json",
    "preset",
    "preset_for",
    "to_json",
    "tune",
]
