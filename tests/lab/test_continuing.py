"""A training goes on from a checkpoint with other epochs, rows or learning rates."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lab.onlookers
import lab.trainer
from lab.apparatus import Apparatus, open_apparatus
from lab.bench import open_bench
from lab.budget import budget, split_for
from lab.checkpoints import Checkpoint, CheckpointFolder
from lab.config import TrainConfig
from lab.continuing import set_rates
from lab.errors import CheckpointRefused, ConfigError, Stopped
from lab.models import PhysicalNetwork
from lab.optimiser import optimiser_for, schedule_for
from lab.plant_run import plant_run
from lab.train_result import EpochMetric, TrainResult
from small_trainings import (
    Interruption,
    Told,
    assert_equal,
    blobs,
    run,
    small,
    without_seconds,
)

BENCH = Path(__file__).parents[2] / "bench.toml"
BEFORE, AFTER, A_STEP = 4, 8, 3  # epochs; steps of one
Rates = list[list[float]]


@pytest.fixture(scope="module")
def apparatus() -> Iterator[Apparatus]:
    with open_bench(BENCH) as bench:
        yield open_apparatus(bench, "optics", plant_run(bench, "optics"))


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> Rates:
    """Note the learning rates with which each step of a training is taken."""
    noted: Rates = []
    step = lab.trainer._Run._step

    def noting(self: Any) -> None:
        noted.append([group["lr"] for group in self.optimiser.param_groups])
        step(self)

    monkeypatch.setattr(lab.trainer._Run, "_step", noting)
    return noted


def plain(**changes: Any) -> TrainConfig:
    return small(method="pat", audit=False, sentinels=False, **{"epochs": BEFORE, **changes})


def stopped(config: TrainConfig, apparatus: Apparatus, folder: Path, after: int) -> Told:
    """Train and stop after so many steps; return what was told."""
    told: Told = []
    checkpoints = CheckpointFolder(folder)
    with pytest.raises(Stopped):
        run(config, apparatus, told, stop=Interruption(after), checkpoints=checkpoints)
    return told


def gone_on(
    config: TrainConfig, apparatus: Apparatus, folder: Path, told: Told | None = None
) -> TrainResult:
    checkpoints = CheckpointFolder(folder)
    return run(config, apparatus, [] if told is None else told, checkpoints=checkpoints)


def costs(config: TrainConfig) -> Any:
    return budget(config, split_for(config, blobs()))


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": AFTER},
        {"epochs": 3},
        {"rate_theta": 0.2},
        {"rate_digital": 0.001, "epochs": AFTER, "warmup": 10},
        {"rows": 500},
    ],
)
def test_later_steps_have_the_rates_of_the_new_config(
    apparatus: Apparatus, tmp_path: Path, rates: Rates, changes: dict[str, Any]
) -> None:
    before = plain(warmup=changes.get("warmup", 0))
    after = plain(**changes)
    run(before, apparatus, [])
    run(after, apparatus, [])
    of_before, of_after = rates[: BEFORE * A_STEP], rates[BEFORE * A_STEP :]
    rates.clear()
    stopped(before, apparatus, tmp_path, 5)
    gone_on(after, apparatus, tmp_path)
    assert rates == of_before[:5] + of_after[5:]
    assert of_before[5:] != of_after[5:]


def test_it_goes_on_without_a_gap_to_the_new_number_of_epochs(
    apparatus: Apparatus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[int, int]] = []

    def open_device(stream: int, first: int) -> Any:
        opened.append((stream, first))
        return apparatus.open_device(stream, first)

    told = stopped(plain(), apparatus, tmp_path, 7)
    after = plain(epochs=AFTER)
    noting = replace(apparatus, open_device=open_device)
    result = gone_on(after, noting, tmp_path, told)
    points = [t for t in told if isinstance(t, EpochMetric)]
    assert without_seconds(list(result.curve)) == without_seconds(told)
    assert [p.step for p in points] == [A_STEP * n for n in range(1, AFTER + 1)]
    assert [p.epoch for p in points] == list(range(1, AFTER + 1))
    assert [p.of for p in points] == [BEFORE * A_STEP] * 2 + [AFTER * A_STEP] * (AFTER - 2)
    expected = costs(after)
    assert result.ledger["training"] == expected.training
    assert result.rows == expected.initial + expected.training
    assert sum(result.ledger.values()) == expected.planned + expected.test
    assert opened[-1] == (after.seed, expected.planned)  # the test's rows come after all others


def test_what_was_changed_once_stays_changed(apparatus: Apparatus, tmp_path: Path) -> None:
    """A second stop changes nothing: bit for bit."""
    after = plain(epochs=AFTER, rate_theta=0.1)
    for name in ("a", "b"):
        stopped(plain(), apparatus, tmp_path / name, 5)
    expected = gone_on(after, apparatus, tmp_path / "a")
    stopped(after, apparatus, tmp_path / "b", 6)
    assert_equal(expected, gone_on(after, apparatus, tmp_path / "b"))
    whole = run(after, apparatus, [])
    assert any(
        not torch.equal(expected.network_state[name], whole.network_state[name])
        for name in whole.network_state
    )


def test_what_looks_on_is_due_once_and_as_in_a_run_of_the_new_length(
    apparatus: Apparatus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab.onlookers, "audit_every", lambda config: 4)
    monkeypatch.setattr(lab.onlookers, "look_every", lambda config: 3)
    before = small(method="pat", checks=4, epochs=4)
    after = before.model_copy(update={"epochs": 6})
    whole = run(after, apparatus, [])
    an_epoch = whole.curve[-1].of // 6
    taken = 2 * an_epoch + 1
    checked = [c.step for c in run(before, apparatus, []).checks if c.step <= taken]
    stopped(before, apparatus, tmp_path, taken)
    result = gone_on(after, apparatus, tmp_path)
    checked += [c.step for c in whole.checks if c.step > taken]
    assert [c.step for c in result.checks] == checked
    assert [a.step for a in result.audits] == [a.step for a in whole.audits]
    looked = ("audits", "sentinels")
    assert [result.ledger[n] for n in looked] == [whole.ledger[n] for n in looked]
    rows = len(split_for(after, blobs()).validation_idx) * after.rows_a_sample
    assert result.ledger["checks"] == len(checked) * rows


def test_fewer_epochs_than_it_has_had_are_refused_and_it_stays_as_it_was(
    apparatus: Apparatus, tmp_path: Path
) -> None:
    stopped(plain(), apparatus, tmp_path, 7)
    kept = sorted(tmp_path.iterdir())
    with pytest.raises(ConfigError, match=r"epochs: 2 epochs are 6 steps .* taken 7 already"):
        gone_on(plain(epochs=2), apparatus, tmp_path)
    with pytest.raises(ConfigError, match=r"rows: 50 measured rows are 3 steps .* taken 7"):
        gone_on(plain(rows=50), apparatus, tmp_path)
    assert sorted(tmp_path.iterdir()) == kept
    assert_equal(run(plain(), apparatus, []), gone_on(plain(), apparatus, tmp_path))


def test_as_many_epochs_as_it_has_had_end_the_training(
    apparatus: Apparatus, tmp_path: Path
) -> None:
    told = stopped(plain(), apparatus, tmp_path, 2 * A_STEP)
    result = gone_on(plain(epochs=2), apparatus, tmp_path, told)
    assert [point.step for point in result.curve] == [A_STEP, 2 * A_STEP]
    assert len(told) == 2
    assert result.ledger["training"] == costs(plain(epochs=2)).training


def retold(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what the newest checkpoint tells of its run's config, as another version would."""
    checkpoints = CheckpointFolder(folder)
    known = checkpoints.newest()
    assert isinstance(known, Checkpoint)
    about: dict[str, Any] = {**known.about, "config": dict(known.about["config"])}
    change(about["config"])
    checkpoints.clear()
    checkpoints.keep(known.step, about, known.state)


