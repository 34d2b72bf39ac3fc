"""A trained network is tested again on its device, and compared with what its job found."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from lab.apparatus import Apparatus, open_apparatus
from lab.bench import open_bench
from lab.config import TrainConfig
from lab.datasets import Dataset
from lab.errors import ConfigError, Stopped
from lab.jobs.configs import EvaluateConfig
from lab.measure import DeviceMeasure
from lab.retest import Trained, evaluate, rows_to_evaluate
from lab.trainer import train
from lab.twins import FittedTwin
from small_networks import BENCH, optics
from twins.base import frozen
from twins.fitting import TwinError
from twins.optics import OpticsTwin


def blobs(classes: tuple[str, ...] = ("a", "b", "c")) -> Dataset:
    features = np.random.default_rng(0).random((90, 4))
    return Dataset("blobs", features, np.argmax(features[:, :3], axis=1), classes, None, "made up")


CONFIG = TrainConfig.model_validate(
    {"method": "pat", "epochs": 3, "audit": False, "sentinels": False, "network": {"layers": 2}}
)


def trained_on(apparatus: Apparatus, config: TrainConfig = CONFIG) -> Trained:
    error = TwinError(r2=0.5, normalised=0.3, shape_r2=0.4)
    fitted = FittedTwin(OpticsTwin(), "structured", "optics", 0, 120, 220, 0.0, error, None)
    result = train(config, blobs(), fitted, apparatus)
    twin = OpticsTwin()
    twin.load_state_dict(result.twin_state)
    return Trained(
        "job7", config, result.classes, result.network_state, frozen(twin), result.as_dict()
    )


@pytest.fixture(scope="module")
def quiet() -> Iterator[tuple[Apparatus, Trained]]:
    """A device without noise or drift, and a network trained on it."""
    with optics(noise=0.0) as apparatus:
        yield apparatus, trained_on(apparatus)


@contextmanager
def watched(apparatus: Apparatus) -> Iterator[tuple[Apparatus, list[Any]]]:
    keys: list[Any] = []

    class Watched(DeviceMeasure):
        def __call__(self, x: Any, theta: Any) -> Any:
            y = super().__call__(x, theta)
            keys.extend(self.last_keys)
            return y

    def open_device(stream: int, first: int) -> DeviceMeasure:
        device = apparatus.open_device(stream, first)
        return Watched(device.description, device._run, stream=stream, first_row=first)

    yield Apparatus(apparatus.description, open_device, apparatus.open_oracle), keys


def test_an_unchanged_device_gives_what_the_job_found(quiet: tuple[Apparatus, Trained]) -> None:
    apparatus, trained = quiet
    found = evaluate(EvaluateConfig(job="job7"), trained, blobs(), apparatus)
    assert found.accuracy == found.then == trained.result["test_accuracy"]
    assert found.change == 0
    assert found.confusion == found.confusion_then
    assert found.twin_error == pytest.approx(found.twin_error_then, rel=0.01)  # it drifts
    assert found.clamped_fraction == pytest.approx(trained.result["clamped_fraction"])
    assert found.samples == np.sum(found.confusion)
    expected = rows_to_evaluate(EvaluateConfig(job="job7"), CONFIG, blobs())
    assert found.rows == expected == 2 * found.samples
    parts = sum(part.samples * part.accuracy for part in found.parts)
    assert parts / found.samples == pytest.approx(found.accuracy)


def test_another_specimen_of_the_device_is_told(quiet: tuple[Apparatus, Trained]) -> None:
    """The twin, and so the gradient, no longer fits: the network meets a device it never saw."""
    _, trained = quiet
    before = BENCH.rigs["optics"].device_seed
    with optics_of(device_seed=before + 1, noise=0.0) as other:
        found = evaluate(EvaluateConfig(job="job7"), trained, blobs(), other)
    assert found.twin_error != pytest.approx(found.twin_error_then, rel=0.01)
    assert found.change == found.accuracy - found.then
    assert found.standard_error == pytest.approx(
        (found.accuracy * (1 - found.accuracy) / found.samples) ** 0.5
    )


@contextmanager
def optics_of(**rig: Any) -> Iterator[Apparatus]:
    changed = BENCH.rigs["optics"].model_copy(update=rig)
    with open_bench(BENCH.model_copy(update={"rigs": {"optics": changed}})) as bench:
        yield open_apparatus(bench, "optics")


def test_rows_have_keys_of_their_own_after_the_training(quiet: tuple[Apparatus, Trained]) -> None:
    apparatus, trained = quiet
    last_row = trained.result["rows"] + trained.result["test_rows"]
    row_s = apparatus.description.row_time_s
    taken = set()
    for seed in (0, 1):
        with watched(apparatus) as (seen, keys):
            config = EvaluateConfig(job="job7", seed=seed, wait_s=1000, samples=10)
            found = evaluate(config, trained, blobs(), seen)
        assert [key.index for key in keys] == list(range(last_row, last_row + 20))
        assert keys[0].time_s == pytest.approx(last_row * row_s + 1000)
        assert found.parts[0].time_s == keys[0].time_s
        taken.add(keys[0].stream)
    # a training's, a fit's, its onlookers' and a calibration's streams lie below
    assert len(taken) == 2
    assert min(taken) >= 1 << 62
    assert max(taken) < 1 << 63


def test_the_same_config_gives_the_same_result() -> None:
    with optics(noise=1.0) as apparatus:
        trained = trained_on(apparatus)
        config = EvaluateConfig(job="job7", samples=12)
        first, second = (evaluate(config, trained, blobs(), apparatus).as_dict() for _ in range(2))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    assert first["samples"] == 12


def test_a_test_is_spread_over_a_span(quiet: tuple[Apparatus, Trained]) -> None:
    apparatus, trained = quiet
    config = EvaluateConfig(job="job7", span_s=5000)
    times = [part.time_s for part in evaluate(config, trained, blobs(), apparatus).parts]
    assert np.diff(times) == pytest.approx(500, rel=1e-6)


def test_parts_are_told_and_a_stop_ends_them(quiet: tuple[Apparatus, Trained]) -> None:
    apparatus, trained = quiet
    told: list[dict[str, Any]] = []
    with pytest.raises(Stopped, match="stopped after 6 of 29 samples"):
        evaluate(
            EvaluateConfig(job="job7"),
            trained,
            blobs(),
            apparatus,
            on_metric=told.append,
            stop=lambda: len(told) == 2,
        )
    assert [(m["kind"], m["done"], m["of"]) for m in told] == [("part", 3, 29), ("part", 6, 29)]


def test_more_samples_than_there_are_are_refused(quiet: tuple[Apparatus, Trained]) -> None:
    apparatus, trained = quiet
    with pytest.raises(ConfigError, match="1000 of the 29 test samples of job job7"):
        evaluate(EvaluateConfig(job="job7", samples=1000), trained, blobs(), apparatus)


def test_data_of_other_classes_are_refused(quiet: tuple[Apparatus, Trained]) -> None:
    apparatus, trained = quiet
    with pytest.raises(ConfigError, match="tells a, b, c, the data set 'blobs' has x, y, z"):
        evaluate(EvaluateConfig(job="job7"), trained, blobs(("x", "y", "z")), apparatus)
