"""Callers in threads of their own, which wait for their rows."""

import asyncio
import concurrent.futures
import threading
from typing import Any

import pytest

from drivers.errors import InstrumentTimeout, LimitError
from gated_system import LIMIT_S, Bench, GatedSystem, make_pass, several_loop_turns
from lab.errors import SystemClosed, SystemFaulted, UnknownName, WrongThread
from lab.measurement import Measurement
from lab.scheduling.scheduler import HardwareScheduler
from lab.scheduling.system_queue import SystemQueue

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]


async def test_blocking_on_the_loops_own_thread_raises_at_once(bench: Bench) -> None:
    with pytest.raises(WrongThread, match="rig"):
        bench.scheduler.measure_blocking(make_pass(1))
    assert bench.rig.calls == ["start"]


async def test_many_threads_each_get_their_own_rows(bench: Bench) -> None:
    bench.rig.open_for_good()

    def client(number: int) -> list[float]:
        return [
            float(bench.scheduler.measure_blocking(make_pass(10 * number + i)).y[0, 0])
            for i in range(10)
        ]

    got = await asyncio.gather(*(asyncio.to_thread(client, number) for number in range(6)))
    assert got == [[10 * number + i for i in range(10)] for number in range(6)]


async def test_a_blocking_caller_hears_what_went_wrong(bench: Bench) -> None:
    bench.rig.raises[1.0] = InstrumentTimeout("osa", "no answer")
    bench.rig.open_for_good()
    expected = [(1001, LimitError), (1, InstrumentTimeout), (2, SystemFaulted)]
    for value, error in expected:
        with pytest.raises(error):
            await asyncio.to_thread(bench.scheduler.measure_blocking, make_pass(value))
    with pytest.raises(UnknownName):
        await asyncio.to_thread(bench.scheduler.measure_blocking, make_pass(1, system="oven"))


async def test_a_waiting_thread_hears_of_the_close(bench: Bench) -> None:
    thread = asyncio.create_task(asyncio.to_thread(bench.scheduler.measure_blocking, make_pass(1)))
    assert await bench.rig.row_begun() == 1
    closing = asyncio.create_task(bench.scheduler.close())
    await several_loop_turns()
    bench.rig.open_for_good()
    with pytest.raises(SystemClosed):
        await thread
    await closing


async def test_an_interrupt_in_the_waiting_thread_cancels_the_pass(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, interrupted = concurrent.futures.Future.result, threading.Event()

    def interrupted_result(future: Any, timeout: float | None = None) -> Any:
        if threading.current_thread().name == "trainer":
            raise KeyboardInterrupt
        return result(future, timeout)

    def trainer() -> None:
        try:
            bench.scheduler.measure_blocking(make_pass(2))
        except KeyboardInterrupt:
            interrupted.set()

    running = await bench.submit_running(1)
    monkeypatch.setattr(concurrent.futures.Future, "result", interrupted_result)
    thread = threading.Thread(target=trainer, name="trainer")
    thread.start()
    await asyncio.to_thread(thread.join, LIMIT_S)
    assert interrupted.is_set()
    bench.rig.open_for_good()
    await running
    await bench.scheduler.submit(make_pass(3))
    assert bench.rig.measured == [1, 3]


async def test_the_end_of_the_loop_is_told_to_a_blocking_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scheduler = HardwareScheduler({"rig": GatedSystem(gated=False)})

    async def live() -> None:
        async with scheduler:
            pass

    await asyncio.to_thread(asyncio.run, live())
    # as if the loop had ended between the check and the hand-over
    monkeypatch.setattr(SystemQueue, "refuse", lambda queue: None)
    with pytest.raises(SystemClosed, match="event loop has ended"):
        await asyncio.to_thread(scheduler.measure_blocking, make_pass(1))


async def test_a_loop_that_ends_without_a_close_still_leaves_a_safe_state() -> None:
    rig = GatedSystem()
    with concurrent.futures.ThreadPoolExecutor(1) as trainer:

        async def forget_to_close() -> "concurrent.futures.Future[Measurement]":
            scheduler = await HardwareScheduler({"rig": rig}).__aenter__()
            asked = trainer.submit(scheduler.measure_blocking, make_pass(1, 2, 3))
            await rig.row_begun()
            asyncio.get_running_loop().call_soon(rig.open_for_good)
            return asked

        asked = await asyncio.to_thread(asyncio.run, forget_to_close())
        assert isinstance(asked.exception(LIMIT_S), SystemClosed)
    assert rig.calls[0] == "start"
    assert rig.calls[-1] == "shutdown"
