"""Rows without driver and wire: bit for bit those of driver and wire, and as strict."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from drivers.errors import LimitError
from drivers.row_key import RowKey, row_keys
from drivers.spec import Array
from lab.apparatus import open_apparatus
from lab.bench import Bench, open_bench
from lab.bench_config import BenchConfig, load_bench
from lab.errors import PassCancelled, UnknownName
from lab.plant_run import PlantRun, plant_run
from lab.systems.optics import OpticsSystem

ROOT = Path(__file__).resolve().parents[2]
ROWS = 1000


def edited(**changes: Any) -> BenchConfig:
    """Return the optical bench file with other values: `part__name__key=value`."""
    data = load_bench(ROOT / "bench.toml").model_dump()
    for path, value in changes.items():
        *parents, last = path.split("__")
        part = data
        for name in parents:
            part = part.setdefault(name, {})
        part[last] = value
    return BenchConfig.model_validate(data)


@contextmanager
def both(config: BenchConfig) -> Iterator[tuple[OpticsSystem, PlantRun]]:
    """Open a bench and return its system, driver and all, and the short cut."""
    with open_bench(config) as bench:
        system = bench.system("optics")
        assert isinstance(system, OpticsSystem)
        yield system, plant_run(bench, "optics")


@dataclass(frozen=True)
class Case:
    """Rows to measure on both ways."""

    x: Array
    theta: Array
    keys: list[RowKey]


def case() -> Case:
    """Return a thousand rows: random, rails, dark, blocked, saturating; two streams, drift."""
    rng = np.random.default_rng(7)
    x, theta = rng.uniform(-0.5, 1.0, (2, ROWS, 50))
    for a in (x, theta):
        a[100:200] = rng.choice([-0.5, 1.0, 0.0, 0.01, -0.01], (100, 50))
        a[200:300] *= rng.choice([1.0, 0.02], (100, 50))  # many lines below the block at 0.01
        a[300:310] = 0.0
        a[310:320] = rng.uniform(-0.0099, 0.0099, (10, 50))  # all blocked: nothing but dark
        a[320:330] = 1.0
        a[330:340] = -0.5
        a[340:440] = np.abs(a[340:440])
        a[440:450] = 0.01 + np.arange(50) * 1e-9  # about the block's edge and the fourth decimal
    keys = row_keys(3, 10, 500, 0.75) + row_keys(2**62, 2**40, 500, 977.0)
    return Case(x, theta, [keys[i] for i in rng.permutation(ROWS)])


@pytest.mark.parametrize("gap", [0.0, 1.0, 3.0])
def test_rows_are_those_of_driver_and_wire_in_batches_of_any_size(gap: float) -> None:
    rows = case()
    with both(edited(rigs__optics__gap=gap, rigs__optics__seed=11)) as (system, run):
        wire = system.transform(rows.x, rows.theta, rows.keys)
        assert wire.saturated.any() == (gap == 0)  # the soft detector does not reach full scale
        for size in (1, 7, 100, ROWS):
            parts = [slice(i, i + size) for i in range(0, ROWS, size)]
            y = [run(rows.x[p], rows.theta[p], rows.keys[p]) for p in parts]
            assert np.array_equal(np.concatenate(y), wire.y)


@pytest.mark.parametrize(
    "changes",
    [
        # lines that miss the pixels: some at the edge stay dark, some pixels get two values
        {"instruments__shaper__settings__first_line_thz": 192.911},
        {"instruments__shaper__settings__first_line_thz": 192.950},
        {"instruments__spectrometer__settings__start_nm": 772.0},
        {"instruments__spectrometer__settings__full_scale_w": 4e-7},
        {"rigs__optics__noise": 0.0, "rigs__optics__device_seed": 4},
    ],
)
def test_the_benchs_settings_count_as_on_the_wire(changes: dict[str, Any]) -> None:
    rows = case()
    some = slice(150, 350)
    with both(edited(**changes)) as (system, run):
        wire = system.transform(rows.x[some], rows.theta[some], rows.keys[some]).y
        assert np.array_equal(run(rows.x[some], rows.theta[some], rows.keys[some]), wire)


def test_training_sees_the_same_normalised_outputs() -> None:
    x, theta = torch.rand(2, 30, 50, generator=torch.Generator().manual_seed(0))
    with open_bench(ROOT / "bench.toml") as bench:
        direct = bench.measure("optics", stream=5, first_row=3)
        quick = open_apparatus(bench, "optics", plant_run(bench, "optics")).open_device(5, 3)
        for _ in range(2):  # the second call has later keys
            assert torch.equal(quick(x, theta), direct(x, theta))
        assert quick.rows == direct.rows == 60
        assert quick.hardware_s() > 0


def test_rows_leave_the_instruments_alone() -> None:
    rows = case()
    with open_bench(ROOT / "bench.toml") as bench:
        before = bench.system("optics").transform(rows.x[:2], rows.theta[:2]).y
    with open_bench(ROOT / "bench.toml") as bench:
        system, run = bench.system("optics"), plant_run(bench, "optics")
        first = system.transform(rows.x[:1], rows.theta[:1]).y
        run(rows.x, rows.theta, rows.keys)
        second = system.transform(rows.x[1:2], rows.theta[1:2]).y
        # rows without keys go on with the plant's own counter as if nothing had been between
        assert np.array_equal(np.concatenate([first, second]), before)
        assert system.instruments[0].profile().attenuation_db[0] == pytest.approx(
            -20 * np.log10(abs(rows.x[1, 0])), abs=1e-4
        )


@pytest.mark.parametrize(("value", "name"), [(1.0001, "x"), (-0.51, "x"), (np.nan, "theta")])
def test_what_the_system_refuses_is_refused_with_the_same_words(value: float, name: str) -> None:
    rows = case()
    bad = rows.x[:70].copy()
    bad[68, 3] = value
    arrays = (bad, rows.theta[:70]) if name == "x" else (rows.theta[:70], bad)
    with both(edited()) as (system, run):
        with pytest.raises(LimitError) as wire:
            system.transform(*arrays, rows.keys[:70])
        with pytest.raises(LimitError) as quick:
            run(*arrays, rows.keys[:70])
        assert str(quick.value) == str(wire.value)
        assert name in str(quick.value)


def test_narrowed_limits_hold() -> None:
    rows = case()
    limits = {"x": (0.0, 1.0)}
    with both(edited(systems__optics__limits=limits)) as (_, run), pytest.raises(LimitError):
        run(np.full((1, 50), -0.1), rows.theta[:1], rows.keys[:1])


def test_another_number_of_keys_is_refused() -> None:
    rows = case()
    with both(edited()) as (_, run), pytest.raises(ValueError, match="3 rows but 2 row keys"):
        run(rows.x[:3], rows.theta[:3], rows.keys[:2])


def test_several_jobs_may_measure_on_one_plant_at_once() -> None:
    rows = case()
    before = sys.getswitchinterval()
    with open_bench(ROOT / "bench.toml") as bench, ThreadPoolExecutor(3) as threads:
        runs = [plant_run(bench, "optics") for _ in range(3)]
        alone = runs[0](rows.x, rows.theta, rows.keys)
        sys.setswitchinterval(1e-6)
        try:
            together = [threads.submit(run, rows.x, rows.theta, rows.keys) for run in runs]
            assert all(np.array_equal(part.result(), alone) for part in together)
        finally:
            sys.setswitchinterval(before)


def test_no_further_rows_once_it_is_told_to_stop() -> None:
    rows = case()
    answers = iter([False, True])
    with both(edited()) as (_, run), pytest.raises(PassCancelled, match="of 1000 rows"):
        run(rows.x, rows.theta, rows.keys, stopped=lambda: next(answers))


def test_a_bench_that_was_not_started_is_refused() -> None:
    rows = case()
    with open_bench(ROOT / "bench.toml", start=False) as bench:
        run = plant_run(bench, "optics")
        with pytest.raises(ValueError, match="start it first"):
            run(rows.x[:2], rows.theta[:2], rows.keys[:2])


def refusal(bench: Bench, name: str) -> str:
    """Return why there is no short cut."""
    with pytest.raises(ValueError, match=name) as error:
        plant_run(bench, name)
    return str(error.value)


def test_there_is_a_short_cut_for_simulated_optics_only() -> None:
    for name in ("circuit", "plate"):
        with open_bench(ROOT / f"bench-{name}.toml") as bench:
            assert "optics" in refusal(bench, name)
    with open_bench(edited(rigs__optics__honour_times=True), start=False) as bench:
        assert "honour_times" in refusal(bench, "optics")
    with open_bench(ROOT / "bench.toml") as bench, pytest.raises(UnknownName):
        plant_run(bench, "optic")


def test_a_real_bench_has_none() -> None:
    real = edited(
        rigs={},
        instruments__shaper__address="http://127.0.0.1:9",
        instruments__shaper__rig=None,
        instruments__spectrometer__rig=None,
        instruments__spectrometer__address="TCPIP0::127.0.0.1::9::SOCKET",
    )
    with open_bench(ROOT / "bench.toml") as bench:
        assert "simulated" in refusal(Bench(real, bench.systems, {}), "optics")
