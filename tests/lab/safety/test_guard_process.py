"""The guard itself: when it acts, on what, and what it leaves behind."""

import os
import queue
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drivers.errors import InstrumentRefused
from drivers.mock.faults import Fault
from far_end import LIMIT_S, FarEnd
from lab.bench import open_bench
from lab.bench_config import BenchConfig, load_bench
from lab.errors import NotPermitted
from lab.guard import (
    BEAT,
    DISMISSED,
    READY,
    TRIP,
    Order,
    guarded_instruments,
    make_safe,
    reason_to_act,
)
from lab.guarding import BenchGuard, launch_guard

ROOT = Path(__file__).parents[3]


def lines(*said: str | None) -> Any:
    found: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    for line in said:
        found.put(line)
    return found


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ([BEAT, BEAT, DISMISSED], None),
        ([BEAT, None], f"process {os.getppid()} is gone"),
        ([BEAT, TRIP + "it hangs"], "it hangs"),
        ([BEAT], f"process {os.getppid()} has been silent for 0.01 s"),
    ],
)
def test_it_acts_on_silence_a_call_and_the_end_but_not_when_dismissed(said, reason) -> None:
    assert reason_to_act(lines(*said), os.getppid(), 0.01) == reason


def test_it_acts_when_its_parent_is_gone_though_something_else_holds_the_pipe_open() -> None:
    strangers = 2**22 + 1  # above the most that a process number can be
    assert reason_to_act(lines(BEAT), strangers, 600.0) == f"process {strangers} is gone"


def test_an_order_is_one_line(far_end: FarEnd) -> None:
    order = Order(far_end.bench(), 7, 1.5, Path("/tmp/log"))
    assert "\n" not in order.as_line()
    assert Order.from_line(order.as_line()) == order


def two(far_end: FarEnd, **second: Any) -> BenchConfig:
    """Return a bench with one more instrument, which is not there."""
    bench = far_end.bench()
    other = bench.instruments["shaper"].model_copy(
        update={"address": "http://127.0.0.1:9"} | second
    )
    return bench.model_copy(update={"instruments": {**bench.instruments, "absent": other}})


def test_one_that_cannot_be_reached_keeps_no_other_from_its_safe_state(far_end: FarEnd) -> None:
    far_end.light()
    outcomes = make_safe(two(far_end), persists_s=0.0)
    assert far_end.state()["blocked"]
    assert outcomes["shaper"] == "safe"
    assert outcomes["absent"].startswith("not confirmed: blockall: 127.0.0.1:9: ")


def test_one_that_fails_once_is_tried_again(far_end: FarEnd) -> None:
    far_end.light()
    far_end.inject(Fault.DROP, "blockall")
    assert make_safe(far_end.bench(), persists_s=LIMIT_S) == {"shaper": "safe"}
    assert far_end.state()["blocked"]


def test_simulated_instruments_in_memory_are_none_of_its_business(far_end: FarEnd) -> None:
    assert make_safe(two(far_end, address="mock://rig/shaper"), 0.0) == {"shaper": "safe"}


@pytest.mark.parametrize("name", ["bench", "bench-circuit", "bench-plate", "bench-redpitaya"])
def test_a_bench_that_lives_in_memory_has_no_guard(name: str) -> None:
    assert launch_guard(load_bench(ROOT / f"{name}.toml")) is None


def test_simulated_instruments_on_sockets_have_one() -> None:
    found = guarded_instruments(load_bench(ROOT / "bench-compose.toml"))
    assert list(found) == ["shaper", "spectrometer"]


