"""The typed configuration of a run.

Hydra composes plain YAML; `resolve` turns the result into checked dataclasses once, at the boundary.
"""

from neuralmech.config.composed import OLDEST_LOSS, OWN, own_code, own_options, resolve, to_yaml
from neuralmech.config.optim import GroupConfig, OptimConfig, OwnRuleConfig, RuleConfig, ScheduleConfig
from neuralmech.config.options import CheckpointConfig, Config, LoggerConfig, TrackConfig, TrainConfig

__all__ = [
    "OLDEST_LOSS", "OWN", "CheckpointConfig", "Config", "GroupConfig", "LoggerConfig", "OptimConfig", "OwnRuleConfig",
    "RuleConfig", "ScheduleConfig", "TrackConfig", "TrainConfig", "own_code", "own_options", "resolve", "to_yaml",
]  # fmt: skip
