"""A steady beat of shots: rows on the beat, idle shots between, every shot counted."""

import numpy as np
import pytest

from drivers.errors import InstrumentTimeout
from virtual_lab import Lab, open_lab
from virtual_rig import VirtualRig

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("virtual_time", "no_leaks")]

PERIOD = {"shot_period_s": {"rig": 1.0}}  # a row takes 0.25 s of it


def begun(lab: Lab) -> list[float]:
    return [call.begun_s for call in lab.rig.calls]


async def test_calls_start_on_the_beat_and_idle_shots_fill_it_up() -> None:
    async with open_lab(**PERIOD) as lab:
        await lab.at(4.3)
        await (await lab.send(3))
        await lab.at(9.6)
        m = await (await lab.send(2))
        await lab.at(13.0)
        status = lab.scheduler.status("rig")
        assert m.shots.tolist() == [6, 7]
        assert (status.idle_shots, status.rows_done, status.next_shot) == (4, 5, 9)
        assert status.late_shots == 0
    np.testing.assert_allclose(begun(lab), 4.3 + np.arange(9), atol=1e-9)


async def test_there_are_no_shots_before_the_first_pass() -> None:
    async with open_lab(**PERIOD) as lab:
        await lab.at(100.0)
        status = lab.scheduler.status("rig")
        assert (status.idle_shots, status.next_shot) == (0, 0)
    assert lab.rig.calls == []


async def test_the_first_shot_is_not_late_however_long_nobody_came() -> None:
    async with open_lab(**PERIOD) as lab:
        await lab.at(7.7)
        await (await lab.send(4))
        assert lab.scheduler.status("rig").late_shots == 0
    np.testing.assert_allclose(begun(lab), 7.7 + np.arange(4), atol=1e-9)


async def test_idle_shots_repeat_the_last_drive() -> None:
    async with open_lab(**PERIOD) as lab:
        sent = await lab.send(3)
        await sent
        await lab.at(6.5)
    assert lab.rig.rows == [*sent.values, *[sent.values[-1]] * 4]


@pytest.mark.parametrize("hang_s", [1.0, 1.5, 2.6])
async def test_after_a_shot_that_took_too_long_the_next_is_late_and_on_the_beat(
    hang_s: float,
) -> None:
    async with open_lab(**PERIOD) as lab:
        sent = await lab.run(5)
        lab.rig.hangs[sent.values[1]] = hang_s
        await sent
        assert lab.scheduler.status("rig").late_shots == 1
        on_time = [0.0, 1.0, 1.0 + np.ceil(0.25 + hang_s)]
    assert begun(lab)[:3] == on_time
    assert np.all(np.array(begun(lab)) % 1.0 == 0.0)


async def test_a_system_that_is_slower_than_its_beat_says_so_at_every_shot() -> None:
    async with open_lab(VirtualRig(call_s=1.25), **PERIOD) as lab:
        sent = await lab.send(5)
        await lab.at(8.5)  # in its last row
        assert lab.scheduler.status("rig").late_shots == 4
        await sent
    assert begun(lab)[:5] == [0.0, 2.0, 4.0, 6.0, 8.0]


async def test_a_beat_is_one_call_of_a_system_that_takes_several_rows() -> None:
    async with open_lab(VirtualRig(batch_rows=4), slice_s=10.0, **PERIOD) as lab:
        await (await lab.send(12))
        await lab.at(4.5)
    assert begun(lab) == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert [len(call.values) for call in lab.rig.calls] == [4, 4, 4, 1, 1]


async def test_failed_and_idle_shots_have_numbers_too() -> None:
    async with open_lab(**PERIOD) as lab:
        first = await lab.run(2)
        lab.rig.fail(first.values[1], "after")
        m = await first  # shots 0, 1 (failed), 2
        await lab.at(4.5)  # and two idle ones
        second = await (await lab.send(1))
        assert (m.shots.tolist(), second.shots.tolist()) == ([0, 2], [5])
        assert lab.scheduler.status("rig").next_shot == len(lab.rig.calls) == 6


async def test_a_fault_of_an_idle_shot_is_recovered_and_the_beat_goes_on() -> None:
    async with open_lab(**PERIOD) as lab:
        sent = await lab.send(1)
        await sent
        lab.rig.fail(sent.values[0], "after", InstrumentTimeout("osa", "idle"))
        await lab.at(2.75)
        await (await lab.send(1))
        assert lab.scheduler.status("rig").state == "ok"
    assert begun(lab) == [0.0, 1.0, 2.0, 3.0]
    assert lab.rig.times("start") == [0.0, 1.25]


async def test_a_close_ends_the_idle_shots() -> None:
    async with open_lab(**PERIOD) as lab:
        await (await lab.send(1))
        await lab.at(5.5)
        await lab.scheduler.close()
        assert lab.clock.time() == 5.5
        await lab.at(20.0)
    assert len(lab.rig.calls) == 6


async def test_the_beat_does_not_wait_for_company() -> None:
    rig = VirtualRig(batch_rows=4)
    async with open_lab(rig, company_wait_s=2.5, **PERIOD) as lab:
        await (await lab.send(4))
        await lab.at(3.3)
        sent = await lab.send(1)
        await sent
    assert begun(lab) == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert rig.calls[4].values == sent.values


async def test_a_beat_longer_than_the_longest_call_is_no_hanging_call() -> None:
    async with open_lab(shot_period_s={"rig": 1000.0}, call_timeout_s=10.0) as lab:
        m = await (await lab.send(3))
        assert len(m.y) == 3
        assert lab.scheduler.status("rig").state == "ok"
