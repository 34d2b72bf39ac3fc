"""Closing leaves every system in its safe state, however it comes about."""

import asyncio
import logging
import threading

import pytest

from drivers.errors import InstrumentTimeout
from gated_system import LIMIT_S, Bench, GatedSystem, free_running, make_pass, several_loop_turns
from lab.errors import SystemClosed
from lab.scheduling.scheduler import HardwareScheduler

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]


async def test_close_with_a_full_queue(bench: Bench) -> None:
    running = await bench.submit_running(1, 2, 3)
    waiting = [await bench.submit(value) for value in range(10, 30)]
    closing = [asyncio.create_task(bench.scheduler.close()) for _ in range(2)]
    await several_loop_turns()
    for task in waiting:
        assert isinstance(task.exception(), SystemClosed)
    assert not running.done()
    with pytest.raises(SystemClosed):
        await bench.scheduler.submit(make_pass(5))
    with pytest.raises(SystemClosed):
        await bench.scheduler.recover("rig")
    assert not any(task.done() for task in closing)
    bench.rig.open_gate()
    with pytest.raises(SystemClosed, match="after 1 of 3 rows"):
        await running
    await asyncio.gather(*closing)
    await bench.scheduler.close()
    assert bench.rig.calls == ["start", 1, "shutdown"]
    assert bench.scheduler.status("rig").state == "closed"


async def test_close_reaches_the_safe_state_even_if_it_is_cancelled(bench: Bench) -> None:
    running = await bench.submit_running(1, 2)
    closing = asyncio.create_task(bench.scheduler.close())
    await several_loop_turns()
    closing.cancel()
    await several_loop_turns()
    assert not closing.done()
    bench.rig.open_gate()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert bench.rig.calls == ["start", 1, "shutdown"]
    assert isinstance((await asyncio.gather(running, return_exceptions=True))[0], SystemClosed)


async def test_close_shuts_every_system_down_and_tells_what_it_could_not_confirm(
    caplog: pytest.LogCaptureFixture,
) -> None:
    a, b = GatedSystem("a"), GatedSystem("b")
    a.raises["shutdown"] = InstrumentTimeout("shaper", "no answer")
    async with free_running(a=a, b=b) as scheduler:
        pass
    assert (a.calls, b.calls) == (["start", "shutdown"], ["start", "shutdown"])
    assert "safe state not confirmed" in scheduler.status("a").reason
    assert [r.levelno for r in caplog.records if "shaper: no answer" in r.message] == [
        logging.ERROR
    ]


async def test_a_system_task_cancelled_from_outside_ends_its_passes_and_leaves_a_safe_state(
    bench: Bench,
) -> None:
    running, waiting = await bench.submit_running(1, 2), await bench.submit(3)
    (task,) = [t for t in asyncio.all_tasks() if t.get_name() == "system-rig"]
    task.cancel()
    await several_loop_turns()
    assert not running.done()
    bench.rig.open_gate()
    for ended in (running, waiting):
        with pytest.raises(SystemClosed):
            await ended
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.rig.calls == ["start", 1, "shutdown"]


async def test_an_idle_system_task_cancelled_from_outside_takes_no_more_passes(
    bench: Bench,
) -> None:
    (task,) = [t for t in asyncio.all_tasks() if t.get_name() == "system-rig"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(SystemClosed):
        await bench.scheduler.submit(make_pass(1))
    assert bench.rig.calls == ["start", "shutdown"]


async def test_cancelling_the_opening_closes_what_was_started() -> None:
    slow, entered, go_on = GatedSystem("slow"), threading.Event(), threading.Event()

    def start() -> None:
        entered.set()
        assert go_on.wait(LIMIT_S)
        slow.calls.append("start")

    slow.start = start  # type: ignore[method-assign]
    rig = GatedSystem()
    opening = asyncio.create_task(HardwareScheduler({"rig": rig, "slow": slow}).__aenter__())
    assert await asyncio.to_thread(entered.wait, LIMIT_S)
    opening.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert rig.calls == slow.calls == ["start", "shutdown"]


async def test_before_it_is_entered_and_after_it_is_closed_a_scheduler_takes_nothing() -> None:
    scheduler = HardwareScheduler({"rig": GatedSystem()})
    with pytest.raises(SystemClosed):
        await scheduler.submit(make_pass(1))
    async with scheduler:
        pass
    with pytest.raises(SystemClosed):
        await asyncio.to_thread(scheduler.measure_blocking, make_pass(1))
    with pytest.raises(RuntimeError, match="entered once"):
        await scheduler.__aenter__()