def test_as_a_process_it_reports_what_it_did(far_end: FarEnd, tmp_path: Path) -> None:
    far_end.light()
    order = Order(far_end.bench(), os.getpid(), 600.0, tmp_path / "log")
    with subprocess.Popen(
        [sys.executable, "-m", "lab.guard"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            out, err = process.communicate(order.as_line() + "\n", timeout=3 * LIMIT_S)
        finally:
            process.kill()
    assert (out, err, process.returncode) == (READY + "\n", "", 0)
    assert far_end.state()["blocked"]
    report = (tmp_path / "log").read_text()
    assert report.endswith(f" guard of far: process {os.getpid()} is gone; shaper: safe\n")


@pytest.mark.parametrize(
    ("executable", "why"), [("/bin/false", ""), ("/no/such/python", ": .*'/no/such/python'")]
)
def test_without_a_guard_a_bench_is_not_opened(
    far_end: FarEnd, monkeypatch, executable, why
) -> None:
    far_end.light()
    monkeypatch.setattr(sys, "executable", executable)
    with (
        pytest.raises(NotPermitted, match=f"the guard of far did not start{why}$"),
        open_bench(far_end.bench()),
    ):
        pytest.fail("it was opened")
    assert far_end.state()["blocked"]  # closing a driver makes its instrument safe


@pytest.fixture
def guarded(far_end: FarEnd, tmp_path: Path) -> Any:
    """Return a guard with a watchdog of an hour by the test's own clock, and that clock."""
    times = [0.0]
    bench = far_end.bench(watchdog_s=600.0)
    guard = BenchGuard(bench, tmp_path / "log", clock=lambda: times[0])
    guard.launch()
    guard.await_ready()
    yield guard, times
    guard.dismiss()


def test_whoever_stood_still_hears_that_the_guard_may_have_acted(guarded) -> None:
    guard, times = guarded
    heard: list[str] = []
    guard.listen(lambda error: heard.append(str(error)))
    times[0] = 600.0
    guard.check()
    times[0] = 600.1
    for _ in range(2):
        with pytest.raises(NotPermitted, match="stood still for more than 600 s"):
            guard.check()
    assert len(heard) == 1
    guard.rearm()
    guard.check()


def test_it_is_fed_while_instruments_take_their_time_to_open(
    far_end: FarEnd, tmp_path: Path, until: Callable[..., None]
) -> None:
    guard = BenchGuard(far_end.bench(watchdog_s=2.0), tmp_path / "log")
    guard.launch()
    late_s = time.monotonic() + 3.0
    until(lambda: time.monotonic() > late_s)
    guard.await_ready()
    guard.check()
    guard.dismiss()
    assert not (tmp_path / "log").exists()


def test_without_its_process_nothing_is_driven(guarded, until: Callable[..., None]) -> None:
    guard, _ = guarded
    heard: list[str] = []
    guard.listen(lambda error: heard.append(str(error)))
    guard._process.kill()
    until(lambda: heard)
    with pytest.raises(NotPermitted, match="the guard process has ended"):
        guard.check()
    guard.rearm()
    guard.check()


async def test_an_event_loop_that_hangs_loses_the_bench(far_end: FarEnd, tmp_path: Path) -> None:
    bench = far_end.bench(watchdog_s=2.0)
    with open_bench(bench, start=False, guard_log=tmp_path / "log") as opened:
        async with opened.scheduler() as scheduler:
            far_end.light()
            far_end.wait_until(blocked=True)  # blocks this event loop
            with pytest.raises(NotPermitted, match="event loop has hung for 2 s"):
                opened.protection.permits[0].check()
            await scheduler.recover("lamp")
            assert scheduler.status("lamp").state == "ok"


def light_and_refuse_to_block(far_end: FarEnd) -> None:
    far_end.light()
    for _ in range(2):  # the system's shutdown, and the driver's
        far_end.inject(Fault.REFUSE, "blockall")


def test_what_is_not_confirmed_safe_at_the_end_is_left_to_the_guard(
    far_end: FarEnd, tmp_path: Path, until: Callable[..., None]
) -> None:
    log = tmp_path / "log"
    with (
        pytest.raises(InstrumentRefused, match="blockall"),
        open_bench(far_end.bench(), guard_log=log),
    ):
        light_and_refuse_to_block(far_end)
    far_end.wait_until(blocked=True)
    until(log.exists)
