"""A training that stops and goes on from a checkpoint ends as if it had never stopped."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import lab.onlookers
import lab.watching
from drivers.spec import Array
from lab.apparatus import Apparatus, open_apparatus
from lab.bench import open_bench
from lab.checkpoints import CheckpointFolder
from lab.config import CONTROLS, METHODS, TrainConfig
from lab.errors import CheckpointRefused, Stopped
from lab.measure import DeviceMeasure
from lab.micro_batches import AutoMicroBatches
from lab.pipeline import Pipeline
from lab.plant_run import plant_run
from lab.sentinels import SentinelSettings
from lab.train_result import TrainResult
from small_trainings import Interruption, Told, assert_equal, run, small, without_seconds

BENCH = Path(__file__).parents[2] / "bench.toml"


@pytest.fixture(scope="module")
def apparatus() -> Iterator[Apparatus]:
    with open_bench(BENCH) as bench:
        yield open_apparatus(bench, "optics", plant_run(bench, "optics"))


def in_parts(
    config: TrainConfig, apparatus: Apparatus, folder: Path, stops: list[int]
) -> tuple[TrainResult, Told]:
    """Train with a stop after each number of steps, everything but the files new in each part."""
    told: Told = []
    for steps in stops:
        checkpoints = CheckpointFolder(folder)
        with pytest.raises(Stopped):
            run(config, apparatus, told, stop=Interruption(steps), checkpoints=checkpoints)
        torch.manual_seed(steps)  # what another process would find there
    return run(config, apparatus, told, checkpoints=CheckpointFolder(folder)), told


def assert_goes_on(config: TrainConfig, apparatus: Apparatus, folder: Path) -> None:
    whole: Told = []
    expected = run(config, apparatus, whole)
    steps = expected.curve[-1].of
    stops = [random.randrange(steps // 2) for _ in range(2)]
    result, told = in_parts(config, apparatus, folder, stops)
    assert_equal(expected, result)
    assert without_seconds(told) == without_seconds(whole), stops


@pytest.mark.parametrize("method", METHODS)
def test_every_method_goes_on(apparatus: Apparatus, tmp_path: Path, method: str) -> None:
    assert_goes_on(small(method=method), apparatus, tmp_path)


def test_a_split_step_goes_on(apparatus: Apparatus, tmp_path: Path) -> None:
    assert_goes_on(small(method="pat-refit", micro_batches=3), apparatus, tmp_path)


def test_what_looks_on_goes_on(
    apparatus: Apparatus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Audits, of which two in a row may refit the twin, sentinels that are armed, checks."""
    monkeypatch.setattr(lab.onlookers, "audit_every", lambda config: 2)
    monkeypatch.setattr(lab.onlookers, "look_every", lambda config: 3)
    assert_goes_on(small(method="pat-refit", checks=5, warmup=4), apparatus, tmp_path)


