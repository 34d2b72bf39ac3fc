"""A faulted system is recovered by itself, with a growing pause, and then by hand."""

import asyncio

import pytest

from drivers.errors import InstrumentTimeout
from lab.errors import SystemClosed, SystemFaulted
from virtual_lab import Lab, Sent, open_lab
from virtual_rig import VirtualRig

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("virtual_time", "no_leaks")]


async def faulted(lab: Lab, failing_starts: int) -> Sent:
    """Let a pass meet a fault at 1.0 s, after which so many starts fail."""
    await lab.at(0.75)
    hit = await lab.run(2)
    lab.rig.fail(hit.values[0], "after")
    lab.rig.fail_start = [InstrumentTimeout("osa", f"start {i}") for i in range(failing_starts)]
    return hit


@pytest.mark.parametrize("failing", [0, 1, 2, 3, 4])
async def test_it_is_tried_at_once_then_after_one_two_four_and_eight_seconds(failing: int) -> None:
    async with open_lab() as lab:
        hit = await faulted(lab, failing)
        m = await hit
        assert m.retried.tolist() == [True, False]
        tries = [1.0, 2.0, 4.0, 8.0, 16.0][: failing + 1]
        assert lab.rig.times("start") == [0.0, *tries]
        assert lab.scheduler.status("rig").state == "ok"


async def test_the_pause_and_the_number_of_tries_can_be_chosen() -> None:
    async with open_lab(recovery_attempts=3, recovery_delay_s=10.0) as lab:
        hit = await faulted(lab, 3)
        assert isinstance(await hit.error(), SystemFaulted)
        assert lab.rig.times("start") == [0.0, 1.0, 11.0, 31.0]


async def test_giving_up_fails_all_and_a_recovery_by_hand_makes_it_work_again() -> None:
    async with open_lab() as lab:
        hit = await faulted(lab, 5)
        waits = [await lab.send(1) for _ in range(3)]
        for each in (hit, *waits):
            assert isinstance(await each.error(), SystemFaulted)
            assert lab.clock.time() == 16.0
        error = await lab.refusal()
        assert isinstance(error, SystemFaulted)
        assert "start 4" in str(error)
        status = lab.scheduler.status("rig")
        assert (status.state, status.next_try_s, status.recovery_tries) == ("faulted", None, 5)
        await lab.at(1000.0)
        assert len(lab.rig.times("start")) == 6
        await lab.scheduler.recover("rig")
        await (await lab.send(3))
        assert lab.rig.times("start")[6:] == [1000.0]


async def test_a_recovery_by_hand_that_fails_tells_why() -> None:
    async with open_lab(recovery_attempts=0) as lab:
        hit = await faulted(lab, 1)
        assert isinstance(await hit.error(), InstrumentTimeout)
        with pytest.raises(InstrumentTimeout, match="start 0"):
            await lab.scheduler.recover("rig")
        assert lab.scheduler.status("rig").state == "faulted"
        await lab.scheduler.recover("rig")
        assert lab.scheduler.status("rig").state == "ok"


async def test_by_hand_one_need_not_wait_for_the_next_try() -> None:
    async with open_lab() as lab:
        hit = await faulted(lab, 3)
        await lab.at(5.0)
        assert lab.scheduler.status("rig").next_try_s == pytest.approx(3.0)
        await lab.scheduler.recover("rig")
        await hit
        assert lab.rig.times("start") == [0.0, 1.0, 2.0, 4.0, 5.0]


async def test_recovering_a_system_that_works_does_nothing() -> None:
    async with open_lab() as lab:
        running = await lab.run(4)
        await lab.scheduler.recover("rig")
        await running
    assert lab.rig.times("start") == [0.0]


async def test_several_who_recover_at_once_start_it_once() -> None:
    async with open_lab(VirtualRig(start_s=2.0), recovery_attempts=0) as lab:
        await lab.at(2.0)
        hit = await lab.run(1)
        lab.rig.fail(hit.values[0], "after")
        await hit.error()
        await asyncio.gather(*(lab.scheduler.recover("rig") for _ in range(5)))
    assert len(lab.rig.times("start")) == 2


async def test_after_rows_were_measured_the_next_fault_is_a_new_one() -> None:
    async with open_lab() as lab:
        for i in range(3):
            hit = await lab.run(2)
            lab.rig.fail(hit.values[0], "after")
            lab.rig.fail_start = [InstrumentTimeout("osa", "no")]
            failed_s = lab.clock.time() + 0.25
            await hit
            assert lab.rig.times("start")[-2:] == [failed_s, failed_s + 1.0], i


async def test_faults_without_a_row_between_them_share_the_tries() -> None:
    async with open_lab(recovery_attempts=3) as lab:
        await lab.run(1)
        sent = [await lab.send(1, client=f"{i}", repeatable=False) for i in range(6)]
        for each in sent:
            lab.rig.fail(each.values[0], "before")
        errors = [await each.error() for each in sent]
    kinds = [InstrumentTimeout] * 4 + [SystemFaulted] * 2
    assert [type(error) for error in errors] == kinds
    assert lab.rig.times("start") == [0.0, 0.25, 1.25, 3.25]


async def test_a_system_that_does_not_start_at_first_is_recovered_too() -> None:
    rig = VirtualRig()
    rig.fail_start = [InstrumentTimeout("osa", "off")] * 3
    async with open_lab(rig) as lab:
        assert lab.scheduler.status("rig").state == "faulted"
        await (await lab.send(1))
        assert lab.rig.times("start") == [0.0, 0.0, 1.0, 3.0]


async def test_a_shutdown_that_fails_does_not_prevent_the_recovery() -> None:
    async with open_lab() as lab:
        hit = await faulted(lab, 0)
        lab.rig.fail_shutdown = [OSError("a"), OSError("b")]
        await hit
        assert lab.clock.time() == 1.5


async def test_waiting_passes_can_be_cancelled_and_can_miss_deadlines_meanwhile() -> None:
    async with open_lab() as lab:
        hit = await faulted(lab, 5)
        await lab.at(3.0)
        await lab.scheduler.cancel(hit.name)
        assert lab.clock.time() == 3.0


async def test_a_close_during_the_pause_ends_everything_at_once() -> None:
    async with open_lab() as lab:
        hit = await faulted(lab, 5)
        await lab.at(5.0)
        await lab.scheduler.close()
        assert lab.clock.time() == 5.0
        assert isinstance(await hit.error(), SystemClosed)
        with pytest.raises(SystemClosed):
            await lab.scheduler.recover("rig")
