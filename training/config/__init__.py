"""The settings of a run: one YAML file, read into nested frozen dataclasses."""

from training.config.loading import config_to_yaml, config_values, load_config
from training.config.schema import (
    AugmentationConfig,
    BackboneConfig,
    DataConfig,
    HeadConfig,
    LossConfig,
    OptimizerConfig,
    RunConfig,
    ScheduleConfig,
    ThresholdsConfig,
    TrainingConfig,
    VocabularyConfig,
)

__all__ = [
    "AugmentationConfig",
    "BackboneConfig",
    "DataConfig",
    "HeadConfig",
    "LossConfig",
    "OptimizerConfig",
    "RunConfig",
    "ScheduleConfig",
    "ThresholdsConfig",
    "TrainingConfig",
    "VocabularyConfig",
    "config_to_yaml",
    "config_values",
    "load_config",
]
