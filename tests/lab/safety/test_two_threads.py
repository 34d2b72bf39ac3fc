"""One thread measures and another one makes safe, at every event on the wire: safe it is."""

import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drivers.errors import Aborted, DriverError
from drivers.transport import open_rigs
from drivers.wires.tap import Event, TappedRigs
from lab.bench import open_bench
from lab.bench_config import BenchConfig, load_bench
from lab.openers import open_instrument
from lab.systems.base import PhysicalSystem

ROOT = Path(__file__).parents[3]
LIMIT_S = 10.0
HEAD_START_S = 0.05  # for a safe state that does not wait for what is under way

LINES = {"lines": 20, "first_line_thz": 192.915}
SHAPER = {"driver": "WaveShaperA", "address": "mock://optics/shaper", "settings": LINES}
SLM = {"driver": "SLMShaper", "address": "mock://optics/slm", "settings": {"lines": 20}}
OSA = {
    "driver": "YokogawaAQ6370",
    "address": "mock://optics/spectrometer",
    "settings": {"start_nm": 773.365, "stop_nm": 776.635, "points": 101, "full_scale_w": 1.6e-6},
}
MCC = {"driver": "MccUsb1208HS", "address": "mock://circuit/daq"}
RED_PITAYA = {"driver": "RedPitayaDAQ", "address": "mock://circuit/redpitaya"}
AUDIO = {"driver": "AudioPlate", "address": "mock://plate/audio"}
DAQ_PLATE = {"driver": "DaqPlate", "address": "mock://plate/daq"}


def load(driver: Any) -> None:
    driver.load(np.zeros(20), np.zeros(20))


def acquire(driver: Any) -> None:
    driver.acquire(np.full((1, *driver.drive.shape), 0.1))


def play(driver: Any) -> None:
    driver.play_and_record(np.full((1, *driver.drive.shape), 0.1))


OPERATIONS = [
    pytest.param(SHAPER, load, id="waveshaper"),
    pytest.param(SLM, load, id="slm"),
    pytest.param(OSA, lambda driver: driver.measure(), id="yokogawa"),
    pytest.param(MCC, acquire, id="mcc"),
    pytest.param(RED_PITAYA, acquire, id="redpitaya"),
    pytest.param(AUDIO, play, id="audio"),
    pytest.param(DAQ_PLATE, play, id="daq plate"),
]


class MadeSafeAt:
    """Let another thread make a driver safe at the n-th event that this one causes."""

    def __init__(self, number: int, how: str) -> None:
        self.driver: Any = None
        self.left, self.how = number, how
        self.thread: threading.Thread | None = None
        self._mine = threading.get_ident()

    def tap(self, event: Event) -> None:
        if self.driver is None or threading.get_ident() != self._mine:
            return
        self.left -= 1
        if self.left < 0 and self.thread is None:
            self.thread = threading.Thread(target=self._make_safe)
            self.thread.start()
            self.thread.join(HEAD_START_S)

    def _make_safe(self) -> None:
        self.driver.abort()
        getattr(self.driver, self.how)()


@pytest.mark.parametrize("how", ["shutdown", "close"])
@pytest.mark.parametrize(("part", "operation"), OPERATIONS)
def test_whenever_another_thread_makes_it_safe_it_stays_so(part, operation, how) -> None:
    plants = {name: {"plant": name} for name in ("optics", "circuit", "plate")}
    bench = BenchConfig.model_validate(
        {"name": "b", "rigs": plants, "instruments": {"one": part}, "systems": {}}
    )
    rigs = open_rigs(bench.rigs)
    rig, name = part["address"].removeprefix("mock://").split("/")
    firmware = rigs[rig].instruments[name]
    for number in range(100):
        other = MadeSafeAt(number, how)
        driver = open_instrument(bench, "one", TappedRigs(rigs, other.tap))
        driver.start()
        other.driver = driver
        with suppress(DriverError):
            operation(driver)
        if other.thread is None:  # it took fewer events
            assert number > 0
            driver.close()
            return
        other.thread.join(LIMIT_S)
        assert not other.thread.is_alive()
        assert firmware.safe, f"made safe at event {number}"
        driver.close()
    pytest.fail("it never ends")


def test_the_end_of_a_bench_aborts_whoever_measures_in_another_thread() -> None:
    bench = load_bench(ROOT / "bench.toml")
    slow = bench.instruments["spectrometer"].model_copy(update={"row_time_s": 1000.0})
    honoured = {"optics": bench.rigs["optics"].model_copy(update={"honour_times": True})}
    parts = {**bench.instruments, "spectrometer": slow}
    ends: list[Exception] = []

    def measure(system: PhysicalSystem) -> None:
        try:
            system.transform(*system.reference_row())
        except DriverError as error:
            ends.append(error)

    with open_bench(bench.model_copy(update={"instruments": parts, "rigs": honoured})) as opened:
        shaper = opened.rig("optics").instruments["shaper"]
        thread = threading.Thread(target=measure, args=(opened.system("optics"),), daemon=True)
        thread.start()
        until = time.monotonic() + LIMIT_S
        while shaper.safe:
            assert time.monotonic() < until
    thread.join(LIMIT_S)
    assert isinstance(ends[0], Aborted)
    assert shaper.safe
