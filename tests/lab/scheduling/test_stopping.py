"""A stop: everything safe at once, whoever holds it, and out of use until it is re-armed."""

import asyncio

import pytest

from drivers.errors import InstrumentTimeout
from lab.errors import NotPermitted, PassCancelled, SystemClosed, SystemFaulted, SystemStopped
from lab.permits import Withdrawal
from lab.protection import Protection
from lab.scheduling.safe_state import WITHIN_S
from virtual_lab import open_lab
from virtual_rig import ROW_S, SharedInstrument, VirtualRig

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("virtual_time", "no_leaks")]


async def test_every_pass_ends_and_the_instruments_are_safe_after_the_call_in_flight() -> None:
    async with open_lab() as lab:
        running = await lab.run(5)
        waiting = [await lab.send(5, priority=i) for i in range(-3, 0)]
        await lab.at(0.1)
        [stopped] = await lab.scheduler.stop("stopped by ann")
        assert (lab.clock.time(), lab.rig.times("abort")) == (ROW_S, [0.1])
        assert stopped.confirmed
        assert stopped.reason == "stopped by ann"
        assert lab.rig.events[-1] == (ROW_S, "shutdown")
        for each, ended_s in [(running, ROW_S), *((w, 0.1) for w in waiting)]:
            error = await each.error()
            assert isinstance(error, SystemStopped)
            assert str(error) == "rig is stopped: stopped by ann"
            assert each.ended_s == ended_s
    assert len(lab.rig.rows) == 1


async def test_nothing_runs_until_somebody_re_arms_it() -> None:
    async with open_lab(shot_period_s={"rig": 1.0}) as lab:
        await (await lab.send(1))
        await lab.scheduler.stop("stop")
        calls = len(lab.rig.calls)
        await lab.at(1000.0)
        status = lab.scheduler.status("rig")
        assert (status.state, status.reason, status.next_try_s) == ("stopped", "stop", None)
        assert isinstance(await lab.refusal(), SystemStopped)
        assert (len(lab.rig.calls), lab.rig.times("start")) == (calls, [0.0])
        await lab.scheduler.recover("rig")
        assert lab.scheduler.status("rig").state == "ok"
        await (await lab.send(2))


async def test_it_ends_passes_under_a_reservation_too() -> None:
    async with open_lab() as lab:
        held = await lab.scheduler.reserve("rig", "me", 60.0)
        sent = [await lab.run(5, reservation=held.number), await lab.send(5)]
        sent.append(await lab.send(5, reservation=held.number))
        await lab.scheduler.stop("stop")
        assert all([isinstance(await each.error(), SystemStopped) for each in sent])
        assert lab.clock.time() == ROW_S


async def test_a_row_that_is_complete_when_it_is_stopped_is_void() -> None:
    async with open_lab() as lab:
        running = await lab.run(1)
        stopping = asyncio.create_task(lab.scheduler.stop("stop"))
        assert isinstance(await running.error(), SystemStopped)
        await stopping


async def test_a_pass_that_was_cancelled_before_the_stop_ends_as_cancelled() -> None:
    async with open_lab() as lab:
        running = await lab.run(2)
        cancelling = asyncio.create_task(lab.scheduler.cancel(running.name))
        await asyncio.sleep(0)
        await lab.scheduler.stop("stop")
        await cancelling
        assert isinstance(await running.error(), PassCancelled)


async def test_stopping_again_asks_the_instruments_again() -> None:
    async with open_lab() as lab:
        await lab.scheduler.stop("first")
        lab.rig.fail_shutdown = [InstrumentTimeout("osa", "no answer")]
        [unsure] = await lab.scheduler.stop("second")
        assert unsure.instruments == {"osa": "no answer"}
        assert not unsure.confirmed
        sure = await asyncio.gather(*(lab.scheduler.stop("third") for _ in range(3)))
        assert all(stop[0].confirmed and stop[0].reason == "first" for stop in sure)
        assert len(lab.rig.times("shutdown")) == 3  # three at once share one


async def test_a_call_that_does_not_return_is_told_and_made_safe_when_it_does() -> None:
    async with open_lab(VirtualRig(instruments=[SharedInstrument("osa")])) as lab:
        hung = await lab.run(1)
        lab.rig.hangs[hung.values[0]] = 50.0
        [stop] = await lab.scheduler.stop("stop")
        assert lab.clock.time() == WITHIN_S
        assert "does not return" in stop.instruments["osa"]
        assert isinstance(await hung.error(), SystemStopped)
        await lab.at(60.0)
        assert lab.rig.times("shutdown")[-1] == 50.0 + ROW_S
        assert lab.rig.times("start") == [0.0]


