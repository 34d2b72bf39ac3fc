"""A stop and a close do not wait for what the hardware's thread only waits for."""

import asyncio
import threading

import pytest

from drivers.errors import Aborted
from gated_system import BY_HAND, LIMIT_S, Bench, GatedSystem
from lab.errors import SystemClosed, SystemStopped
from lab.scheduling.scheduler import HardwareScheduler
from lab.systems.base import PhysicalSystem

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]


class SlowBeat:
    """An hour between two shots; says when the second one waits for its slot."""

    def __init__(self) -> None:
        self.waits = threading.Event()
        self.rig = GatedSystem(gated=False)

    def scheduler(self) -> HardwareScheduler:
        return HardwareScheduler(
            {"rig": self.rig}, BY_HAND, shot_period_s={"rig": 3600.0}, wait=self._wait
        )

    def _wait(self, until: threading.Event, seconds: float) -> None:
        self.waits.set()
        until.wait(seconds)

    async def second_of_two_rows(self, scheduler: HardwareScheduler) -> asyncio.Task:
        """Return a pass of which one row is measured, and the other waits."""
        task = await Bench(scheduler, self.rig).submit(1.0, 2.0)
        assert await asyncio.to_thread(self.waits.wait, LIMIT_S)
        return task


async def test_a_stop_does_not_wait_for_the_beat() -> None:
    beat = SlowBeat()
    rig = beat.rig
    async with beat.scheduler() as scheduler:
        task = await beat.second_of_two_rows(scheduler)
        [stop] = await scheduler.stop("stop")
        assert stop.confirmed
        with pytest.raises(SystemStopped):
            await task
        assert rig.calls == ["start", 1.0, "shutdown"]
        await scheduler.recover("rig")
        assert rig.calls == ["start", 1.0, "shutdown", "shutdown", "start"]


async def test_a_close_does_not_wait_for_the_beat() -> None:
    beat = SlowBeat()
    async with asyncio.timeout(LIMIT_S):
        async with beat.scheduler() as scheduler:
            task = await beat.second_of_two_rows(scheduler)
        with pytest.raises(SystemClosed):
            await task
    assert beat.rig.calls == ["start", 1.0, "shutdown"]


class SlowToStart:
    """An instrument whose start waits until the test lets it go on."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self.name, self.calls = name, calls
        self.begun, self.may = threading.Event(), threading.Event()

    def start(self) -> None:
        self.calls.append(f"start {self.name}")
        self.begun.set()
        assert self.may.wait(LIMIT_S)

    def shutdown(self) -> None:
        self.calls.append(f"shutdown {self.name}")


class TwoInstruments(GatedSystem):
    start = PhysicalSystem.start
    shutdown = PhysicalSystem.shutdown


async def test_what_has_not_started_when_a_stop_comes_is_not_started() -> None:
    rig = TwoInstruments()
    rig.instruments = first, second = [SlowToStart(name, rig.calls) for name in "ab"]
    first.may.set()
    second.may.set()
    async with HardwareScheduler({"rig": rig}, BY_HAND) as scheduler:
        await scheduler.stop("first")
        rig.calls.clear()
        for event in (first.may, first.begun):
            event.clear()
        recovering = asyncio.create_task(scheduler.recover("rig"))
        assert await asyncio.to_thread(first.begun.wait, LIMIT_S)
        stopping = asyncio.create_task(scheduler.stop("second"))
        await asyncio.sleep(0)
        first.may.set()
        [stop] = await stopping
        assert stop.confirmed
        with pytest.raises(Aborted, match="b: start: aborted"):
            await recovering
        assert scheduler.status("rig").state == "stopped"
        assert "start b" not in rig.calls
        rig.calls.clear()


async def test_a_stop_in_the_shutdown_of_a_recovery_keeps_it_from_starting() -> None:
    rig = GatedSystem()
    async with HardwareScheduler({"rig": rig}, BY_HAND) as scheduler:
        await scheduler.stop("first")
        begun, may, calm = threading.Event(), threading.Event(), rig.shutdown

        def slow_shutdown() -> None:
            begun.set()
            assert may.wait(LIMIT_S)
            calm()

        rig.shutdown = slow_shutdown
        recovering = asyncio.create_task(scheduler.recover("rig"))
        assert await asyncio.to_thread(begun.wait, LIMIT_S)
        stopping = asyncio.create_task(scheduler.stop("second"))
        await asyncio.sleep(0)
        may.set()
        await stopping
        with pytest.raises(Aborted):
            await recovering
        assert rig.calls.count("start") == 1
        assert scheduler.status("rig").state == "stopped"
