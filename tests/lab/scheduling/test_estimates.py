"""When a pass will start and end: right on a system of exact row times."""

import pytest

from lab.scheduling.status import QueuedPass
from virtual_lab import Lab, open_lab
from virtual_rig import ROW_S, VirtualRig
from virtual_time import EPOCH_S

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("virtual_time", "no_leaks")]


async def learn_row_time(lab: Lab) -> None:
    await (await lab.send(1))


async def check_finish(lab: Lab, queued: list[QueuedPass], within_s: float) -> None:
    """Let all passes end and compare with what was expected of them."""
    sent = {each.name: each for each in lab.sent}
    for each in queued:
        await sent[each.pass_id]
        assert each.finish_s is not None
        ended_s = sent[each.pass_id].ended_s
        assert each.finish_s - EPOCH_S == pytest.approx(ended_s, abs=within_s + 1e-5)
    expected = [each.finish_s for each in queued if each.finish_s is not None]
    assert expected == sorted(expected)


async def test_nothing_is_expected_before_a_row_was_measured() -> None:
    async with open_lab() as lab:
        await lab.run(4)
        await lab.send(4)
        assert [(q.start_s, q.finish_s) for q in lab.scheduler.queued("rig")] == [(None, None)] * 2


async def test_one_clients_passes_start_and_end_when_expected() -> None:
    async with open_lab() as lab:
        await learn_row_time(lab)
        await lab.run(4, "a")
        for name, rows, depth in (("b", 3, 0), ("deep", 2, 5), ("c", 6, 0)):
            await lab.send(rows, name, depth=depth)
        queued = lab.scheduler.queued("rig")
        assert [q.pass_id for q in queued] == ["deep", "a", "b", "c"]
        await check_finish(lab, queued, within_s=ROW_S)  # the row in flight is not deep's
        assert lab.scheduler.queued("rig") == []


async def test_priorities_are_respected() -> None:
    async with open_lab() as lab:
        await learn_row_time(lab)
        for name, rows, priority in (("low", 3, -1), ("high", 2, 5), ("normal", 6, 0)):
            await lab.send(rows, name, priority=priority, client=name)
        queued = lab.scheduler.queued("rig")
        assert [q.pass_id for q in queued] == ["high", "normal", "low"]
        await check_finish(lab, queued, within_s=ROW_S)


@pytest.mark.parametrize("weights", [{}, {"a": 3.0}])
async def test_clients_that_share_are_expected_to_share(weights: dict[str, float]) -> None:
    async with open_lab(weights=weights) as lab:
        await learn_row_time(lab)
        for i, (client, rows) in enumerate([("a", 12), ("b", 20), ("a", 9), ("b", 3)]):
            await lab.send(rows, f"{client}{i}", client=client)
        queued = lab.scheduler.queued("rig")
        await check_finish(lab, queued, within_s=3 * ROW_S)  # slices are one row here


async def test_the_start_of_a_running_pass_is_when_it_started() -> None:
    async with open_lab() as lab:
        await learn_row_time(lab)
        await lab.run(4, "a")
        await lab.send(2, "b")
        await lab.at(3 * ROW_S)
        await lab.clock.at_rest()
        a, b = lab.scheduler.queued("rig")
        assert (a.pass_id, a.running, a.rows, a.rows_done) == ("a", True, 4, 2)
        assert a.start_s == EPOCH_S + ROW_S
        assert (b.pass_id, b.running, b.rows_done) == ("b", False, 0)
        assert b.start_s == a.finish_s == EPOCH_S + 5 * ROW_S


async def test_only_so_many_are_told_the_next_to_finish_first() -> None:
    async with open_lab() as lab:
        await learn_row_time(lab)
        await lab.run(1, "0", client="a")
        for i in range(1, 20):
            await lab.send(1, f"{i}", client="a")
        await lab.send(1000, "long", client="b")
        assert [q.pass_id for q in lab.scheduler.queued("rig", limit=5)] == list("01234")
        assert len(lab.scheduler.queued("rig")) == 21


async def test_nothing_is_expected_of_a_faulted_system() -> None:
    async with open_lab() as lab:
        await learn_row_time(lab)
        hit = await lab.run(2)
        lab.rig.fail(hit.values[0], "after")
        lab.rig.fail_start = [OSError("off")]
        await lab.at(2.5 * ROW_S)
        [queued] = lab.scheduler.queued("rig")
        assert (queued.start_s, queued.finish_s) == (None, None)


async def test_those_who_wait_for_a_reservation_to_end_come_after_its_passes() -> None:
    async with open_lab() as lab:
        await learn_row_time(lab)
        held = await lab.scheduler.reserve("rig", "me", 60.0)
        await lab.send(1, "other", priority=9)
        await lab.run(4, "mine", reservation=held.number)
        mine, other = lab.scheduler.queued("rig")
        assert (mine.pass_id, mine.reservation) == ("mine", held.number)
        assert mine.finish_s == EPOCH_S + 5 * ROW_S
        assert (other.pass_id, other.finish_s) == ("other", None)  # nobody can know


async def test_systems_of_many_rows_a_call_are_expected_by_their_rows() -> None:
    async with open_lab(VirtualRig(batch_rows=8)) as lab:
        await (await lab.send(8))
        await lab.run(16, "a")
        await lab.send(32, "b")
        await check_finish(lab, lab.scheduler.queued("rig"), within_s=0.0)
