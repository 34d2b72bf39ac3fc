"""Cancelling a pass waits for the row in flight, and for nothing else."""

import asyncio

import pytest

from drivers.errors import InstrumentTimeout
from gated_system import Bench, several_loop_turns
from lab.errors import PassCancelled

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]


async def test_cancelling_a_waiting_pass_ends_it_at_once(bench: Bench) -> None:
    running = await bench.submit_running(1)
    by_id, by_task = await bench.submit(2, 3, pass_id="x"), await bench.submit(4)
    last = await bench.submit(5)
    await bench.scheduler.cancel("x")
    with pytest.raises(PassCancelled, match="pass x on rig ended after 0 of 2 rows"):
        await by_id
    by_task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await by_task
    assert not running.done()
    assert bench.scheduler.status("rig").waiting == 1
    bench.rig.open_for_good()
    await asyncio.gather(running, last)
    assert bench.rig.measured == [1, 5]


async def test_cancelling_a_running_pass_waits_for_the_row_in_flight(bench: Bench) -> None:
    task = await bench.submit_running(1, 2, 3, pass_id="x")
    following = await bench.submit(4)
    cancelling = asyncio.create_task(bench.scheduler.cancel("x"))
    await several_loop_turns()
    assert not task.done()
    assert not cancelling.done()
    bench.rig.open_gate()
    with pytest.raises(PassCancelled, match="after 1 of 3 rows"):
        await task
    await cancelling
    bench.rig.open_for_good()
    m = await following
    assert bench.rig.measured == [1, 4]
    assert m.shots[0] == 1


async def test_a_cancelled_task_waits_for_the_row_in_flight_however_often_it_is_asked(
    bench: Bench,
) -> None:
    task = await bench.submit_running(1, 2, 3)
    following = await bench.submit(4)
    for _ in range(3):
        task.cancel()
        await several_loop_turns()
        assert not task.done()
    bench.rig.open_gate()
    with pytest.raises(asyncio.CancelledError):
        await task
    bench.rig.open_for_good()
    await following
    assert bench.rig.measured == [1, 4]


async def test_a_pass_cancelled_during_its_last_row_is_cancelled(bench: Bench) -> None:
    task = await bench.submit_running(1, pass_id="x")
    cancelling = asyncio.create_task(bench.scheduler.cancel("x"))
    await several_loop_turns()
    bench.rig.open_for_good()
    with pytest.raises(PassCancelled, match="after 1 of 1 rows"):
        await task
    await cancelling


async def test_a_pass_cancelled_before_the_close_is_cancelled(bench: Bench) -> None:
    task = await bench.submit_running(1, 2, pass_id="x")
    others = [asyncio.create_task(bench.scheduler.cancel("x"))]
    await several_loop_turns()
    others.append(asyncio.create_task(bench.scheduler.close()))
    await several_loop_turns()
    bench.rig.open_for_good()
    with pytest.raises(PassCancelled, match="after 1 of 2 rows"):
        await task
    await asyncio.gather(*others)


async def test_a_fault_while_cancelling_is_told(bench: Bench) -> None:
    bench.rig.raises[1.0] = InstrumentTimeout("osa", "no answer")
    task = await bench.submit_running(1, 2, pass_id="x")
    cancelling = asyncio.create_task(bench.scheduler.cancel("x"))
    await several_loop_turns()
    bench.rig.open_for_good()
    with pytest.raises(InstrumentTimeout):
        await task
    await cancelling
    assert bench.scheduler.status("rig").state == "faulted"
