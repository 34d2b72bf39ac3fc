"""An instrument call that does not return must not keep its callers waiting for ever."""

import pytest

from lab.errors import PassTimeout, SystemFaulted
from virtual_lab import open_lab
from virtual_rig import ROW_S, VirtualRig

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("virtual_time", "no_leaks")]

TIMEOUT_S = 10.0
HANG = {"call_timeout_s": TIMEOUT_S}


async def test_callers_hear_and_the_system_is_recovered_when_the_call_is_back() -> None:
    async with open_lab(**HANG) as lab:
        hung = await lab.run(3, "hung")
        waits = await lab.send(1, "waits")
        leaves = await lab.send(1, "leaves", on_fault="fail")
        lab.rig.hangs[hung.values[0]] = 100.0
        assert isinstance(await hung.error(), PassTimeout)
        assert isinstance(await leaves.error(), SystemFaulted)
        assert lab.clock.time() == TIMEOUT_S
        assert "does not return" in lab.scheduler.status("rig").reason
        await lab.at(99.0)
        assert lab.rig.times("start") == [0.0]  # nothing is sent while the call is out
        await waits
    assert lab.rig.times("start") == [0.0, 100.25]
    assert lab.order() == ["hung", "waits"]


async def test_a_call_that_comes_back_with_an_error_is_the_same_fault() -> None:
    async with open_lab(**HANG) as lab:
        hung = await lab.run(1)
        lab.rig.hangs[hung.values[0]] = 100.0
        lab.rig.fail(hung.values[0], "after")
        assert isinstance(await hung.error(), PassTimeout)
        await (await lab.send(1))
    assert lab.rig.times("start") == [0.0, 100.25]


async def test_the_time_of_the_slice_itself_is_allowed_for() -> None:
    async with open_lab(slice_s=10.0, **HANG) as lab:
        await (await lab.send(1))
        long = await lab.run(40)
        lab.rig.hangs[long.values[30]] = 9.0
        await long
        assert lab.clock.time() == 41 * ROW_S + 9.0


async def test_a_shared_call_that_hangs_fails_all_its_passes_and_none_runs_later() -> None:
    async with open_lab(VirtualRig(batch_rows=4), **HANG) as lab:
        await lab.run(4)
        sent = [await lab.send(3, client=c) for c in "ab"]
        lab.rig.hangs[sent[0].values[0]] = 50.0
        for each in sent:
            assert isinstance(await each.error(), PassTimeout)
        await lab.at(200.0)
    assert len(lab.rig.calls) == 2


async def test_a_shared_call_that_hangs_and_is_then_refused_runs_nothing_later() -> None:
    async with open_lab(VirtualRig(batch_rows=4), **HANG) as lab:
        await lab.run(4)
        sent = [await lab.send(2, client=c) for c in "ab"]
        lab.rig.refuses.add(sent[0].values[0])
        lab.rig.before_refusing = lambda: lab.clock.sleep(50.0)
        for each in sent:
            assert isinstance(await each.error(), PassTimeout)
        await lab.at(200.0)
    assert len(lab.rig.calls) == 1


async def test_recovering_by_hand_waits_for_the_call() -> None:
    async with open_lab(recovery_attempts=0, **HANG) as lab:
        hung = await lab.run(1)
        lab.rig.hangs[hung.values[0]] = 100.0
        await hung.error()
        await lab.scheduler.recover("rig")
        assert lab.clock.time() == 100.25
        await (await lab.send(1))


async def test_a_close_waits_for_the_call_but_its_callers_do_not() -> None:
    async with open_lab(**HANG) as lab:
        hung = await lab.run(3)
        lab.rig.hangs[hung.values[0]] = 100.0
        await hung.error()
        await lab.scheduler.close()
        assert lab.clock.time() == 100.25
    assert hung.ended_s == TIMEOUT_S
    assert lab.rig.times("shutdown")[-1] == 100.25
