"""Exclusive use: one owner, fenced by a number, for as long as its heart beats."""

import asyncio
import time

import pytest

from lab.errors import Conflict, ReservationLost, SystemClosed, UnknownName
from virtual_lab import Lab, open_lab
from virtual_rig import ROW_S
from virtual_time import EPOCH_S

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("virtual_time", "no_leaks")]


async def test_only_the_owners_passes_run_and_the_others_wait_however_urgent() -> None:
    async with open_lab() as lab:
        held = await lab.scheduler.reserve("rig", "calibration", 60.0)
        others = [await lab.send(1, "urgent", priority=9), await lab.send(1, "normal")]
        mine = [await lab.send(2, f"mine {i}", reservation=held.number) for i in range(2)]
        for each in mine:
            await each
        await lab.at(5.0)
        assert lab.stretches() == [("mine 0", 2), ("mine 1", 2)]
        lab.scheduler.release("rig", held.number)
        for each in others:
            await each
    assert lab.order()[4:] == ["urgent", "normal"]


async def test_it_is_granted_when_the_call_in_flight_has_ended() -> None:
    async with open_lab(slice_s=10.0) as lab:
        bulk = await lab.run(40, "bulk")
        await lab.at(10.5 * ROW_S)
        held = await lab.scheduler.reserve("rig", "calibration", 60.0)
        assert lab.clock.time() == 11 * ROW_S
        assert len(lab.rig.calls) == 11
        await (await lab.send(1, "mine", reservation=held.number))
        lab.scheduler.release("rig", held.number)
        await bulk
    assert lab.stretches() == [("bulk", 11), ("mine", 1), ("bulk", 29)]


async def test_nobody_else_can_reserve_meanwhile() -> None:
    async with open_lab() as lab:
        held = await lab.scheduler.reserve("rig", "calibration", 60.0)
        with pytest.raises(Conflict, match=r"reserved by calibration for 60 s"):
            await lab.scheduler.reserve("rig", "somebody", 60.0)
        assert lab.scheduler.status("rig").reservation == held
        lab.scheduler.release("rig", held.number)
        assert lab.scheduler.status("rig").reservation is None
        again = await lab.scheduler.reserve("rig", "somebody", 60.0)
        assert again.number > held.number


@pytest.mark.parametrize("ttl_s", [0.0, 0.99, 3601.0, float("nan"), -5.0])
async def test_its_time_to_live_has_limits(ttl_s: float) -> None:
    async with open_lab() as lab:
        with pytest.raises(ValueError, match="ttl_s"):
            await lab.scheduler.reserve("rig", "x", ttl_s)
        assert lab.scheduler.status("rig").reservation is None


async def test_without_a_heartbeat_it_ends_in_time_and_its_passes_with_it() -> None:
    async with open_lab() as lab:
        await lab.at(100.0)
        held = await lab.scheduler.reserve("rig", "calibration", 5.0)
        other = await lab.send(1, "other")
        mine = [await lab.send(100, reservation=held.number) for _ in range(2)]
        assert isinstance(await mine[1].error(), ReservationLost)  # it waited
        assert lab.clock.time() == 105.0
        assert isinstance(await mine[0].error(), ReservationLost)  # it ran
        assert lab.clock.time() < 105.0 + 2 * ROW_S
        await other
        assert lab.clock.time() < 107.0
    assert lab.order()[-2:] == [mine[0].name, "other"]


async def test_heartbeats_keep_it_alive() -> None:
    async with open_lab() as lab:
        held = await lab.scheduler.reserve("rig", "calibration", 2.0)
        for i in range(1, 10):
            await lab.at(1.9 * i)
            renewed = lab.scheduler.heartbeat("rig", held.number)
            assert renewed.expires_s == pytest.approx(EPOCH_S + 1.9 * i + 2.0, abs=1e-6)
            assert renewed.number == held.number
        await lab.at(1.9 * 9 + 1.99)
        assert lab.scheduler.status("rig").reservation is not None
        await lab.at(1.9 * 9 + 2.01)
        assert lab.scheduler.status("rig").reservation is None


async def test_an_old_number_is_refused_whoever_has_the_system_now() -> None:
    async with open_lab() as lab:
        old = await lab.scheduler.reserve("rig", "first", 1.0)
        await lab.at(1.5)
        for _ in range(2):
            assert isinstance(await lab.refusal(reservation=old.number), ReservationLost)
            with pytest.raises(ReservationLost):
                lab.scheduler.heartbeat("rig", old.number)
            with pytest.raises(ReservationLost):
                lab.scheduler.release("rig", old.number)
            await lab.scheduler.reserve("rig", "second", 10.0)
            await lab.at(2.0)
            if lab.scheduler.status("rig").reservation is not None:
                break
        assert lab.scheduler.status("rig").reservation is not None
        assert isinstance(await lab.refusal(reservation=old.number), ReservationLost)
    assert lab.rig.calls == []


