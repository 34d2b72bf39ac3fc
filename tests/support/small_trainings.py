"""Trainings of 20 samples, whole and in parts, and what they tell."""

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from lab.apparatus import Apparatus
from lab.config import TrainConfig
from lab.datasets import Dataset
from lab.network_config import Linear, NetworkConfig
from lab.onlookers import Event
from lab.train_result import EpochMetric, TrainResult
from lab.trainer import train
from lab.twins import FittedTwin
from twins.fitting import TwinError
from twins.optics import OpticsTwin

EPOCHS = 7
Told = list[EpochMetric | Event]


@functools.cache
def blobs() -> Dataset:
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    features = np.clip(0.2 + 0.3 * labels[:, None] + 0.05 * rng.standard_normal((30, 4)), 0, 1)
    return Dataset("blobs", features, labels, ("a", "b", "c"), None, "generated")


def fitted() -> FittedTwin:
    error = TwinError(r2=0.5, normalised=0.3, shape_r2=0.4)
    return FittedTwin(OpticsTwin(), "structured", "optics", 0, 0, 0, 0.0, error, None)


def small(**changes: object) -> TrainConfig:
    """20 samples in batches of 8: three steps an epoch, the last one smaller."""
    network = NetworkConfig(layers=2, after=(Linear(),))
    values = {"epochs": EPOCHS, "batch": 8, "network": network, "checkpoint_s": 0, **changes}
    return TrainConfig.model_validate(values)


class Interruption:
    """Stop a run when it has been asked so many times."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def run(config: TrainConfig, apparatus: Apparatus, told: Told, **options: Any) -> TrainResult:
    tell = told.append
    return train(config, blobs(), fitted(), apparatus, on_metric=tell, on_event=tell, **options)


def without_seconds(told: Told) -> Told:
    return [replace(t, seconds=0.0) if isinstance(t, EpochMetric) else t for t in told]


def assert_equal(a: TrainResult, b: TrainResult) -> None:
    for state in ("network_state", "twin_state"):
        ours, others = getattr(a, state), getattr(b, state)
        assert ours.keys() == others.keys()
        assert all(torch.equal(ours[name], others[name]) for name in ours), state
    plain = [
        r.as_dict() | {"seconds": 0.0, "curve": without_seconds(list(r.curve))} for r in (a, b)
    ]
    assert plain[0] == plain[1]
