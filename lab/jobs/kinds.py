"""The kinds of jobs, and the config of each.

Imports neither torch nor drivers.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from lab.config import TrainConfig
from lab.errors import ConfigError
from lab.jobs.configs import CalibrateConfig, CompareConfig, EvaluateConfig
from lab.jobs.records import FitConfig, JobKind, JobRecord

WorkConfig = TrainConfig | FitConfig | CalibrateConfig | EvaluateConfig
"""Of the jobs that measure and compute themselves."""
JobConfig = WorkConfig | CompareConfig

KINDS: dict[JobKind, type[JobConfig]] = {
    "train": TrainConfig,
    "fit": FitConfig,
    "calibrate": CalibrateConfig,
    "evaluate": EvaluateConfig,
    "compare": CompareConfig,
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


def read_job_config(kind: JobKind, fields: Mapping[str, Any]) -> JobConfig:
    """Return the config of a kind of job from its fields; raise ConfigError that names the key."""
    try:
        return KINDS[kind].model_validate(dict(fields))
    except ValidationError as error:
        reasons = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError("; ".join(reasons)) from error
