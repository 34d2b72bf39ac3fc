"""Bring-up: what is measured, and which limit each number is judged by."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from drivers.errors import InstrumentTimeout, LimitError
from drivers.mock.faults import Fault
from drivers.spec import ArraySpec
from lab import bringup
from lab.bench import open_bench
from lab.bench_config import BenchConfig, load_bench
from lab.bringup import Check, bring_up, permitted, strongest_row
from lab.systems.base import PhysicalSystem, Rows, SystemDescription

ROOT = Path(__file__).parents[2]
BENCHES = ("bench.toml", "bench-circuit.toml", "bench-plate.toml")


def checked(bench: str, fault: tuple[str, Fault, str] | None = None) -> dict[str, Check]:
    config = load_bench(ROOT / bench)
    expected = {name: part.expect_idn for name, part in config.instruments.items()}
    with open_bench(config, start=False) as opened:
        ((name, system),) = opened.systems.items()
        if fault is not None:
            instrument, kind, on = fault
            rig = opened.rig(name)
            assert rig is not None
            rig.inject(instrument, kind, on)
        return {f"{c.check} {c.instrument}".strip(): c for c in bring_up(system, expected)}


@pytest.mark.parametrize("bench", BENCHES)
def test_the_simulated_benches_pass_by_wide_margins(bench):
    checks = checked(bench)
    assert all(check.ok for check in checks.values())
    common = {"start", "reference", "noise", "saturated", "dark", "dark-noise", "safe-state"}
    assert common | {"row-time"} <= checks.keys()
    page = (ROOT / "docs" / "reference.md").read_text()
    assert all(f"\n| `{check.check}` | " in page for check in checks.values())
    for name in ("noise", "dark", "dark-noise"):
        check = checks[name]
        assert 0 < check.value < 0.7 * check.high


def test_the_latency_of_the_sound_interface_is_told():
    loopback = checked("bench-plate.toml")["loopback sound"]
    assert 293 <= loopback.value <= 296  # of the simulated interface, which jitters
    assert loopback.unit == "frames"
    assert (loopback.low, loopback.high) == (0, 4096)
    assert loopback.detail == f"{loopback.value / 48:.3g} ms from output to input"


def test_where_there_is_no_loopback_no_delay_is_told():
    assert not [name for name in checked("bench.toml") if name.startswith("loopback")]


def test_who_answers_is_compared_with_the_bench_file_and_nothing_is_driven():
    checks = checked("bench.toml", ("spectrometer", Fault.IDENTITY, "*IDN?"))
    stranger = checks.pop("identity spectrometer")
    assert not stranger.ok
    assert "not /YOKOGAWA,AQ6370/" in stranger.detail
    assert list(checks) == ["identity shaper", "safe-state"]


@pytest.mark.parametrize(
    ("bench", "instrument", "on", "stops_at"),
    [
        ("bench.toml", "shaper", '"wsp"', "reference"),
        ("bench.toml", "spectrometer", ":INITiate:IMM", "reference"),
        ("bench-circuit.toml", "daq", "scan_wait input", "start"),
        ("bench-plate.toml", "audio", "exchange", "start"),
    ],
)
def test_a_check_that_cannot_go_on_is_a_result_and_the_safe_state_follows(
    bench, instrument, on, stops_at
):
    fault = Fault.DROP if instrument == "spectrometer" else Fault.TIMEOUT
    checks = list(checked(bench, (instrument, fault, on)).values())
    assert next(check.check for check in checks if not check.ok) == stops_at
    assert checks[-1].check == "safe-state"


# --- a system of numbers ----------------------------------------------------------------------


@dataclass
class Bulb:
    """An instrument that notes what is asked of it."""

    name: str = "bulb"
    calls: list[str] = field(default_factory=list)
    dead: str = ""

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if call == self.dead:
            raise InstrumentTimeout(self.name, f"{call}: no answer")

    def identify(self) -> str:
        self._note("identify")
        return "ACME bulb"

    def start(self) -> None:
        self._note("start")

    def shutdown(self) -> None:
        self._note("shutdown")


class Lamp(PhysicalSystem):
    """Rows of y around `level` (lit) and `leak` (dark), with noise between rows."""

    def __init__(self, level=0.5, leak=0.0, noise=0.0, row_time_s=10.0, flags=0, batch=1):
        super().__init__()
        self.instruments = (Bulb(),)
        self.batch_rows = batch
        x = ArraySpec("x", "V", (2,), 0.0, 2.0)
        y = ArraySpec("y", "W", (2,), 0.0, 1.0)
        self.description = SystemDescription("lamp", x, x, y, row_time_s)
        self.level, self.leak, self.noise, self.flags = level, leak, noise, flags
        self.rows = 0
        self.batches = []

    def _measure_batch(self, x, theta):
        self.instruments[0]._note("measure")
        self.batches.append((x.copy(), theta.copy()))
        numbers = self.rows + np.arange(len(x))
        self.rows += len(x)
        swing = self.noise * np.where(numbers % 2, 1.0, -1.0)
        mean = self.level if x.any() else self.leak
        flagged = numbers < self.flags
        return Rows((mean + swing)[:, None] * np.ones((1, 2)), flagged, flagged)


def judged(**settings) -> dict[str, Check]:
    return {check.check: check for check in bring_up(Lamp(**settings), {})}


@pytest.mark.parametrize(
    ("settings", "check", "value", "unit", "limits"),
    [
        ({"level": 0.5}, "reference", 50.0, "% of full scale", (1.0, 100.0)),
        ({"level": 0.5, "leak": 0.05}, "dark", 10.0, "% of the reference", (None, 20.0)),
        ({"flags": 3}, "saturated", 3, "rows", (None, 0)),
        ({"flags": 2}, "out-of-sync", 2, "rows", (None, 0)),
    ],
)
def test_numbers_units_and_limits(settings, check, value, unit, limits):
    result = judged(**settings)[check]
    assert result.value == pytest.approx(value)
    assert result.unit == unit
    assert (result.low, result.high) == limits


def test_noise_is_the_standard_deviation_of_repeated_rows():
    checks = judged(level=0.5, noise=0.01)
    # rows alternate by +-0.01 around their mean: 16 of them, one degree of freedom spent
    assert checks["noise"].value == pytest.approx(2 * np.sqrt(16 / 15))
    assert checks["dark-noise"].value == pytest.approx(2 * np.sqrt(16 / 15))


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        ("reference", {"level": 0.011}, {"level": 0.009}),
        ("dark", {"leak": 0.099}, {"leak": 0.101}),
        ("noise", {"noise": 0.048}, {"noise": 0.05}),
        ("dark-noise", {"noise": 0.048}, {"noise": 0.05}),
        ("saturated", {"flags": 0}, {"flags": 1}),
        ("out-of-sync", {"flags": 0}, {"flags": 1}),
        ("row-time", {"row_time_s": 10.0}, {"row_time_s": 1e-9}),
    ],
)
def test_each_check_passes_on_one_side_of_its_limit_only(check, good, bad):
    assert judged(**good)[check].ok
    assert not judged(**bad)[check].ok


def test_a_time_that_was_not_declared_is_not_judged():
    check = judged(row_time_s=0.0)["row-time"]
    assert check.ok
    assert check.value > 0
    assert check.high is None


def test_nothing_can_be_told_by_a_reference_that_is_dark():
    checks = judged(level=0.0)
    for name in ("noise", "dark", "dark-noise"):
        assert not checks[name].ok
        assert checks[name].value is None
        assert checks[name].detail.startswith("cannot be told")


@pytest.mark.parametrize(
    ("batch", "row_time_s", "rows"), [(1, 1.0, 16), (100, 0.1, 20), (64, 0, 64)]
)
def test_as_many_rows_as_fit_into_a_call_but_not_for_minutes(batch, row_time_s, rows):
    lamp = Lamp(batch=batch, row_time_s=row_time_s)
    list(bring_up(lamp, {}))
    assert lamp.rows == 2 * rows


def test_reference_and_dark_are_what_the_system_says():
    lamp = Lamp(batch=16)
    list(bring_up(lamp, {}))
    (bright, _), (dark, _) = lamp.batches
    np.testing.assert_array_equal(bright, np.full((16, 2), 1.5))
    np.testing.assert_array_equal(dark, np.zeros((16, 2)))


@pytest.mark.parametrize(("most", "share"), [(0.4, 1), (0.2, 0.5), (0.05, 0.125)])
def test_the_reference_is_halved_until_the_limits_of_a_row_allow_it(most, share):
    config = load_bench(ROOT / "bench-plate.toml")
    sound = config.instruments["sound"].model_dump(exclude={"rig"})
    sound["limits"] = {"drive": {"rms": most}}
    content = {**config.model_dump(exclude={"instruments"}), "instruments": {"sound": sound}}
    with open_bench(BenchConfig.model_validate(content), start=False) as opened:
        system = opened.systems["plate"]
        (x, _), found = strongest_row(system)
        assert found == share
        np.testing.assert_allclose(x, share * system.reference_row()[0], rtol=1e-15)
        (reference,) = [c for c in bring_up(system, {}) if c.check == "reference"]
    assert reference.ok
    assert ("the limits allow no more" in reference.detail) == (share < 1)


def test_a_limit_that_allows_nothing_is_told():
    lamp = Lamp()
    lamp.check = refuse
    (reference,) = [c for c in bring_up(lamp, {}) if c.check == "reference"]
    assert reference.detail == "lamp: x: never"


def refuse(x, theta):
    raise LimitError("lamp", "x", "never")


def test_an_instrument_may_be_any():
    (identity, *_) = bring_up(Lamp(), {"bulb": None})
    assert identity.detail == "ACME bulb (any is accepted)"


@pytest.mark.parametrize("contact", ["closed", "open"])
def test_an_interlock_is_asked_first(contact):
    content = load_bench(ROOT / "bench-circuit.toml").model_dump()
    content["interlock"] = {"address": "mock://circuit/interlock", "ok": int(contact == "closed")}
    with open_bench(BenchConfig.model_validate(content), start=False) as opened:
        (permit,) = permitted("lab", opened.protection.permits)
        (started,) = [c for c in bring_up(opened.systems["circuit"], {}) if c.check == "start"]
    assert permit.check == "permits"
    assert permit.ok == started.ok == (contact == "closed")
    assert permit.ok or "the interlock is open" in permit.detail


def test_a_bench_without_interlock_and_guard_has_no_permits_to_tell():
    assert list(permitted("lab", ())) == []


@pytest.mark.parametrize("call", ["identify", "start", "measure", "shutdown"])
def test_whatever_fails_the_safe_state_is_asked_for_last(call):
    lamp = Lamp()
    lamp.instruments[0].dead = call
    checks = list(bring_up(lamp, {}))
    assert lamp.instruments[0].calls[-1] == "shutdown"
    failed = [check for check in checks if not check.ok]
    names = {"identify": "identity", "measure": "reference", "shutdown": "safe-state"}
    assert [check.check for check in failed] == [names.get(call, call)]
    assert f"bulb: {call}: no answer" in failed[0].detail


def test_the_limits_are_what_is_documented():
    page = (ROOT / "docs" / "reference.md").read_text()
    for check, limit in (
        ("reference", f"{bringup.REFERENCE_AT_LEAST:g} to 100"),
        ("noise", f"at most {bringup.NOISE_AT_MOST:g}"),
        ("dark", f"at most {bringup.DARK_AT_MOST:g}"),
        ("dark-noise", f"at most {bringup.DARK_NOISE_AT_MOST:g}"),
        ("row-time", f"at most {bringup.ROW_TIME_AT_MOST:g} times"),
    ):
        assert f"| `{check}` | {limit}" in page
