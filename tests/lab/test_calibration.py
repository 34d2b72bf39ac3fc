"""A calibration tells what a lab must know of a system, and what changed since the last one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from drivers.errors import LimitError
from lab.apparatus import Apparatus, open_apparatus
from lab.bench import Bench, open_bench
from lab.bench_config import BenchConfig, load_bench
from lab.calibration import calibrate, rows_to_calibrate
from lab.calibration_rows import CalibrationRows, calibration_rows
from lab.errors import Stopped
from lab.jobs.configs import CalibrateConfig
from lab.measure import DeviceMeasure

ROOT = Path(__file__).parents[2]
FILES = {"optics": "bench.toml", "circuit": "bench-circuit.toml", "plate": "bench-plate.toml"}


def bench_of(name: str, **rig: Any) -> BenchConfig:
    bench = load_bench(ROOT / FILES[name])
    rigs = {key: value.model_copy(update=rig) for key, value in bench.rigs.items()}
    return bench.model_copy(update={"rigs": rigs})


@contextmanager
def opened(name: str, **rig: Any) -> Iterator[tuple[Bench, Apparatus, CalibrationRows]]:
    with open_bench(bench_of(name, **rig)) as bench:
        yield bench, open_apparatus(bench, name), calibration_rows(bench.system(name))


def found(name: str, **options: Any) -> dict[str, Any]:
    rig = options.pop("rig", {})
    config = CalibrateConfig(system=name, rows=128, **options.pop("config", {}))
    with opened(name, **rig) as (_, apparatus, rows):
        return calibrate(config, rows, apparatus, **options).as_dict()


def named(result: dict[str, Any], job: str = "first") -> tuple[str, dict[str, Any]]:
    return job, {**result, "name": "monday"}


@pytest.mark.parametrize("name", FILES)
def test_a_system_is_told_in_its_own_unit(name: str) -> None:
    result = found(name)
    with opened(name) as (bench, _, _):
        y = bench.system(name).description.y
    assert (result["system"], result["unit"], result["rows"]) == (name, y.unit, 128)
    assert result["dark_level"] < 0.2 * result["bright_level"]
    assert 0 < result["full_scale_use"] < 1
    assert result["margin"] == 1 - result["full_scale_use"]
    assert result["saturated"] == 0
    assert len(result["noise_by_output"]) == y.shape[0]
    assert 5 < result["snr"] == result["bright_level"] / result["noise"]
    assert result["response"] == sorted(result["response"])  # more drive, more response
    # rows ring down and settle before the next: none of these depends on the one before
    assert max(result[key]["sigma"] for key in ("dark_lag", "bright_lag", "drift")) < 4
    assert result["since"] is None


def test_the_same_keys_give_the_same_calibration() -> None:
    first, second = found("optics"), found("optics")
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    assert found("optics", config={"seed": 1})["digest"] != first["digest"]


def test_it_has_noise_of_its_own() -> None:
    """No row key is one of a training, a fit, or of what looks on at a training."""
    keys = []
    with opened("optics") as (_, apparatus, rows):

        def open_device(stream: int, first: int) -> DeviceMeasure:
            device = apparatus.open_device(stream, first)
            keys.append(device.keys(first, 1)[0])
            return device

        seen = Apparatus(apparatus.description, open_device, apparatus.open_oracle)
        calibrate(CalibrateConfig(rows=128, seed=2**31 - 1), rows, seen)
    taken = [0, *(1 << power for power in (40, 41, 42, 43, 62))]
    assert all(not base <= keys[0].stream < base + 2**31 for base in taken)


def test_an_unchanged_device_has_not_changed_since() -> None:
    first = found("plate")
    again = found("plate", before=named(first))
    assert again["since"]["change"]["sigma"] < 4
    assert {k: again["since"][k] for k in ("job", "name", "digest")} == {
        "job": "first",
        "name": "monday",
        "digest": first["digest"],
    }
    # it goes on where the first one ended: other noise, later in simulated time
    assert again["next_row"] == 2 * first["next_row"] == 256
    assert again["next_time_s"] == pytest.approx(2 * first["next_time_s"])
    assert again["digest"] != first["digest"]


@pytest.mark.parametrize("name", ["circuit", "plate"])
def test_an_hour_of_drift_is_told(name: str) -> None:
    later = found(name, before=named(found(name)), config={"wait_s": 3600.0})
    assert later["since"]["change"]["sigma"] > 4
    assert 0.003 < later["since"]["change"]["relative"] < 1
    assert later["next_time_s"] > 3600


def test_another_specimen_is_told() -> None:
    other = found("optics", before=named(found("optics")), rig={"device_seed": 1})
    assert other["since"]["change"]["sigma"] > 4
    assert other["since"]["change"]["relative"] > 0.05


def test_other_reference_rows_are_not_compared() -> None:
    first = {**found("optics"), "reference_drives": "of another bench"}
    assert found("optics", before=named(first))["since"] is None


def test_what_saturates_is_counted() -> None:
    bench = bench_of("optics")
    shown = bench.instruments["spectrometer"]
    settings = {**shown.settings, "full_scale_w": 4e-7}  # a quarter of what the light needs
    instruments = {
        **bench.instruments,
        "spectrometer": shown.model_copy(update={"settings": settings}),
    }
    with open_bench(bench.model_copy(update={"instruments": instruments})) as small:
        rows = calibration_rows(small.system("optics"))
        result = calibrate(CalibrateConfig(rows=128), rows, open_apparatus(small, "optics"))
    assert result.saturated >= 2 * result.rounds  # the bright rows at least
    assert result.margin <= 0


def test_a_row_that_depends_on_the_one_before_is_told() -> None:
    """A device that keeps a tenth of its last output, as one that has not settled does."""
    with opened("plate") as (_, apparatus, rows):
        last = torch.full((1, 196), 0.5, dtype=torch.float64)

        class Slow(DeviceMeasure):
            def __call__(self, x: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
                nonlocal last
                y = super().__call__(x, theta)
                out = y + 0.1 * (torch.cat([last, y[:-1]]) - 0.5)
                last = y[-1:]
                return out

        def open_device(stream: int, first: int) -> DeviceMeasure:
            device = apparatus.open_device(stream, first)
            return Slow(device.description, device._run, stream=stream, first_row=first)

        slow = Apparatus(apparatus.description, open_device, apparatus.open_oracle)
        result = calibrate(CalibrateConfig(system="plate", rows=128), rows, slow)
    assert result.dark_lag.sigma > 6
    assert result.bright_lag.relative > 0.01


def test_rounds_are_told_as_they_are_measured_and_a_stop_ends_them() -> None:
    told: list[dict[str, Any]] = []
    with pytest.raises(Stopped, match="round 3 of 8"):
        found("plate", on_metric=told.append, stop=lambda: len(told) == 2)
    assert [(m["kind"], m["round"], m["of"], m["rows"]) for m in told] == [
        ("round", 1, 8, 16),
        ("round", 2, 8, 32),
    ]


@pytest.mark.parametrize(("rows", "measured"), [(128, 128), (143, 128), (240, 240)])
def test_only_whole_rounds_are_measured(rows: int, measured: int) -> None:
    assert rows_to_calibrate(CalibrateConfig(rows=rows)) == measured


def test_rows_keep_to_a_benchs_narrower_limits() -> None:
    bench = bench_of("plate")
    sound = bench.instruments["sound"].model_copy(update={"limits": {"drive": {"rms": 0.02}}})
    with open_bench(bench.model_copy(update={"instruments": {"sound": sound}})) as narrow:
        system = narrow.system("plate")
        rows = calibration_rows(system)
        result = calibrate(
            CalibrateConfig(system="plate", rows=128), rows, open_apparatus(narrow, "plate")
        )
    assert result.share == rows.share < 1


def test_a_bench_that_allows_nothing_refuses() -> None:
    bench = bench_of("plate")
    sound = bench.instruments["sound"].model_copy(update={"limits": {"drive": {"rms": 1e-9}}})
    with (
        open_bench(bench.model_copy(update={"instruments": {"sound": sound}})) as narrow,
        pytest.raises(LimitError, match="rms"),
    ):
        calibration_rows(narrow.system("plate"))
