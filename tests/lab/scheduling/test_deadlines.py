"""A result that comes too late is of no use: deadlines, and limits of the time on the hardware."""

import pytest

from lab.errors import DeadlineMissed, PassTimeout
from virtual_lab import open_lab
from virtual_rig import ROW_S
from virtual_time import EPOCH_S

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("virtual_time", "no_leaks")]


async def test_a_pass_whose_deadline_has_passed_is_refused() -> None:
    async with open_lab() as lab:
        await lab.at(10.0)
        assert isinstance(await lab.refusal(deadline_s=EPOCH_S + 9.0), DeadlineMissed)
        assert isinstance(await lab.refusal(deadline_s=EPOCH_S + 10.0), DeadlineMissed)
    assert lab.rig.calls == []


async def test_a_waiting_pass_hears_of_its_deadline_at_once_and_never_runs() -> None:
    async with open_lab() as lab:
        await lab.run(20, "bulk", priority=1)
        late = await lab.send(1, "late", deadline_s=EPOCH_S + 1.1)
        assert isinstance(await late.error(), DeadlineMissed)
        assert lab.clock.time() == pytest.approx(1.1, abs=1e-6)
        await lab.at(10.0)
    assert "late" not in lab.order()


async def test_a_pass_that_is_next_in_the_running_slice_hears_after_the_row_in_flight() -> None:
    async with open_lab(slice_s=10.0) as lab:
        bulk = await lab.run(20, "bulk")
        late = await lab.send(1, "late", deadline_s=EPOCH_S + 1.1)
        assert isinstance(await late.error(), DeadlineMissed)
        assert lab.clock.time() == 1.25
        await bulk
        assert lab.clock.time() == 20 * ROW_S
    assert "late" not in lab.order()


async def test_a_running_pass_stops_between_rows_at_its_deadline() -> None:
    async with open_lab(slice_s=10.0) as lab:
        late = await lab.run(20, "late", deadline_s=EPOCH_S + 1.1)
        error = await late.error()
        assert lab.clock.time() == 1.25
        assert isinstance(error, DeadlineMissed)
        assert "after 5 of 20 rows" in str(error)
        await (await lab.send(1))  # the system goes on
    assert lab.stretches() == [("late", 5), ("pass 1", 1)]


async def test_a_deadline_that_is_met_changes_nothing() -> None:
    async with open_lab() as lab:
        await (await lab.send(4, deadline_s=EPOCH_S + 1.01))
        await lab.at(100.0)


async def test_a_deadline_holds_between_slices_too() -> None:
    async with open_lab() as lab:
        a = await lab.send(8, "a", client="a", deadline_s=EPOCH_S + 1.6)
        b = await lab.send(8, "b", client="b")
        assert isinstance(await a.error(), DeadlineMissed)
        await b
    assert lab.order().count("a") == 4


async def test_a_pass_may_wait_for_long_but_not_run_for_longer_than_its_timeout() -> None:
    async with open_lab() as lab:
        await lab.run(40, "before")
        timed = await lab.send(100, "timed", timeout_s=2.1)
        error = await timed.error()
        assert lab.clock.time() == 40 * ROW_S + 2.25
        assert isinstance(error, PassTimeout)
        assert "after 9 of 100 rows" in str(error)


async def test_time_in_which_others_have_their_slices_counts_towards_the_timeout() -> None:
    async with open_lab() as lab:
        timed = await lab.run(8, "timed", client="a", timeout_s=2.1)
        other = await lab.send(8, "other", client="b")
        assert isinstance(await timed.error(), PassTimeout)
        await other


async def test_the_timeout_runs_from_the_passs_own_first_row() -> None:
    async with open_lab(slice_s=10.0) as lab:
        await lab.run(1)
        first = await lab.send(10, "first")
        timed = await lab.send(8, "timed", timeout_s=8 * ROW_S + 0.1)
        await lab.at(1.5 * ROW_S)
        assert lab.scheduler.status("rig").running == ["first", "timed"]
        await first
        await timed


async def test_the_timeout_does_not_run_while_a_slice_was_cut_before_the_first_row() -> None:
    async with open_lab(slice_s=10.0) as lab:
        await lab.run(1)
        await lab.send(4, "first")
        timed = await lab.send(4, "timed", timeout_s=4 * ROW_S + 0.1)
        await lab.at(2.5 * ROW_S)
        urgent = await lab.send(20, "urgent", priority=1)
        await urgent
        await timed
