"""The rows that a run is said to take before it begins are those that it takes."""

from collections.abc import Iterator

import numpy as np
import pytest

from lab.apparatus import Apparatus
from lab.budget import budget, rows_to_measure, samples_of, split_for
from lab.config import METHODS, TWIN_FREE_METHODS, TrainConfig
from lab.datasets import Dataset, split
from lab.errors import ConfigError
from lab.measure import DeviceMeasure
from lab.network_config import NetworkConfig
from lab.trainer import train
from lab.twins import FittedTwin
from small_networks import optics
from twins.fitting import TwinError
from twins.optics import OpticsTwin


@pytest.fixture(scope="module")
def apparatus() -> Iterator[Apparatus]:
    with optics(noise=1.0) as opened:
        yield opened


def blobs(rows: int = 40) -> Dataset:
    features = np.random.default_rng(0).random((rows, 4))
    return Dataset("blobs", features, np.arange(rows) % 3, ("a", "b", "c"), None, "generated")


def config(**fields: object) -> TrainConfig:
    small = {"sentinels": False, "epochs": 2, "batch": 8, "initial_rows": 9, "method": "pat"}
    network = NetworkConfig(layers=2, parallel=2)
    return TrainConfig.model_validate({**small, "network": network, **fields})


@pytest.mark.parametrize("method", [m for m in METHODS if m != "phyll"])  # needs another network
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"rows": 300},
        {"checks": 3},
        {"rows": 300, "checks": 2, "micro_batches": 2},
        {"test_span_s": 50.0},
        {"holdout": "validation"},
        {"train_images": 11, "test_images": 5},
    ],
)
def test_as_many_rows_are_measured_as_are_said(
    apparatus: Apparatus, method: str, fields: dict[str, object]
) -> None:
    run = config(method=method, **fields)
    devices: list[DeviceMeasure] = []

    def open_device(stream: int, first_row: int) -> DeviceMeasure:
        devices.append(apparatus.open_device(stream, first_row))
        return devices[-1]

    error = TwinError(r2=0.5, normalised=0.3, shape_r2=0.4)
    twin = FittedTwin(OpticsTwin(), "structured", "optics", 0, 120, 220, 0.0, error, None)
    seen = Apparatus(apparatus.description, open_device, apparatus.open_oracle)
    result = train(run, blobs(), twin, seen)
    assert sum(device.rows for device in devices) == rows_to_measure(run, blobs())
    # and the ledger says what for, the twin's fit included
    twin_rows = 0 if method in TWIN_FREE_METHODS else 220
    assert sum(result.ledger.values()) == rows_to_measure(run, blobs()) + twin_rows
    assert result.ledger["initialisation"] + result.ledger["training"] == result.rows
    assert result.curve[-1].step == result.curve[-1].of


def test_equal_rows_are_as_many_for_every_network() -> None:
    parts = split_for(config(), blobs())
    for layers, parallel in ((1, 1), (2, 3), (5, 2)):
        network = NetworkConfig(layers=layers, parallel=parallel)
        costs = budget(config(rows=3000, network=network), parts)
        # as many whole steps as fit; the last batch of an epoch is smaller
        a_step = 8 * layers * parallel
        assert costs.steps == 3000 // a_step
        assert costs.training <= 3000
        assert (
            costs.training == samples_of(costs.steps, len(parts.train_idx), 8) * layers * parallel
        )


def test_methods_that_measure_nothing_take_as_many_steps() -> None:
    parts = split_for(config(), blobs())
    for fields in ({}, {"rows": 500}):
        pat, silico = (budget(config(method=m, **fields), parts) for m in ("pat", "in-silico"))
        assert silico.steps == pat.steps
        assert silico.planned == pat.planned == pat.initial + pat.training
        assert (silico.initial, silico.training) == (0, 0)


def test_a_budget_below_a_step_is_one_step() -> None:
    assert budget(config(rows=1), split_for(config(), blobs())).steps == 1


@pytest.mark.parametrize(("steps", "samples"), [(0, 0), (1, 8), (3, 24), (4, 27), (5, 35), (8, 54)])
def test_the_last_batch_of_an_epoch_may_be_smaller(steps: int, samples: int) -> None:
    assert samples_of(steps, 27, 8) == samples


def test_checks_leave_their_rows_out_of_the_training() -> None:
    whole = split(blobs(), "random", 0)
    parts = split_for(config(checks=1), blobs())
    assert not set(parts.train_idx) & set(whole.validation_idx)
    assert np.array_equal(parts.validation_idx, whole.validation_idx)
    assert np.array_equal(parts.test_idx, whole.test_idx)


def test_more_samples_than_there_are_are_refused() -> None:
    with pytest.raises(ConfigError, match="1000 training samples"):
        split_for(config(train_images=1000), blobs())