def test_a_change_of_the_device_is_told_once(
    apparatus: Apparatus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a limit so low that noise counts as a change; the sentinels are armed anew each time."""
    monkeypatch.setattr(lab.onlookers, "look_every", lambda config: 1)
    monkeypatch.setattr(lab.watching, "_SETTINGS", SentinelSettings(looks=3, slack=0, limit=2))
    assert len(run(small(), apparatus, []).drifts) > 1
    assert_goes_on(small(), apparatus, tmp_path)


@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_goes_on(apparatus: Apparatus, tmp_path: Path, control: str) -> None:
    method = "in-silico" if control == "output_refit" else "pat"
    assert_goes_on(small(method=method, control=control, epochs=3), apparatus, tmp_path)


class Broken(Exception):
    pass


class Breaking:
    """An apparatus on which the training fails in the middle of something, after so many rows."""

    def __init__(self, apparatus: Apparatus, rows: int) -> None:
        self.left, self._open = rows, apparatus.open_device
        self.apparatus = replace(apparatus, open_device=self._device)

    def _device(self, stream: int, first: int) -> DeviceMeasure:
        device = self._open(stream, first)
        run = device._run

        def execute(x: Array, *args: Any, **options: Any) -> Array:
            self.left -= len(x)
            if self.left < 0:
                raise Broken
            return run(x, *args, **options)

        execute.cancel, execute.hardware_s = run.cancel, run.hardware_s  # type: ignore[attr-defined]
        device._run = execute  # type: ignore[assignment]
        return device


@pytest.mark.parametrize("method", ["pat-refit", "spsa", "pepg", "phyll"])
def test_a_step_that_is_broken_off_is_done_again(
    apparatus: Apparatus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Whatever breaks off: a step, an audit, a look of the sentinels, a check, the test."""
    if method == "pat-refit":
        monkeypatch.setattr(lab.onlookers, "audit_every", lambda config: 4)
    monkeypatch.setattr(lab.onlookers, "look_every", lambda config: 3)
    config = small(method=method, checks=3, epochs=4)
    whole, told = [], []
    expected = run(config, apparatus, whole)
    rows = sum(expected.ledger.values()) + 40
    for _ in range(4):
        breaking = Breaking(apparatus, random.randrange(rows // 3))
        known = CheckpointFolder(tmp_path).newest()
        told = [t for t in told if t.step <= (known.step if known else 0)]
        try:
            run(config, breaking.apparatus, told, checkpoints=CheckpointFolder(tmp_path))
        except Broken:
            continue
        break
    known = CheckpointFolder(tmp_path).newest()
    told = [t for t in told if t.step <= (known.step if known else 0)]
    result = run(config, apparatus, told, checkpoints=CheckpointFolder(tmp_path))
    assert_equal(expected, result)
    assert without_seconds(told) == without_seconds(whole)


def test_a_full_disk_does_not_end_a_training(
    apparatus: Apparatus, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = tmp_path / "file"
    nowhere.touch()  # a folder cannot be made in it
    result = run(small(), apparatus, [], checkpoints=CheckpointFolder(nowhere / "job"))
    assert_equal(run(small(), apparatus, []), result)
    assert "could not be written" in caplog.text


def test_a_training_goes_on_from_before_a_damaged_checkpoint(
    apparatus: Apparatus, tmp_path: Path
) -> None:
    with pytest.raises(Stopped):
        run(small(), apparatus, [], stop=Interruption(6), checkpoints=CheckpointFolder(tmp_path))
    *_, newest = sorted(tmp_path.iterdir())
    newest.write_bytes(newest.read_bytes()[:-1])
    told: Told = []
    result = run(small(), apparatus, told, checkpoints=CheckpointFolder(tmp_path))
    assert_equal(run(small(), apparatus, []), result)
    assert told[0].step == 6  # told again: the newest good checkpoint is of step 5


def test_a_checkpoint_of_another_config_is_refused(apparatus: Apparatus, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(small(), apparatus, [], stop=Interruption(2), checkpoints=CheckpointFolder(tmp_path))
    with pytest.raises(CheckpointRefused, match=r"another config\.batch, config\.seed, data$"):
        run(small(seed=1, batch=4), apparatus, [], checkpoints=CheckpointFolder(tmp_path))
    other = small(priority=3, checkpoint_s=7)
    assert run(other, apparatus, [], checkpoints=CheckpointFolder(tmp_path)).curve


def test_the_number_of_torch_threads_is_taken_over_and_given_back(
    apparatus: Apparatus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Stopped):
        run(small(), apparatus, [], stop=Interruption(2), checkpoints=CheckpointFolder(tmp_path))
    before, during = torch.get_num_threads(), []
    torch.set_num_threads(before + 1)
    try:
        note = lambda: during.append(torch.get_num_threads()) or False  # noqa: E731
        run(small(), apparatus, [], stop=note, checkpoints=CheckpointFolder(tmp_path))
        assert set(during) == {before}
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_a_chosen_number_of_micro_batches_is_not_chosen_again() -> None:
    measured = AutoMicroBatches(lambda: 0.0)
    pipeline = Pipeline(torch.nn.Linear(1, 1), lambda share: None, measured)  # type: ignore[arg-type, return-value]
    assert pipeline.state_dict() == {"micro_batches": None}
    pipeline.load_state_dict({"micro_batches": None})
    assert not measured.decided
    pipeline.load_state_dict({"micro_batches": 4})
    assert measured.decided
    assert pipeline.micro_batches == 4
    assert pipeline.state_dict() == {"micro_batches": 4}
