"""What works for each system and task: the settings that a training config leaves open.

A recipe is a part of a training config; what the user sets wins, key by key. Where none stands
here, the config's own defaults hold: those of the vowels on the optical bench. Found on validation
rows only; docs/results.md says how.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from lab.config import TrainConfig
from lab.errors import ConfigError
from lab.jobs.records import FitConfig
from lab.network_config import (
    Linear,
    NetworkConfig,
    Permute,
    Rescale,
    Series,
    Skip,
    Standardise,
    Windows,
)

_SERIES = NetworkConfig(
    layers=3,
    parallel=7,
    theta="normal",
    signed=True,
    first=Series(),
    before=(Rescale(start="signs", spread=0.5),),
    after=(
        Standardise(by="pass", spread=0.8),
        Skip(of="layer", share=0.5, trained=True),
        Permute(),
    ),
    last=(Standardise(by="pass"), Windows(margin=0, weighted=True)),
)
_HYBRID = NetworkConfig(
    layers=1,
    parallel=4,
    theta="data",
    first=Linear(mean=0.39, spread=0.15, decay=0.5),
    before=(),
    after=(),
    last=(Standardise(by="channel"), Linear(decay=0.05)),
)
_ON_SERIES: dict[str, Any] = {
    "network": _SERIES.model_dump(),
    "epochs": 2,
    "batch": 100,
    "warmup": 30,
    "rate_theta": 0.02,
    "rate_digital": 0.02,
    "penalty": 4.0,
    "initial_rows": 500,
}
_HYBRID_SETTINGS: dict[str, Any] = {
    "network": _HYBRID.model_dump(),
    "epochs": 8,
    "batch": 100,
    "warmup": 100,
    "rate_digital": 0.003,
    "penalty": 50.0,
    "initial_rows": 1000,
}
_DRIFT_PERIOD_S = {"circuit": 1000.0, "plate": 10_000.0}
_MNIST = ("mnist", "mnist28")
_IMAGES = ("mnist", "mnist28", "digits")
_QUICK: dict[str, dict[str, Any]] = {"optics": {"epochs": 8}, "plate": {"epochs": 4}}
_TWINS: dict[str, dict[str, Any]] = {
    "plate": {"kind": "structured", "rows": 3000},
    "circuit": {"kind": "filter", "rows": 16000},
}


def recipe(family: str, task: str) -> dict[str, Any]:
    """Return the settings for a kind of system (its name in SYSTEMS) and a task."""
    settings: dict[str, Any] = {}
    if family in ("plate", "circuit"):
        settings = {**_ON_SERIES, "test_span_s": _DRIFT_PERIOD_S[family]}
        if task not in _IMAGES:
            settings |= {"epochs": 60, "batch": 32}
    elif family == "optics" and task in _MNIST:
        settings = dict(_HYBRID_SETTINGS)
    if family in _TWINS:
        settings["twin"] = _TWINS[family]
    return settings


def quick(family: str, task: str) -> dict[str, Any]:
    """Return what a quick run changes: minutes on two cores, figures of its own."""
    if task not in _MNIST:
        return {"epochs": 30} if family == "optics" else {}
    return {"train_images": 6000, "test_images": 2000, **_QUICK.get(family, {})}


def is_possible(config: TrainConfig) -> bool:
    """Say whether a control makes sense: without physical parameters, none can be frozen."""
    parts = config.control in ("physics_only", "digital_only")
    return not (parts and config.network.theta == "data")


def measures_much(config: TrainConfig) -> bool:
    """Say whether a simulated system should rather be measured without driver and wire."""
    return config.network.theta == "data" and config.task in _MNIST


def completed(config: TrainConfig, family: str) -> TrainConfig:
    """Return the config with everything that it leaves open set by the recipe.

    Raises ConfigError where what is set does not go with the recipe's rest.
    """
    known = recipe(family, config.task)
    if config.quick:
        known = merged(known, quick(family, config.task))
    chosen = merged(known, config.model_dump(exclude_unset=True))
    try:
        return TrainConfig.model_validate(chosen)
    except ValidationError as error:
        reasons = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError("; ".join(reasons)) from error


def completed_fit(config: FitConfig, family: str) -> FitConfig:
    """Return the request of a twin with everything that it leaves open set by the recipe."""
    return FitConfig.model_validate(
        {**_TWINS.get(family, {}), **config.model_dump(exclude_unset=True)}
    )


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the fields of `over`, part by part; a stage is replaced whole."""
    both = dict(base)
    for key, value in over.items():
        known = both.get(key)
        if isinstance(known, Mapping) and isinstance(value, Mapping) and key != "first":
            value = merged(known, value)
        both[key] = value
    return both