async def test_a_number_that_was_never_granted_is_unknown() -> None:
    async with open_lab() as lab:
        held = await lab.scheduler.reserve("rig", "me", 10.0)
        assert isinstance(await lab.refusal(reservation=held.number + 1), UnknownName)


async def test_numbers_rise_across_restarts() -> None:
    numbers = []
    for _ in range(2):
        async with open_lab() as lab:
            for _ in range(3):
                held = await lab.scheduler.reserve("rig", "me", 10.0)
                numbers.append(held.number)
                lab.scheduler.release("rig", held.number)
            await asyncio.sleep(10.0)
    assert numbers == sorted(set(numbers))


async def run_until(lab: Lab, time_s: float, ttl_s: float, end: str) -> None:
    """Reserve, run a long pass, and end the reservation in the middle of a row."""
    held = await lab.scheduler.reserve("rig", "calibration", ttl_s)
    mine = await lab.run(1000, "mine", reservation=held.number)
    await lab.at(time_s)
    if end == "release":
        lab.scheduler.release("rig", held.number)
    assert isinstance(await mine.error(), ReservationLost)


@pytest.mark.parametrize("end", ["release", "expiry"])
async def test_a_running_pass_stops_after_the_row_in_flight(end: str) -> None:
    async with open_lab(slice_s=10.0) as lab:
        await run_until(lab, 5.1, 5.1 if end == "expiry" else 60.0, end)
        assert lab.clock.time() == 5.25
    assert len(lab.rig.calls) == 5.25 / ROW_S


async def test_a_new_owner_gets_the_system_when_the_last_ones_row_has_ended() -> None:
    async with open_lab(slice_s=10.0) as lab:
        first = await lab.scheduler.reserve("rig", "first", 60.0)
        mine = await lab.run(1000, "mine", reservation=first.number)
        await lab.at(5.1)
        lab.scheduler.release("rig", first.number)
        await lab.scheduler.reserve("rig", "second", 60.0)
        assert lab.clock.time() == 5.25
        assert isinstance(await mine.error(), ReservationLost)
        await lab.at(20.0)
    assert len(lab.rig.calls) == 5.25 / ROW_S


async def test_who_gives_up_asking_leaves_no_reservation_behind() -> None:
    async with open_lab() as lab:
        bulk = await lab.run(8, "bulk")
        asking = asyncio.create_task(lab.scheduler.reserve("rig", "gave up", 3600.0))
        await asyncio.sleep(0.1)
        asking.cancel()
        await bulk
        assert lab.clock.time() == 8 * ROW_S


async def test_a_close_while_it_is_asked_for_says_so() -> None:
    async with open_lab() as lab:
        await lab.run(8)
        asking = asyncio.create_task(lab.scheduler.reserve("rig", "late", 60.0))
        await asyncio.sleep(0.1)
        await lab.scheduler.close()
        with pytest.raises(SystemClosed):
            await asking
        with pytest.raises(SystemClosed):
            await lab.scheduler.reserve("rig", "later", 60.0)


async def test_times_are_seconds_since_the_epoch() -> None:
    async with open_lab() as lab:
        await lab.at(7.0)
        held = await lab.scheduler.reserve("rig", "me", 10.0)
    assert (held.since_s, held.expires_s) == (EPOCH_S + 7.0, EPOCH_S + 17.0)
    assert held.since_s <= time.time()


async def test_one_that_was_lost_leaves_a_safe_system_that_was_started_again() -> None:
    async with open_lab() as lab:
        held = await lab.scheduler.reserve("rig", "me", 1.1)
        running = await lab.run(20, reservation=held.number)
        waits = await lab.send(2)
        assert isinstance(await running.error(), ReservationLost)
        await waits
        events = [what for _, what in lab.rig.events]
        assert events == ["start", *running.values[:5], "shutdown", "start", *waits.values]


async def test_one_that_was_lost_while_nobody_measures_leaves_a_safe_system_too() -> None:
    async with open_lab() as lab:
        held = await lab.scheduler.reserve("rig", "me", 2.0)
        await (await lab.run(1, reservation=held.number))
        await lab.at(2.0)
        await lab.clock.at_rest()
        assert lab.rig.times("shutdown") == [2.0]
        assert lab.rig.times("start") == [0.0, 2.0]


async def test_one_that_was_released_leaves_the_system_as_it_is() -> None:
    async with open_lab() as lab:
        held = await lab.scheduler.reserve("rig", "me", 2.0)
        await (await lab.run(1, reservation=held.number))
        lab.scheduler.release("rig", held.number)
        await (await lab.send(1))
        assert lab.rig.times("start") == [0.0]
