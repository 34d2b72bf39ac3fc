"""Every method measures what its budget says, and counts a twin only where it uses one."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lab.apparatus import Apparatus, open_apparatus
from lab.bench import open_bench
from lab.budget import budget, split_for
from lab.config import METHODS, TWIN_FREE_METHODS, Method, TrainConfig
from lab.datasets import Dataset
from lab.errors import ConfigError
from lab.network_config import Linear, NetworkConfig
from lab.plant_run import plant_run
from lab.trainer import train
from lab.twins import FittedTwin, task_drives
from twins.fitting import TwinError
from twins.optics import OpticsTwin

BENCH = Path(__file__).parents[3] / "bench.toml"
MIXED = NetworkConfig(layers=2, after=(Linear(),))
TWIN_ROWS = 77


@pytest.fixture(scope="module")  # noise follows the rows' keys: runs do not touch each other
def apparatus() -> Iterator[Apparatus]:
    with open_bench(BENCH) as bench:
        yield open_apparatus(bench, "optics", plant_run(bench, "optics"))


def blobs(rows: int = 24) -> Dataset:
    rng = np.random.default_rng(0)
    labels = np.arange(rows) % 3
    features = np.clip(0.2 + 0.3 * labels[:, None] + 0.05 * rng.standard_normal((rows, 4)), 0, 1)
    return Dataset("blobs", features, labels, ("a", "b", "c"), None, "generated")


def fitted() -> FittedTwin:
    error = TwinError(r2=0.5, normalised=0.3, shape_r2=0.4)
    return FittedTwin(OpticsTwin(), "structured", "optics", 0, 0, TWIN_ROWS, 0.0, error, None)


def config(method: Method, **changes: object) -> TrainConfig:
    values = {"method": method, "epochs": 1, "batch": 12, "network": MIXED, "checks": 1, **changes}
    return TrainConfig.model_validate(values)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rows", [None, 300])
def test_rows_measured_are_the_budgets(
    apparatus: Apparatus, method: Method, rows: int | None
) -> None:
    asked, dataset = config(method, rows=rows), blobs()
    result = train(asked, dataset, fitted(), apparatus)
    costs = budget(asked, split_for(asked, dataset))
    assert result.ledger["initialisation"] == costs.initial
    assert result.ledger["training"] == costs.training
    assert result.ledger["checks"] == costs.checks
    assert result.ledger["twin"] == (0 if method in TWIN_FREE_METHODS else TWIN_ROWS)
    assert result.micro_batches == 1 or method in ("pat", "pat-refit", "ideal")


@pytest.mark.parametrize("method", ["spsa", "pepg", "phyll", "dfa", "pat-sharpness"])
def test_runs_follow_from_their_seed(apparatus: Apparatus, method: Method) -> None:
    states = [
        train(config(method, seed=seed), blobs(), fitted(), apparatus).network_state
        for seed in (0, 0)
    ]
    assert all(bool((value == states[1][name]).all()) for name, value in states[0].items())


def test_a_method_that_cannot_train_the_network_says_so(apparatus: Apparatus) -> None:
    asked = config("phyll", network=NetworkConfig(layers=2))
    with pytest.raises(ConfigError, match="'phyll' trains digital matrices"):
        train(asked, blobs(), fitted(), apparatus)


def test_drives_for_a_twin_hold_the_labels_place(apparatus: Apparatus) -> None:
    x, _ = task_drives(config("phyll"), blobs(), apparatus.description)
    # 4 features and 3 labels in 50 channels: each seven times, one channel left
    assert x[0, 28:49].tolist() == pytest.approx([1 / 3] * 21)
