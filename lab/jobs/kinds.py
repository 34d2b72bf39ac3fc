"""The kinds of jobs, and the config of each.

Imports neither torch nor drivers.
"""

from pydantic import BaseModel

from lab.config import TrainConfig
from lab.jobs.configs import CalibrateConfig, EvaluateConfig
from lab.jobs.records import FitConfig, JobKind, JobRecord

JobConfig = TrainConfig | FitConfig | CalibrateConfig | EvaluateConfig

KINDS: dict[JobKind, type[JobConfig]] = {
    "train": TrainConfig,
    "fit": FitConfig,
    "calibrate": CalibrateConfig,
    "evaluate": EvaluateConfig,
}


def kind_of(config: BaseModel) -> JobKind:
    """Return the kind of job that a config is for; raise TypeError."""
    for kind, config_type in KINDS.items():
        if type(config) is config_type:
            return kind
    raise TypeError(f"no kind of job has a {type(config).__name__}")


def config_of(record: JobRecord) -> JobConfig:
    """Return the config that a job was submitted with; raise ValueError if it no longer is one."""
    return KINDS[record.kind].model_validate(record.config)