def test_a_checkpoint_from_before_there_was_a_key_has_its_default(
    apparatus: Apparatus, tmp_path: Path
) -> None:
    config = small(method="pat")
    stopped(config, apparatus, tmp_path, 5)

    def older(told: dict[str, Any]) -> None:
        del told["audit"]
        told["network"] = {k: v for k, v in told["network"].items() if k != "parallel"}

    retold(tmp_path, older)
    with pytest.raises(CheckpointRefused, match=r"another config\.audit$"):
        gone_on(config.model_copy(update={"audit": False}), apparatus, tmp_path)
    assert_equal(run(config, apparatus, []), gone_on(config, apparatus, tmp_path))


def test_a_checkpoint_with_a_key_that_there_is_no_more_is_refused(
    apparatus: Apparatus, tmp_path: Path
) -> None:
    stopped(plain(), apparatus, tmp_path, 5)
    retold(tmp_path, lambda told: told.update(momentum=0.9))
    with pytest.raises(CheckpointRefused, match=r"another config\.\S+"):
        gone_on(plain(), apparatus, tmp_path)


def of_two_kinds() -> PhysicalNetwork:
    """Return what the optimiser sees of a network: a physical and a digital parameter."""
    network = torch.nn.Module()
    network.physical_parameters = lambda: [theta]  # type: ignore[assignment]
    network.digital_parameters = lambda: [weight]  # type: ignore[assignment]
    network.decays = lambda: []  # type: ignore[assignment]
    theta, weight = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))
    return network  # type: ignore[return-value]


@given(
    before=st.integers(1, 60),
    after=st.integers(1, 60),
    share=st.floats(0, 1),
    warmup=st.integers(0, 20),
    rate=st.floats(1e-4, 1),
)
def test_rates_are_those_of_a_run_that_had_them_from_the_start(
    before: int, after: int, share: float, warmup: int, rate: float
) -> None:
    taken = int(share * min(before, after))
    network = of_two_kinds()
    first = plain(warmup=warmup)
    second = plain(warmup=warmup, rate_theta=rate)
    optimiser = optimiser_for(first, network)
    schedule = schedule_for(optimiser, before, warmup)
    for _ in range(taken):
        optimiser.step()
        schedule.step()
    states = optimiser.state_dict(), schedule.state_dict()
    optimiser = optimiser_for(second, network)
    schedule = schedule_for(optimiser, after, warmup)
    optimiser.load_state_dict(states[0])
    schedule.load_state_dict(states[1])
    set_rates(optimiser, schedule, second, network, steps=after, taken=taken)
    for step in range(taken, after):
        rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
        expected = rise * (1 + math.cos(math.pi * step / after)) / 2
        theta, weight = (group["lr"] for group in optimiser.param_groups)
        assert theta == pytest.approx(second.rate_theta * expected, abs=1e-9)
        assert weight == pytest.approx(second.rate_digital * expected, abs=1e-9)
        optimiser.step()
        schedule.step()
