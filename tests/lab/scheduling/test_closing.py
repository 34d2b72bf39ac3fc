"""However a scheduler ends, every caller hears, nothing runs on, and the instruments are safe."""

import asyncio

import pytest

from lab.errors import SystemClosed
from virtual_lab import open_lab
from virtual_rig import ROW_S, SharedInstrument, VirtualRig

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("virtual_time", "no_leaks")]


async def test_a_full_queue_hears_at_once_and_the_row_in_flight_ends() -> None:
    async with open_lab() as lab:
        sent = [await lab.run(5), *[await lab.send(5, priority=i % 3) for i in range(200)]]
        await lab.at(0.3)
        [running] = lab.scheduler.status("rig").running
        await lab.scheduler.close()
        assert lab.clock.time() == 2 * ROW_S
        for each in sent:
            assert isinstance(await each.error(), SystemClosed)
            assert each.ended_s == (2 * ROW_S if each.name == running else 0.3)
        assert isinstance(await lab.refusal(), SystemClosed)
    assert len(lab.rig.calls) == 2
    assert lab.rig.times("shutdown") == [2 * ROW_S]


async def test_passes_under_a_reservation_are_told_too() -> None:
    async with open_lab() as lab:
        held = await lab.scheduler.reserve("rig", "me", 60.0)
        sent = [await lab.run(5, reservation=held.number), await lab.send(5)]
        sent.append(await lab.send(5, reservation=held.number))
        await lab.scheduler.close()
        for each in sent:
            assert isinstance(await each.error(), SystemClosed)
        assert lab.scheduler.status("rig").reservation is None


async def test_all_systems_are_left_safe_even_if_they_share_instruments() -> None:
    laser = SharedInstrument("laser")
    rigs = [VirtualRig(name, instruments=[laser]) for name in "abc"]
    async with open_lab(*rigs) as lab:
        for name in "abc":
            await lab.send(5, system=name)
        await lab.at(0.3)
    assert all(rig.events[-1][1] == "shutdown" for rig in rigs)


async def test_closing_again_does_nothing() -> None:
    async with open_lab() as lab:
        await asyncio.gather(*(lab.scheduler.close() for _ in range(3)))
        await lab.scheduler.close()
    assert len(lab.rig.times("shutdown")) == 1


async def test_a_close_that_is_cancelled_still_ends_safely() -> None:
    async with open_lab() as lab:
        running = await lab.run(5)
        closing = asyncio.create_task(lab.scheduler.close())
        await lab.at(0.1)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert lab.clock.time() == ROW_S
        assert not lab.rig.started
        assert isinstance(await running.error(), SystemClosed)


async def test_a_close_while_a_pass_waits_for_company_does_not_wait_for_it() -> None:
    async with open_lab(VirtualRig(batch_rows=4), company_wait_s=10.0) as lab:
        waits = await lab.send(1)
        await lab.at(1.0)
        await lab.scheduler.close()
        assert lab.clock.time() == 1.0
        assert isinstance(await waits.error(), SystemClosed)


async def test_a_close_while_a_system_waits_for_a_shared_instrument() -> None:
    laser = SharedInstrument("laser")
    a, b = VirtualRig("a", instruments=[laser]), VirtualRig("b", instruments=[laser])
    async with open_lab(a, b) as lab:
        await lab.run(5, system="a")
        waits = await lab.send(5, system="b")
        await lab.clock.at_rest()
        await lab.scheduler.close()
        assert isinstance(await waits.error(), SystemClosed)
    assert b.calls == []


async def test_a_safe_state_that_cannot_be_confirmed_is_in_the_status() -> None:
    async with open_lab() as lab:
        lab.rig.fail_shutdown = [OSError("wire cut")]
        await lab.scheduler.close()
        status = lab.scheduler.status("rig")
        assert status.state == "closed"
        assert "wire cut" in status.reason
