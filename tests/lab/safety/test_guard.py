"""Whatever becomes of the process that drives a bench, the far end of the wire goes dark."""

import os
import signal
import sys

import pytest

from driving import LIMIT_S, driving
from far_end import FarEnd

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and fork of Linux")


@pytest.mark.parametrize("point", ["before start", "idle", "in a pass"])
def test_after_a_kill_the_guard_makes_it_safe(far_end: FarEnd, tmp_path, point) -> None:
    with driving(far_end.bench(), point, tmp_path / "log") as (process, _):
        if point == "before start":
            far_end.light()
        far_end.wait_until(blocked=False)
        os.kill(process.pid, signal.SIGKILL)
        process.join(LIMIT_S)
        far_end.wait_until(blocked=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("point", ["idle", "in a pass"])
def test_after_a_signal_it_is_safe(far_end: FarEnd, tmp_path, number, point) -> None:
    with driving(far_end.bench(), point, tmp_path / "log") as (process, _):
        far_end.wait_until(blocked=False)
        os.kill(process.pid, number)
        process.join(LIMIT_S)
        far_end.wait_until(blocked=True)


@pytest.mark.parametrize("point", ["exception", "end"])
def test_at_an_orderly_end_it_is_safe_and_the_guard_does_nothing(
    far_end: FarEnd, tmp_path, point
) -> None:
    with driving(far_end.bench(), point, tmp_path / "log") as (process, _):
        process.join(LIMIT_S)
        assert process.exitcode == 0
        assert far_end.state()["blocked"]
    assert not (tmp_path / "log").exists()


def test_a_process_that_stands_still_loses_the_bench_and_drives_no_further_when_it_wakes_up(
    far_end: FarEnd, tmp_path
) -> None:
    bench = far_end.bench(watchdog_s=2.0)
    with driving(bench, "in a pass", tmp_path / "log") as (process, heard):
        far_end.wait_until(blocked=False)
        os.kill(process.pid, signal.SIGSTOP)
        far_end.wait_until(blocked=True)
        profiles = far_end.state()["profiles"]
        os.kill(process.pid, signal.SIGCONT)
        assert heard.poll(LIMIT_S)
        # it notices its own silence, or that the guard has acted and ended: whichever is first
        told = heard.recv()
        assert "stood still for more than 2 s" in told or "the guard process has ended" in told
        process.join(LIMIT_S)
        # the one that may have been on its way when it was stopped
        assert far_end.state()["profiles"] <= profiles + 1
        assert far_end.wait_until(blocked=True)
