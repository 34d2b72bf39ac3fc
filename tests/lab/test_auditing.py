"""Audits in a training run: they are shown and counted, and change nothing but a bad twin."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lab.apparatus import open_apparatus
from lab.auditing import AuditPoint, audit_every, rows_of_audit
from lab.bench import open_bench
from lab.budget import rows_to_measure
from lab.config import TrainConfig
from lab.datasets import Dataset
from lab.network_config import NetworkConfig
from lab.plant_run import plant_run
from lab.train_result import TrainResult
from lab.trainer import train
from lab.twins import FittedTwin
from twins.fitting import TwinError
from twins.optics import OpticsTwin

BENCH = Path(__file__).parents[2] / "bench.toml"
SIZES = {
    "sentinels": False,
    "epochs": 2,
    "batch": 8,
    "path": "plant",
    "network": NetworkConfig(layers=1),
}


def blobs(rows: int = 40) -> Dataset:
    rng = np.random.default_rng(0)
    labels = np.arange(rows) % 2
    features = np.clip(0.3 + 0.3 * labels[:, None] + 0.1 * rng.standard_normal((rows, 4)), 0, 1)
    return Dataset("blobs", features, labels, ("a", "b"), None, "generated")


def run(config: TrainConfig) -> tuple[TrainResult, list[AuditPoint]]:
    heard: list[AuditPoint] = []
    error = TwinError(r2=0.5, normalised=0.3, shape_r2=0.4)
    fitted = FittedTwin(OpticsTwin(), "structured", "optics", 0, 0, 0, 0.0, error, None)
    with open_bench(BENCH) as bench:
        apparatus = open_apparatus(bench, "optics", plant_run(bench, "optics"))
        return train(config, blobs(), fitted, apparatus, on_event=heard.append), heard


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Audit after every third step instead of once in two thousand."""
    for module in ("lab.onlookers", "lab.budget"):
        monkeypatch.setattr(f"{module}.audit_every", lambda c: 3 if c.audit else None)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("method", ["pat", "pat-refit"])
def test_an_audit_leaves_the_training_as_it_is(method: str) -> None:
    config = TrainConfig.model_validate({**SIZES, "method": method})
    audited, heard = run(config)
    plain, _ = run(config.model_copy(update={"audit": False}))
    steps = audited.curve[-1].of
    assert [point.step for point in heard] == list(range(3, steps, 3))
    assert audited.audits == heard
    assert all(-1 <= p.low <= p.cosine <= p.high <= 1 for p in heard)
    assert plain.audits == []
    if not any(point.refit for point in heard):
        for name, value in plain.network_state.items():
            assert torch.equal(value, audited.network_state[name]), name
    assert audited.ledger["audits"] > 0
    spent = sum(rows for purpose, rows in audited.ledger.items() if purpose != "twin")
    assert spent == rows_to_measure(config, blobs())


@pytest.mark.parametrize(
    ("changes", "audited"),
    [
        ({}, True),
        ({"method": "pat"}, True),
        ({"method": "in-silico"}, False),
        ({"method": "ideal"}, False),
        ({"audit": False}, False),
        ({"control": "digital_only"}, False),
    ],
)
def test_only_gradients_of_a_twin_on_the_device_are_audited(
    changes: dict[str, object], audited: bool
) -> None:
    config = TrainConfig.model_validate({"batch": 100, **changes})
    assert (audit_every(config) is not None) == audited


def test_audits_of_an_mnist_run_cost_at_most_2_percent_of_its_rows() -> None:
    config = TrainConfig.model_validate({"system": "plate", "task": "mnist", "batch": 100})
    every = audit_every(config)
    assert every is not None
    assert every <= 600  # one an epoch of 60,000 images, at least
    assert rows_of_audit(config) <= 0.02 * every * 100 * config.rows_a_sample
