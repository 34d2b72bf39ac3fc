"""A pass can be cancelled at every point of its life, and no row of it follows its end."""

import asyncio
import time

import pytest

from drivers.errors import InstrumentTimeout
from lab.errors import PassCancelled, UnknownName
from lab.scheduling.scheduler import CHECK_ON_LOOP
from virtual_lab import Lab, Sent, open_lab
from virtual_rig import ROW_S
from virtual_time import REAL_LIMIT_S, running_loop

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("virtual_time", "no_leaks")]

BY = pytest.mark.parametrize("by", ["cancel", "task"])


async def end(lab: Lab, sent: Sent, by: str) -> None:
    """Cancel a pass by its id or by its caller's task, and wait for its end."""
    if by == "cancel":
        await lab.scheduler.cancel(sent.name)
        with pytest.raises(PassCancelled) as raised:
            await sent
        error: BaseException | None = raised.value
    else:
        sent.task.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await sent
        error = cancelled.value.__cause__
    assert isinstance(error, PassCancelled)
    rows = 0 if error.measured is None else len(error.measured.y)
    assert str(error).startswith(f"pass {sent.name} on rig ended after {rows} of")


async def test_before_it_is_queued_there_is_nothing_to_cancel_but_the_task() -> None:
    async with open_lab() as lab:
        large = await lab.send(CHECK_ON_LOOP)  # its arrays are checked in another thread
        with pytest.raises(UnknownName, match="no pass 'pass 0' waits or runs"):
            await lab.scheduler.cancel(large.name)
        large.task.cancel()
        await asyncio.wait([large.task])
        assert large.task.cancelled()
        await lab.at(10.0)
    assert lab.rig.calls == []


async def test_a_blocking_caller_that_was_stopped_before_queues_nothing() -> None:
    async with open_lab() as lab:
        request = lab.request(3)
        with pytest.raises(PassCancelled, match="before it was queued"):
            await asyncio.to_thread(lab.scheduler.measure_blocking, request, lambda: True)
        await lab.at(10.0)
    assert lab.rig.calls == []


@BY
async def test_a_waiting_pass_ends_at_once(by: str) -> None:
    async with open_lab() as lab:
        running = await lab.run(8, priority=1)
        waiting = await lab.send(3)
        await lab.at(0.6)
        await end(lab, waiting, by)
        assert lab.clock.time() == pytest.approx(0.6)
        await running
    assert lab.order() == [running.name] * 8


@BY
async def test_a_pass_between_its_slices_ends_at_once(by: str) -> None:
    async with open_lab() as lab:
        a, b = await lab.run(8, "a", client="a"), await lab.send(8, "b", client="b")
        await lab.at(1.5 * ROW_S)
        assert lab.order() == ["a", "b"]
        await end(lab, a, by)
        assert lab.clock.time() == pytest.approx(1.5 * ROW_S)
        await b
    assert lab.order().count("a") == 1


@BY
@pytest.mark.parametrize("slice_s", [0.02, 10.0])
async def test_a_running_pass_ends_after_the_row_in_flight(by: str, slice_s: float) -> None:
    async with open_lab(slice_s=slice_s) as lab:
        running = await lab.run(8)
        await lab.at(3.5 * ROW_S)
        await end(lab, running, by)
        assert lab.clock.time() == 4 * ROW_S
        await lab.at(10.0)
    assert len(lab.rig.calls) == 4


@BY
async def test_a_pass_cancelled_during_its_last_row_is_cancelled(by: str) -> None:
    async with open_lab() as lab:
        running = await lab.run(2)
        await lab.at(1.5 * ROW_S)
        await end(lab, running, by)
        assert lab.clock.time() == 2 * ROW_S


async def test_a_pass_that_has_ended_cannot_be_cancelled() -> None:
    async with open_lab() as lab:
        done = await lab.send(2)
        await done
        with pytest.raises(UnknownName):
            await lab.scheduler.cancel(done.name)


@BY
async def test_one_of_several_in_a_slice_ends_after_the_row_in_flight(by: str) -> None:
    async with open_lab(slice_s=10.0) as lab:
        await lab.run(1)
        sent = [await lab.send(4, name) for name in "abc"]
        await lab.at(2.5 * ROW_S)
        assert lab.scheduler.status("rig").running == ["a", "b", "c"]
        await end(lab, sent[1], by)
        assert lab.clock.time() == 3 * ROW_S
        for each in (sent[0], sent[2]):
            await each
        assert lab.clock.time() == 9 * ROW_S
    assert lab.stretches()[1:] == [("a", 4), ("c", 4)]


async def test_cancelled_twice_it_ends_once() -> None:
    async with open_lab() as lab:
        running = await lab.run(8)
        await asyncio.gather(*(lab.scheduler.cancel(running.name) for _ in range(3)))
        assert isinstance(await running.error(), PassCancelled)


@pytest.mark.parametrize("late_s", [0.0, 0.1])
async def test_a_fault_in_the_row_in_flight_is_told_to_whoever_cancelled(late_s: float) -> None:
    async with open_lab() as lab:
        running = await lab.run(8)
        lab.rig.fail(running.values[1], "after")
        await lab.at(ROW_S + late_s)
        await lab.clock.at_rest()
        await lab.scheduler.cancel(running.name)
        assert isinstance(await running.error(), InstrumentTimeout)
        await lab.at(10.0)
    assert len(lab.rig.calls) == 2  # it is not repeated


async def test_a_cancelled_pass_leaves_its_place_and_its_id() -> None:
    async with open_lab(max_waiting=1) as lab:
        await lab.run(4)
        first = await lab.send(2, "name")
        await lab.scheduler.cancel("name")
        second = await lab.send(2, "name")
        m = await second
    assert isinstance(await first.error(), PassCancelled)
    assert m.y[:, 0].tolist() == second.values


async def test_a_thousand_that_are_cancelled_while_they_wait_cost_no_hardware_time() -> None:
    async with open_lab(max_waiting_per_client=2000) as lab:
        await lab.run(1)
        sent = [await lab.send(1, priority=i % 3, depth=i % 5) for i in range(1000)]
        keep = sent[::100]
        for each in sent:
            if each not in keep:
                each.task.cancel()
        for each in keep:
            await each
        assert running_loop().time() == (1 + len(keep)) * ROW_S


async def test_cancelled_as_its_next_slice_begins_it_takes_no_place_in_the_queue() -> None:
    async with open_lab(slice_s=0.02, max_waiting_rows=10) as lab:
        running = await lab.run(10)
        await lab.at(1.5 * ROW_S)
        await lab.at(2 * ROW_S)
        # the loop stands still until the hardware has begun the planned slice, unheard of
        limit_s = time.monotonic() + REAL_LIMIT_S
        while len(lab.rig.calls) < 3:
            assert time.monotonic() < limit_s, "the third row never began"
        running.task.cancel()
        await lab.at(2.5 * ROW_S)
        other = await lab.send(10)
        await other
        assert running.task.cancelled()
        assert lab.clock.time() == 13 * ROW_S
    assert len(lab.rig.calls) == 13