async def test_a_stop_while_it_starts_or_recovers_holds() -> None:
    rig = VirtualRig(start_s=2.0)
    rig.fail_start = [InstrumentTimeout("osa", "off")]
    async with open_lab(rig) as lab:  # it goes on at 2.0, and its first recovery is under way
        await lab.at(3.0)
        await lab.scheduler.stop("stop")
        assert lab.clock.time() == 4.0
        await lab.at(100.0)
        assert lab.scheduler.status("rig").state == "stopped"
        recovering = asyncio.create_task(lab.scheduler.recover("rig"))
        await lab.at(101.0)
        await lab.scheduler.stop("again")
        await recovering
        assert lab.clock.time() == 102.0
        assert lab.scheduler.status("rig").state == "stopped"
        assert not rig.started


async def test_a_stop_between_two_tries_to_recover_ends_the_tries() -> None:
    async with open_lab() as lab:
        hit = await lab.run(2)
        lab.rig.fail(hit.values[0], "after")
        lab.rig.fail_start = [InstrumentTimeout("osa", "no")] * 3
        await lab.at(2.0)
        await lab.scheduler.stop("stop")
        assert isinstance(await hit.error(), SystemStopped)
        starts = lab.rig.times("start")
        await lab.at(100.0)
        assert lab.rig.times("start") == starts


async def test_all_systems_are_stopped_even_if_they_share_instruments() -> None:
    laser = SharedInstrument("laser")
    rigs = [VirtualRig(name, instruments=[laser]) for name in "abc"]
    async with open_lab(*rigs) as lab:
        sent = [await lab.send(5, system=name) for name in "abc"]
        await lab.at(0.1)
        stops = await lab.scheduler.stop("stop")
        assert [stop.name for stop in stops] == ["a", "b", "c"]
        assert all([isinstance(await each.error(), SystemStopped) for each in sent])
    assert sum(len(rig.calls) for rig in rigs) == 1


@pytest.mark.parametrize("error", [None, InstrumentTimeout("osa", "no answer")])
async def test_a_closed_lab_tells_what_its_close_confirmed(error) -> None:
    async with open_lab(VirtualRig(instruments=[SharedInstrument("osa")])) as lab:
        lab.rig.fail_shutdown = [error]
        await lab.scheduler.close()
        [stop] = await lab.scheduler.stop("stop")
        assert stop.confirmed is (error is None)
        assert ("no answer" in stop.instruments["osa"]) is (error is not None)
        with pytest.raises(SystemClosed):
            await lab.scheduler.recover("rig")


async def test_a_permit_that_is_withdrawn_while_nothing_runs_makes_it_safe_too() -> None:
    rig, permit = VirtualRig(), FakePermit()
    rig.permits = (permit,)
    async with open_lab(rig, protection=Protection((permit,))) as lab:
        await (await lab.send(1))
        await lab.at(10.0)
        permit.withdraw("the interlock is open")
        await lab.clock.at_rest()
        assert rig.events[-1] == (10.0, "shutdown")
        assert lab.scheduler.status("rig").reason == "the interlock is open"


class FakePermit(Withdrawal):
    """A permit whose cause a test takes away."""

    def __init__(self) -> None:
        super().__init__()
        self.persists = True

    def rearm(self) -> None:
        if self.persists:
            self.check()
        self.lift()


async def test_without_a_permit_nothing_is_driven_until_it_is_back_and_re_armed() -> None:
    rig, permit = VirtualRig(), FakePermit()
    rig.permits = (permit,)
    async with open_lab(rig, protection=Protection((permit,))) as lab:
        running = await lab.run(2)
        permit.withdraw("the interlock is open")
        error = await running.error()
        assert str(error) == "rig is faulted: the interlock is open"
        assert lab.clock.time() == ROW_S
        await lab.at(100.0)
        status = lab.scheduler.status("rig")
        assert (status.state, status.reason) == ("faulted", "the interlock is open")
        refusal = await lab.refusal()
        assert isinstance(refusal, SystemFaulted)
        assert "the interlock is open" in str(refusal)
        assert len(rig.rows) == 1
        assert rig.times("start") == [0.0]
        assert not rig.started
        with pytest.raises(NotPermitted, match="the interlock is open"):
            await lab.scheduler.recover("rig")
        permit.persists = False
        await lab.scheduler.recover("rig")
        await (await lab.send(1))
