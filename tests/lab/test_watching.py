"""Sentinels in training: a device that changes is told, and the training goes on as it was."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lab.apparatus import open_apparatus
from lab.bench import open_bench
from lab.bench_config import load_bench
from lab.config import TrainConfig
from lab.datasets import Dataset
from lab.network_config import NetworkConfig
from lab.plant_run import plant_run
from lab.rigs import with_rigs
from lab.train_result import TrainResult
from lab.trainer import train
from lab.twins import FittedTwin
from lab.watching import ARMING_ROWS, ROWS, DriftPoint, look_every, rows_of_watch
from twins.fitting import TwinError
from twins.optics import OpticsTwin

BENCH = load_bench(Path(__file__).parents[2] / "bench.toml")
CONFIG = TrainConfig(
    method="pat", epochs=20, batch=4, audit=False, path="plant", network=NetworkConfig(layers=1)
)


def blobs(rows: int = 40) -> Dataset:
    rng = np.random.default_rng(0)
    labels = np.arange(rows) % 2
    features = np.clip(0.3 + 0.3 * labels[:, None] + 0.1 * rng.standard_normal((rows, 4)), 0, 1)
    return Dataset("blobs", features, labels, ("a", "b"), None, "generated")


def run(config: TrainConfig, drift_per_hour: float) -> tuple[TrainResult, list[DriftPoint]]:
    heard: list[DriftPoint] = []
    error = TwinError(r2=0.5, normalised=0.3, shape_r2=0.4)
    fitted = FittedTwin(OpticsTwin(), "structured", "optics", 0, 0, 0, 0.0, error, None)
    with open_bench(with_rigs(BENCH, drift_per_hour=drift_per_hour)) as bench:
        apparatus = open_apparatus(bench, "optics", plant_run(bench, "optics"))
        return train(config, blobs(), fitted, apparatus, on_event=heard.append), heard


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.onlookers.look_every", lambda c: 4 if c.sentinels else None)


def test_a_drift_is_told_and_a_quiet_device_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet, nothing = run(CONFIG, 0.0)
    drifting, events = run(CONFIG, 1.0)  # of the range an hour; the run takes a quarter of one
    assert nothing == [] == quiet.drifts
    assert events
    assert drifting.drifts == events
    looks = (quiet.curve[-1].of - 1) // 4 - 1  # the first only arms
    assert quiet.ledger["sentinels"] == ARMING_ROWS + looks * ROWS
    assert drifting.ledger["sentinels"] > quiet.ledger["sentinels"]  # armed anew after an event
    monkeypatch.setattr("lab.watching.look_every", lambda c: 4)
    expected, at_most = rows_of_watch(CONFIG, quiet.curve[-1].of)
    assert quiet.ledger["sentinels"] == expected
    assert expected < drifting.ledger["sentinels"] <= at_most


def test_sentinels_leave_the_training_as_it_is() -> None:
    watched, _ = run(CONFIG, 1.0)
    alone, _ = run(CONFIG.model_copy(update={"sentinels": False}), 1.0)
    assert "sentinels" not in alone.ledger
    for name, value in alone.network_state.items():
        assert torch.equal(value, watched.network_state[name]), name


@pytest.mark.parametrize(
    ("changes", "watched"),
    [
        ({}, True),
        ({"method": "in-silico"}, False),
        ({"sentinels": False}, False),
        ({"control": "digital_only"}, False),
    ],
)
def test_only_training_on_the_device_is_watched(changes: dict[str, object], watched: bool) -> None:
    config = TrainConfig.model_validate(changes)
    assert (look_every(config) is not None) == watched


def test_looks_cost_at_most_1_percent_of_an_mnist_runs_rows() -> None:
    every = look_every(TrainConfig.model_validate({"batch": 100, "network": {"parallel": 7}}))
    assert every is not None
    assert 0.01 * every * 100 * 35 >= ROWS
