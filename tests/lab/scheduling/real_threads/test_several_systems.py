"""Systems run in parallel, but for those that share an instrument."""

import asyncio
import contextlib
import itertools

import pytest

from gated_system import (
    LIMIT_S,
    FakeInstrument,
    GatedSystem,
    free_running,
    make_pass,
    several_loop_turns,
)
from lab.errors import PassCancelled
from lab.scheduling.scheduler import HardwareScheduler

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]


async def test_systems_run_in_parallel() -> None:
    a, b = GatedSystem("a"), GatedSystem("b")
    async with asyncio.timeout(LIMIT_S), HardwareScheduler({"a": a, "b": b}) as scheduler:
        tasks = [asyncio.create_task(scheduler.submit(make_pass(1, system=s))) for s in "ab"]
        assert (await a.row_begun(), await b.row_begun()) == (1, 1)
        assert (a.measured, b.measured) == ([], [])
        a.open_for_good()
        b.open_for_good()
        await asyncio.gather(*tasks)


async def test_systems_that_share_an_instrument_take_turns() -> None:
    shared = FakeInstrument("laser")
    a, b = GatedSystem("a", [shared]), GatedSystem("b", [shared])
    async with asyncio.timeout(LIMIT_S), HardwareScheduler({"a": a, "b": b}) as scheduler:
        first = [asyncio.create_task(scheduler.submit(make_pass(i, system="a"))) for i in (1, 2)]
        assert await a.row_begun() == 1
        other = asyncio.create_task(scheduler.submit(make_pass(9, pass_id="x", system="b")))
        await several_loop_turns()
        late = asyncio.create_task(scheduler.submit(make_pass(8, priority=1, system="b")))
        await several_loop_turns()
        assert scheduler.status("b").running == []
        await scheduler.cancel("x")
        a.open_gate()
        assert await b.row_begun() == 8, "who asked first goes next, not who just had it"
        assert a.measured == [1]
        a.open_for_good()
        b.open_for_good()
        await asyncio.gather(*first, late)
        assert isinstance((await asyncio.gather(other, return_exceptions=True))[0], PassCancelled)


async def test_systems_that_share_several_instruments_in_any_order_never_deadlock() -> None:
    one, two, three = (FakeInstrument(name) for name in ("one", "two", "three"))
    systems = {
        "".join(i.name for i in chosen): GatedSystem("", chosen)
        for chosen in [(one, two), (two, one), (two, three), (three, one), (three,)]
    }
    async with free_running(**systems) as scheduler:
        names = itertools.islice(itertools.cycle(systems), 200)
        await asyncio.gather(*(scheduler.submit(make_pass(1, 2, system=n)) for n in names))
    assert [len(s.measured) for s in systems.values()] == [80] * 5


async def test_a_system_cancelled_again_while_it_waits_for_its_turn_ends_safe() -> None:
    shared = FakeInstrument("laser")
    a, b = GatedSystem("a", [shared]), GatedSystem("b", [shared])
    async with asyncio.timeout(LIMIT_S), HardwareScheduler({"a": a, "b": b}) as scheduler:
        running = asyncio.create_task(scheduler.submit(make_pass(1, system="a")))
        assert await a.row_begun() == 1
        [task] = [t for t in asyncio.all_tasks() if t.get_name() == "system-b"]
        for _ in range(3):
            task.cancel()
            await several_loop_turns()
        assert "shutdown" not in b.calls, "the other has the instrument"
        a.open_for_good()
        await running
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert b.calls[-1] == "shutdown"
