"""Limits of a bench, from its file to the far end: nothing of a pass is sent if a row is beyond."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drivers.errors import LimitError
from lab.bench import Bench, open_bench
from lab.bench_config import BenchConfig, load_bench
from lab.errors import ConfigError
from lab.measurement import ForwardPass
from lab.plant_run import plant_run
from lab.scheduling.scheduler import HardwareScheduler
from limited_benches import RANGES, limited_bench

ROOT = Path(__file__).resolve().parents[2]
REFUSED = {  # values of x and theta within their ranges, and what they amount to
    "circuit": (0.4, r"daq: drive: slew 8 V/sample of row 140 is above the limit of 6 V/sample"),
    "plate": (0.1, r"sound: drive: rms 0.2 full scale of row 140 is above the limit of 0.12 full"),
    "optics": (0.8, r"shaper: attenuation: transmission 0.64\d* of row 140 is above the limit"),
}


def rows_of(bench: Bench, system: str, rows: int, loud: int) -> tuple[Any, Any]:
    """Return dark or silent rows, and one that is within the ranges but too much."""
    size = bench.system(system).description.x.shape[0]
    x, theta = np.zeros((2, rows, size))
    x[loud] = theta[loud] = REFUSED[system][0]
    return x, theta


def uses(bench: Bench, system: str) -> int:
    rig = bench.rig(system)
    counters = ("profiles_loaded", "waveforms", "exchanges")
    return sum(getattr(i, c, 0) for i in rig.instruments.values() for c in counters)


@pytest.mark.parametrize("system", RANGES)
def test_no_row_is_sent_where_a_later_one_is_beyond_a_limit(system: str) -> None:
    with open_bench(limited_bench(system, rows=True)) as bench:
        x, theta = rows_of(bench, system, 150, 140)
        before = uses(bench, system)
        with pytest.raises(LimitError, match=REFUSED[system][1]):
            bench.system(system).transform(x, theta)
        assert uses(bench, system) == before
        bench.system(system).transform(x[:2], theta[:2])
        assert uses(bench, system) > before


@pytest.mark.parametrize("system", RANGES)
def test_the_driver_refuses_even_if_the_system_does_not(
    system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_bench(limited_bench(system, rows=True)) as bench:
        x, theta = rows_of(bench, system, 2, 0)
        before = uses(bench, system)
        monkeypatch.setattr(type(bench.system(system)), "check", lambda _, x, theta: (x, theta))
        with pytest.raises(LimitError):
            bench.system(system).transform(x, theta)
        assert uses(bench, system) == before


async def test_a_pass_is_refused_when_it_is_submitted() -> None:
    with open_bench(limited_bench("plate", rows=True)) as bench:
        async with HardwareScheduler(bench.systems) as scheduler:
            x, theta = rows_of(bench, "plate", 3, 1)
            before = uses(bench, "plate")
            with pytest.raises(LimitError, match="of row 1 is above"):
                await scheduler.submit(ForwardPass("plate", x, theta))
            assert uses(bench, "plate") == before
            theta[:], x[:] = 0.0, 0.0
            await scheduler.submit(ForwardPass("plate", x, theta))


def test_rows_without_a_wire_keep_the_same_limits() -> None:
    with open_bench(limited_bench("optics", rows=True)) as bench:
        x, theta = rows_of(bench, "optics", 150, 140)
        with pytest.raises(LimitError, match=REFUSED["optics"][1]):
            plant_run(bench, "optics")(x, theta, range(150))  # type: ignore[arg-type]


def with_limits(file: str, instrument: str, limits: dict[str, Any]) -> BenchConfig:
    data = load_bench(ROOT / file).model_dump()
    data["instruments"][instrument]["limits"] = limits
    return BenchConfig.model_validate(data)


@pytest.mark.parametrize(
    ("file", "instrument", "limits", "reason"),
    [
        ("bench.toml", "shaper", {"attenuation": (-1, 60)}, r"\[-1, 60\] dB is wider than the ins"),
        ("bench.toml", "shaper", {"phase": {"high": 7}}, r"phase: \[-6.2832, 7\] rad is wider"),
        ("bench.toml", "shaper", {"attenuation": {"transmission": 2}}, "a transmission limit of 2"),
        ("bench.toml", "spectrometer", {"power": (0, 1)}, "unknown settings power"),
        ("bench-circuit.toml", "daq", {"drive": {"peak": 11}}, r"\[-11, 11\] V is wider"),
        ("bench-circuit.toml", "daq", {"drive": {"rms": 1}}, "no limit 'rms' .*peak, slew"),
        ("bench-plate.toml", "sound", {"drive": {"rms": 1.5}}, "a rms limit of 1.5 full scale"),
        ("bench-plate.toml", "sound", {"volume": (0, 1)}, "unexpected .*'volume'"),
    ],
)
def test_a_bench_with_wider_or_unknown_limits_is_not_opened(
    file: str, instrument: str, limits: dict[str, Any], reason: str
) -> None:
    with (
        pytest.raises(ConfigError, match=rf"bench: instruments.{instrument}: .*{reason}"),
        open_bench(with_limits(file, instrument, limits)),
    ):
        pass


@pytest.mark.parametrize(
    ("limit", "place"),
    [
        ("drive = [-1.0]", "drive.pair.1: Field required"),
        ("drive = [nan, 1.0]", "drive.pair.0: Input should be a finite number"),
        ("drive = [true, 1.0]", "drive.pair.0: Input should be a valid number"),
        ('drive = { rms = "0.3" }', "drive.table.rms: Input should be a valid number"),
        ("drive = 0.5", "drive.pair: Input should be a valid tuple"),
    ],
)
def test_a_limit_that_is_none_is_refused_by_its_place(
    tmp_path: Path, limit: str, place: str
) -> None:
    file = tmp_path / "bench.toml"
    text = (ROOT / "bench-plate.toml").read_text()
    file.write_text(f"{text}\n[instruments.sound.limits]\n{limit}\n")
    with pytest.raises(ConfigError, match=rf"instruments\.sound\.limits\.{place}"):
        load_bench(file)
