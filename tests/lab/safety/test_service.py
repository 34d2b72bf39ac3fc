"""The service as one process in front of a real wire: its ends, its stop, its watchdog."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driving import LIMIT_S, serving
from far_end import FarEnd
from lab.client import Client
from lab.errors import LabError, SystemStopped

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and fork of Linux")


def rows(count: int = 1) -> dict[str, Any]:
    return {"x": np.full((count, 1), 3.0), "theta": np.full((count, 1), 0.5)}


@contextmanager
def pass_of_many_rows(client: Client, **options: Any) -> Iterator[list[Exception]]:
    """Yield what a pass that runs meanwhile ends with; it must have ended by the end."""
    errors: list[Exception] = []

    def measure() -> None:
        with Client(client.url, name="bob") as own:
            try:
                own.measure("lamp", **rows(100_000), **options)
            except LabError as error:
                errors.append(error)

    thread = threading.Thread(target=measure)
    thread.start()
    yield errors
    thread.join(LIMIT_S)
    assert not thread.is_alive()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_however_the_service_ends_in_a_pass_it_is_safe(far_end: FarEnd, tmp_path, number) -> None:
    far_end.light()
    with serving(far_end.bench(), tmp_path) as (process, client):
        assert far_end.state()["blocked"], "the start after a crash makes it safe"
        with pass_of_many_rows(client) as errors:
            far_end.wait_until(blocked=False)
            os.kill(process.pid, number)
            process.join(LIMIT_S)
            far_end.wait_until(blocked=True)
        assert errors
        assert (process.exitcode == 0) is (number != signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_however_the_service_ends_while_nobody_measures_it_is_safe(
    far_end: FarEnd, tmp_path, number
) -> None:
    with serving(far_end.bench(), tmp_path) as (process, client):
        client.measure("lamp", **rows())
        assert not far_end.state()["blocked"]
        os.kill(process.pid, number)
        process.join(LIMIT_S)
        far_end.wait_until(blocked=True)


def test_a_stop_interrupts_whoever_holds_the_system_until_it_is_recovered(
    far_end: FarEnd, tmp_path: Path
) -> None:
    bench = far_end.bench()
    slow = bench.instruments["shaper"].model_copy(update={"row_time_s": 1000.0})
    with serving(bench.model_copy(update={"instruments": {"shaper": slow}}), tmp_path) as (_, lab):
        held = lab.reserve("lamp", 600.0)
        with pass_of_many_rows(lab, reservation=held.number) as errors:
            far_end.wait_until(blocked=False)  # and the filter settles for a quarter of an hour
            assert lab.stop() == {
                "confirmed": True,
                "systems": [
                    {
                        "name": "lamp",
                        "reason": "stopped by ann",
                        "instruments": {"shaper": "safe"},
                    }
                ],
            }
            assert far_end.state()["blocked"]
        assert [str(error) for error in errors] == ["lamp is stopped: stopped by ann"]
        assert isinstance(errors[0], SystemStopped)
        assert lab.system("lamp")["status"]["state"] == "stopped"
        with pytest.raises(SystemStopped):
            lab.measure("lamp", **rows(), reservation=held.number)
        assert lab.stop()["confirmed"]
        assert lab.recover("lamp")["state"] == "ok"
        assert far_end.state()["blocked"]


def test_a_lost_reservation_leaves_it_safe(far_end: FarEnd, tmp_path: Path) -> None:
    with serving(far_end.bench(), tmp_path) as (_, lab):
        held = lab.reserve("lamp", 3.0)
        assert lab.measure("lamp", **rows(), reservation=held.number)["y"].tolist() == [[3.0, 0.5]]
        assert not far_end.state()["blocked"]
        far_end.wait_until(blocked=True)  # nobody sends heartbeats
        assert lab.measure("lamp", **rows())["y"].tolist() == [[3.0, 0.5]]


def test_a_service_that_stands_still_loses_the_bench_until_somebody_re_arms_it(
    far_end: FarEnd, tmp_path: Path
) -> None:
    with serving(far_end.bench(watchdog_s=2.0), tmp_path) as (process, lab):
        lab.measure("lamp", **rows())
        os.kill(process.pid, signal.SIGSTOP)
        far_end.wait_until(blocked=True)
        os.kill(process.pid, signal.SIGCONT)
        with pytest.raises(LabError, match="stood still for more than 2 s"):
            lab.measure("lamp", **rows())
        status = lab.system("lamp")["status"]
        assert (status["state"], status["next_try_s"]) == ("faulted", None)
        assert far_end.state()["blocked"]
        assert lab.recover("lamp")["state"] == "ok"
        assert lab.measure("lamp", **rows())["y"].tolist() == [[3.0, 0.5]]
    assert "shaper: safe" in (tmp_path / "guard.log").read_text()
