"""Which training an evaluation tests."""

from lab.config import TrainConfig
from lab.errors import ConfigError, Conflict
from lab.jobs.configs import EvaluateConfig
from lab.jobs.store import Store

_WITHOUT_PHYSICS = ("identity", "identity_clamped")


def evaluated_training(config: EvaluateConfig, store: Store) -> TrainConfig:
    """Return the config of the training whose network is to be tested.

    Raises UnknownName, ConfigError where it is no training, another system's, or one without
    physics, and Conflict where it has left no network.
    """
    record = store.job(config.job)
    if record.kind != "train":
        raise ConfigError(f"job: job '{config.job}' is a {record.kind} job: there is no network")
    like = TrainConfig.model_validate(record.config)
    if config.system not in ("", like.system):
        raise ConfigError(
            f"system: job '{config.job}' trained on '{like.system}', not on '{config.system}'"
        )
    if like.control in _WITHOUT_PHYSICS:
        raise ConfigError(f"job: job '{config.job}' trained with control '{like.control}'")
    if record.state != "succeeded":
        raise Conflict(f"job {config.job} has no trained network: it {record.standing}")
    return like
