"""The bench file, and the optics system it opens, down to the far end of the wire."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.errors import DriverError, IdentityError, InstrumentTimeout, LimitError
from drivers.mock.faults import Fault
from drivers.mock.firmware.waveshaper import WaveShaperFirmware
from drivers.row_key import row_keys
from lab.bench import Bench, open_bench
from lab.bench_config import SchedulerConfig, load_bench
from lab.errors import ConfigError, SystemFaulted, UnknownName
from lab.measurement import ForwardPass
from lab.scheduling.scheduler import HardwareScheduler
from lab.systems.optics import encode

BENCH = Path(__file__).parents[2] / "bench.toml"


def edited(tmp_path: Path, old: str, new: str) -> Path:
    text = BENCH.read_text()
    assert old in text
    path = tmp_path / "bench.toml"
    path.write_text(text.replace(old, new, 1))
    return path


def shaper_of(bench: Bench) -> WaveShaperFirmware:
    firmware = bench.rigs["optics"].instruments["shaper"]
    assert isinstance(firmware, WaveShaperFirmware)
    return firmware


@pytest.mark.parametrize(
    ("old", "new", "key", "reason"),
    [
        ("gap = 1.0", "gap = 3.5", "rigs.optics.gap", "less than or equal to 3"),
        ("gap = 1.0", "gapp = 1.0", "rigs.optics.gapp", "Extra inputs"),
        ("noise = 1.0", 'noise = "loud"', "rigs.optics.noise", "valid number"),
        ('plant = "optics"', 'plant = "magic"', "rigs", "no plant 'magic'"),
        ("lines = 1000", "lines = 10000", "instruments.shaper", "THz"),
        ("lines = 1000", "lines = 900", "systems.optics", "900 lines, 1000 needed"),
        ("points = 101", "points = 51", "instruments.spectrometer", "51"),
        ("points = 101", "pointz = 101", "instruments.spectrometer", "pointz"),
        ('driver = "WaveShaperA"', 'driver = "Shaper"', "instruments.shaper", "none of"),
        ("mock://optics/shaper", "mock://nowhere/shaper", "systems.optics", "several rigs"),
        ('shaper = "shaper"', 'shaper = "chisel"', "systems.optics", "no instrument 'chisel'"),
        ('system = "optics"', 'system = "lost:Found"', "systems.optics", "cannot be imported"),
        (
            "lines = 1000",
            "lines = 1000\nattenuation = [0, 30]",
            "systems.optics",
            "attenuation of 0",
        ),
        (
            "[systems.optics]",
            "[systems.optics]\nlimits = { x = [-2, 1] }",
            "systems.optics",
            "wider",
        ),
    ],
)
def test_a_wrong_bench_file_is_refused_with_file_key_and_reason(
    tmp_path: Path, old: str, new: str, key: str, reason: str
) -> None:
    path = edited(tmp_path, old, new)
    with pytest.raises(ConfigError) as caught, open_bench(path):
        pass
    assert str(path) in str(caught.value)
    assert key in str(caught.value)
    assert reason in str(caught.value)


def test_files_that_are_no_toml_or_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_bench(tmp_path / "none.toml")
    (tmp_path / "broken.toml").write_text("name = [")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_bench(tmp_path / "broken.toml")


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("row_time_s = 0.5 ", "timeout_s = 1.5\nrow_time_s = 0.5 ", True),
        ("honour_times = false", "honour_times = true", True),
        ("[systems.optics]", "[scheduler]\nslice_s = 0.5\n[systems.optics]", True),
        ("row_time_s = 0.5 ", "row_time_s = 0.6 ", False),  # simulated drift follows time
        ("gap = 1.0", "gap = 0.9", False),
        ("port = 1", "port = 2", False),
        ("mock://optics/shaper", "http://192.168.1.20", False),
    ],
)
def test_the_measurement_digest_leaves_out_waiting_and_sharing_alone(
    tmp_path: Path, old: str, new: str, same: bool
) -> None:
    changed = load_bench(edited(tmp_path, old, new))
    assert changed != load_bench(BENCH)
    assert (changed.measurement_digest() == load_bench(BENCH).measurement_digest()) is same


def test_another_instrument_than_expected_is_refused(tmp_path: Path) -> None:
    path = edited(tmp_path, "WaveShaper (1000|4000)A", "WaveShaper 500A")
    with pytest.raises(IdentityError, match="500A"), open_bench(path):
        pass


def test_the_bench_opens_safe_and_ends_safe() -> None:
    with open_bench(BENCH) as bench:
        shaper = shaper_of(bench)
        assert shaper.blocked
        bench.measure("optics")(torch.rand(2, 50), torch.rand(2, 50))
        assert not shaper.blocked
    assert shaper.blocked


def test_it_ends_safe_after_a_fault_too() -> None:
    opened: list[WaveShaperFirmware] = []

    def fail() -> None:
        with open_bench(BENCH) as bench:
            opened.append(shaper_of(bench))
            bench.rigs["optics"].inject("spectrometer", Fault.TIMEOUT, ":TRACe:Y")
            bench.measure("optics")(torch.rand(1, 50), torch.rand(1, 50))

    with pytest.raises(InstrumentTimeout, match="spectrometer"):
        fail()
    assert opened[0].blocked


def test_the_light_goes_out_before_a_silent_spectrometer_is_waited_for() -> None:
    blocked_when_asked: list[bool] = []
    with open_bench(BENCH) as bench:
        shaper = shaper_of(bench)
        bench.measure("optics")(torch.rand(1, 50), torch.rand(1, 50))
        spectrometer = bench.system("optics").instruments[1]
        real = spectrometer.shutdown

        def shutdown() -> None:
            blocked_when_asked.append(shaper.blocked)
            real()

        spectrometer.shutdown = shutdown  # type: ignore[method-assign]
    assert blocked_when_asked
    assert all(blocked_when_asked)


def test_a_narrow_shaper_serves_narrow_fields(tmp_path: Path) -> None:
    text = BENCH.read_text().replace("lines = 1000", "lines = 1000\nattenuation = [0, 20]", 1)
    path = tmp_path / "bench.toml"
    path.write_text(text + "limits = { x = [0.1, 1.0], theta = [0.2, 1.0] }\n")
    with open_bench(path) as bench:
        bench.measure("optics")(torch.zeros(1, 50), torch.ones(1, 50))
    path.write_text(text + "limits = { x = [0.09, 1.0], theta = [0.2, 1.0] }\n")
    with pytest.raises(ConfigError, match=r"20\.92 dB"), open_bench(path):
        pass


def test_honoured_times_are_the_declared_ones(tmp_path: Path) -> None:
    text = BENCH.read_text().replace("honour_times = false", "honour_times = true")
    path = tmp_path / "bench.toml"
    path.write_text(text.replace("row_time_s = 0.5 ", "row_time_s = 0.06 ").replace("0.25", "0.08"))
    with open_bench(path) as bench:
        measure = bench.measure("optics")
        begin = time.monotonic()
        measure(torch.rand(1, 50), torch.rand(1, 50))
        assert time.monotonic() - begin >= 0.06 + 0.08


async def test_a_fault_on_the_wire_stops_the_system_until_it_is_recovered() -> None:
    x = theta = np.zeros((3, 50))
    for fault in (Fault.TIMEOUT, Fault.DROP, Fault.GARBAGE):
        with open_bench(BENCH, start=False) as bench:
            by_hand = SchedulerConfig(recovery_attempts=0)
            async with HardwareScheduler(bench.systems, by_hand) as scheduler:
                asked = ForwardPass("optics", x, theta, row_keys(1, 0, 3, 0.75))
                expected = await scheduler.submit(asked)
                bench.rigs["optics"].inject("spectrometer", fault, ":TRACe:Y")
                with pytest.raises(DriverError, match="spectrometer"):
                    await scheduler.submit(asked)
                assert scheduler.status("optics").state == "faulted"
                assert shaper_of(bench).blocked
                with pytest.raises(SystemFaulted, match="spectrometer"):
                    await scheduler.submit(asked)
                await scheduler.recover("optics")
                again = await scheduler.submit(asked)
                assert np.array_equal(again.y, expected.y)


@pytest.mark.parametrize("fault", [Fault.TIMEOUT, Fault.DROP, Fault.GARBAGE])
async def test_after_a_fault_on_the_wire_the_bench_recovers_and_repeats_the_row(
    fault: Fault,
) -> None:
    x = theta = np.zeros((3, 50))
    with open_bench(BENCH, start=False) as bench:
        async with bench.scheduler() as scheduler:
            asked = ForwardPass("optics", x, theta, row_keys(1, 0, 3, 0.75))
            expected = await scheduler.submit(asked)
            bench.rigs["optics"].inject("spectrometer", fault, ":TRACe:Y")
            again = await scheduler.submit(asked)
            assert scheduler.status("optics").state == "ok"
            assert again.retried.sum() == 1
            assert len(np.unique(again.shots)) == 3
            assert again.shots.max() == 6, "the lost row has used up a shot number"
            assert np.array_equal(again.y, expected.y)


def test_unknown_systems_are_named() -> None:
    with open_bench(BENCH) as bench, pytest.raises(UnknownName, match="no system 'plate'"):
        bench.measure("plate")


@given(st.lists(st.floats(-0.5, 1.0), min_size=100, max_size=100))
@settings(max_examples=100, deadline=None)
def test_the_encoding_is_attenuation_and_sign(values: list[float]) -> None:
    field = np.array(values)
    attenuation_db, phase_rad = encode(field)
    assert attenuation_db.min() >= 0
    assert attenuation_db.max() <= 60
    decoded = 10 ** (-attenuation_db / 20) * np.cos(phase_rad)
    expected = np.repeat(np.where(np.abs(field) < 1e-3, 0, field), 10)
    np.testing.assert_allclose(decoded, expected, atol=1.1e-3, rtol=1e-9)


@pytest.mark.parametrize("bad", [1.0001, -0.5001, float("nan"), float("inf")])
def test_not_a_byte_of_a_bad_batch_reaches_an_instrument(bad: float) -> None:
    with open_bench(BENCH) as bench:
        shaper = shaper_of(bench)
        before = shaper.profiles_loaded
        x, theta = np.zeros((5, 50)), np.zeros((5, 50))
        theta[4, 49] = bad
        with pytest.raises(LimitError, match=r"optics: theta: .*relative field at index \[4, 49\]"):
            bench.system("optics").transform(x, theta)
        assert shaper.profiles_loaded == before
        assert shaper.blocked


def test_rows_depend_on_their_keys_only() -> None:
    x, theta = -0.5 + 1.5 * np.random.default_rng(0).random((2, 6, 50))
    keys = row_keys(7, 100, 6, 0.75)
    with open_bench(BENCH) as bench:
        system = bench.system("optics")
        whole = system.transform(x, theta, keys).y
        system.transform(x, theta)  # a stranger's rows in between
        parts = [
            system.transform(x[i : i + 1], theta[i : i + 1], keys[i : i + 1]).y for i in range(6)
        ]
    assert np.array_equal(whole, np.concatenate(parts))


def test_rows_stop_between_rows() -> None:
    answers = iter([False, False, True])
    with open_bench(BENCH) as bench:
        shaper = shaper_of(bench)
        before = shaper.profiles_loaded
        rows = bench.system("optics").transform(
            np.zeros((5, 50)), np.zeros((5, 50)), stop=lambda: next(answers)
        )
        assert len(rows.y) == len(rows.saturated) == 2
        assert shaper.profiles_loaded == before + 2


def test_saturated_rows_are_flagged(tmp_path: Path) -> None:
    bright = np.ones((1, 50))
    path = edited(tmp_path, "full_scale_w = 1.6e-6", "full_scale_w = 1.6e-9")
    with open_bench(path) as bench:
        assert bench.system("optics").transform(bright, bright).saturated.tolist() == [True]
    with open_bench(BENCH) as bench:
        dim = bench.system("optics").transform(0.3 * bright, 0 * bright)
    assert dim.saturated.tolist() == [False]


def test_the_declared_row_time_is_the_sum_of_the_instruments() -> None:
    with open_bench(BENCH) as bench:
        assert bench.system("optics").description.row_time_s == pytest.approx(0.75)


# --- adjustments between passes ---------------------------------------------------------------


@pytest.mark.parametrize(("every", "zeros"), [("1e-9", 3), ("inf", 0)])
async def test_a_detectors_offset_is_adjusted_between_passes(
    tmp_path: Path, every: str, zeros: int
) -> None:
    path = edited(tmp_path, "points = 101", f"points = 101\nzero_every_s = {every}")
    with open_bench(path) as bench:
        osa = bench.rigs["optics"].instruments["spectrometer"]
        d = bench.system("optics").description
        x, theta = (np.zeros((4, *spec.shape)) for spec in (d.x, d.theta))
        bench.system("optics").transform(x, theta)  # directly, four rows in one pass
        async with bench.scheduler() as scheduler:
            for _ in range(2):
                await scheduler.submit(ForwardPass("optics", x[:1], theta[:1]))
        assert osa.zeros == zeros
        assert osa.sweeps == 6


def test_an_adjustment_that_fails_is_the_passs_error(tmp_path: Path) -> None:
    path = edited(tmp_path, "points = 101", "points = 101\nzero_every_s = 1e-9")
    with open_bench(path) as bench:
        bench.rigs["optics"].inject("spectrometer", Fault.DROP, "ZERO ONCE")
        d = bench.system("optics").description
        with pytest.raises(DriverError, match=r"spectrometer: :CALibration:ZERO ONCE"):
            bench.system("optics").transform(
                np.zeros((1, *d.x.shape)), np.zeros((1, *d.theta.shape))
            )
        assert shaper_of(bench).profiles_loaded == 0
