"""A fault stops one system until it is recovered."""

import asyncio

import pytest

from drivers.errors import InstrumentTimeout, ProtocolError, reason
from gated_system import Bench, GatedSystem, free_running, make_pass
from lab.errors import SystemFaulted

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]


@pytest.mark.parametrize("error", [InstrumentTimeout("osa", "no answer"), RuntimeError("a bug")])
async def test_a_fault_fails_the_pass_and_all_that_wait(bench: Bench, error: Exception) -> None:
    bench.rig.raises[2.0] = error
    task, waiting = await bench.submit_running(1, 2, 3), await bench.submit(4)
    bench.rig.open_for_good()
    with pytest.raises(type(error)) as caught:
        await task
    assert caught.value is error
    assert bench.rig.calls == ["start", 1, 2, "shutdown"], "safe before anyone hears of it"
    with pytest.raises(SystemFaulted, match=str(error)) as refused:
        await waiting
    assert refused.value.__cause__ is error
    with pytest.raises(SystemFaulted, match=str(error)):
        await bench.scheduler.submit(make_pass(5))
    status = bench.scheduler.status("rig")
    assert (status.state, status.reason, status.waiting) == ("faulted", reason(error), 0)
    assert bench.rig.measured == [1, 2]


async def test_recovery_shuts_down_starts_and_never_reuses_a_shot_number(bench: Bench) -> None:
    bench.rig.raises[2.0] = InstrumentTimeout("osa", "no answer")
    bench.rig.open_for_good()
    with pytest.raises(InstrumentTimeout):
        await bench.scheduler.submit(make_pass(1, 2, 3))
    faulted_since = bench.scheduler.status("rig").since_s
    await asyncio.gather(*(bench.scheduler.recover("rig") for _ in range(3)))
    assert bench.rig.calls[3:] == ["shutdown", "shutdown", "start"]
    status = bench.scheduler.status("rig")
    assert (status.state, status.reason) == ("ok", "")
    assert status.since_s >= faulted_since
    assert (await bench.scheduler.submit(make_pass(9))).shots[0] == 2


async def test_a_system_that_does_not_recover_stays_faulted_with_the_newest_reason(
    bench: Bench,
) -> None:
    bench.rig.raises[1.0] = InstrumentTimeout("osa", "no answer")
    bench.rig.open_for_good()
    with pytest.raises(InstrumentTimeout):
        await bench.scheduler.submit(make_pass(1))
    bench.rig.raises["shutdown"] = ProtocolError("shaper", "garbage")
    bench.rig.raises["start"] = ProtocolError("osa", "still garbage")
    with pytest.raises(ProtocolError, match="still garbage"):
        await bench.scheduler.recover("rig")
    told = bench.scheduler.status("rig").reason
    assert told.startswith("osa: still garbage; ")
    assert "safe state not confirmed: shaper: garbage; " in told
    assert "before that, the shutdown failed" in told
    del bench.rig.raises["start"], bench.rig.raises["shutdown"]
    await bench.scheduler.recover("rig")
    assert bench.scheduler.status("rig").state == "ok"


async def test_recovery_does_not_need_the_shutdown_to_succeed(bench: Bench) -> None:
    bench.rig.raises[1.0] = bench.rig.raises["shutdown"] = InstrumentTimeout("osa", "no answer")
    bench.rig.open_for_good()
    with pytest.raises(InstrumentTimeout):
        await bench.scheduler.submit(make_pass(1))
    await bench.scheduler.recover("rig")
    await bench.scheduler.submit(make_pass(2))
    del bench.rig.raises["shutdown"]


async def test_recovering_a_healthy_system_changes_nothing_and_disturbs_no_pass(
    bench: Bench,
) -> None:
    task = await bench.submit_running(1, 2)
    recovery = asyncio.create_task(bench.scheduler.recover("rig"))
    bench.rig.open_for_good()
    await asyncio.gather(task, recovery)
    assert bench.rig.calls == ["start", 1, 2]


async def test_a_system_that_does_not_start_is_faulted_and_the_others_work() -> None:
    broken, rig = GatedSystem("broken"), GatedSystem()
    broken.raises["start"] = InstrumentTimeout("osa", "no answer")
    async with free_running(broken=broken, rig=rig) as scheduler:
        assert [s.state for s in scheduler.statuses()] == ["faulted", "ok"]
        with pytest.raises(SystemFaulted, match="broken is faulted: osa: no answer"):
            await scheduler.submit(make_pass(1, system="broken"))
        await scheduler.submit(make_pass(1))
        assert broken.calls == ["start", "shutdown"]
        del broken.raises["start"]
        await scheduler.recover("broken")
        await scheduler.submit(make_pass(2, system="broken"))


async def test_fewer_rows_than_asked_for_is_a_fault(bench: Bench) -> None:
    bench.rig.rows_short = 1
    bench.rig.open_for_good()
    with pytest.raises(ProtocolError, match="rig: measured 0 of 1 rows"):
        await bench.scheduler.submit(make_pass(1, 2, 3))
    assert bench.scheduler.status("rig").state == "faulted"


async def test_a_fault_of_one_system_leaves_the_other_alone() -> None:
    a, b = GatedSystem("a"), GatedSystem("b")
    a.raises[1.0] = InstrumentTimeout("osa", "no answer")
    async with free_running(a=a, b=b) as scheduler:
        with pytest.raises(InstrumentTimeout):
            await scheduler.submit(make_pass(1, system="a"))
        assert (await scheduler.submit(make_pass(1, system="b"))).system == "b"
