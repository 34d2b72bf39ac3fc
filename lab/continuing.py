"""A training goes on from a checkpoint with another length or other learning rates.

The rates are then those of the new config at the step where the training stands, as if it had had
them from the start; what the optimiser has learned, the order of the samples and all that was
chosen once per run (micro-batches, threads, the split, the rows' keys) stay.
"""

from collections.abc import Mapping
from typing import Any

import torch

from lab.config import TrainConfig
from lab.errors import ConfigError
from lab.models import PhysicalNetwork
from lab.optimiser import optimiser_for, schedule_for

# Nothing that is measured depends on these,
_NO_MATTER = {"priority", "deadline_s", "checkpoint_s"}
# and only what is measured later on these.
CHANGEABLE = {"epochs", "rows", "rate_theta", "rate_digital"}


def told(config: TrainConfig) -> dict[str, Any]:
    """Return what a checkpoint tells of its run's config."""
    return config.model_dump(mode="json", exclude=_NO_MATTER)


def comparable(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint tells of its run, but for what may differ in one that goes on.

    What the config does not have, as it was written before there was such a key, has its default.
    """
    return {**about, "config": _comparable(about.get("config"))}


def _comparable(config: Any) -> Any:
    try:
        whole = TrainConfig.model_validate(config)
    except ValueError:
        return config  # of a version that had other keys: the difference is to be seen
    return whole.model_dump(mode="json", exclude=_NO_MATTER | CHANGEABLE)


def changes(about: Mapping[str, Any], config: TrainConfig) -> set[str]:
    """Return which keys have changed since a checkpoint, which is of a comparable run."""
    before = TrainConfig.model_validate(about["config"])
    return {name for name in CHANGEABLE if getattr(before, name) != getattr(config, name)}


def refuse_passed(config: TrainConfig, taken: int, steps: int) -> None:
    """Raise ConfigError where a run has taken more steps than the config's, which are `steps`."""
    if taken > steps:
        name, unit = ("epochs", "epochs") if config.rows is None else ("rows", "measured rows")
        raise ConfigError(
            f"{name}: {getattr(config, name)} {unit} are {steps} steps of training, and it has "
            f"taken {taken} already"
        )


def set_rates(
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    config: TrainConfig,
    network: PhysicalNetwork,
    *,
    steps: int,
    taken: int,
) -> None:
    """Give both the rates of a run with this config, of `steps` steps, after `taken` of them."""
    other = optimiser_for(config, network)
    course = schedule_for(other, steps, config.warmup)
    if taken:
        other.step()  # of parameters without a gradient: nothing happens, but torch wants it first
    for _ in range(taken):  # the cosine is computed step by step: so to the same bits
        course.step()
    for group, wanted in zip(optimiser.param_groups, other.param_groups, strict=True):
        group["lr"], group["initial_lr"] = wanted["lr"], wanted["initial_lr"]
    schedule.load_state_dict(course.state_dict())
