"""Rows of several passes and clients in one instrument call, where the system takes several."""

import pytest

from drivers.errors import LimitError
from drivers.row_key import row_keys
from virtual_lab import Lab, Sent, open_lab
from virtual_rig import ROW_S, VirtualRig

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("virtual_time", "no_leaks")]

COMPANY_S = 3.0


def calls(lab: Lab) -> list[list[str]]:
    """Return which pass each row belongs to, call by call."""
    order = iter(lab.order())
    return [[next(order) for _ in call.values] for call in lab.rig.calls]


async def all_of(*sent: Sent) -> None:
    for each in sent:
        await each


async def test_rows_of_several_clients_share_a_call_and_each_gets_its_own_back() -> None:
    async with open_lab(VirtualRig(batch_rows=4)) as lab:
        await lab.run(4, "running")
        sent = [await lab.send(1, name, client=name) for name in "abcd"]
        await all_of(*sent)  # the lab checks the rows
        assert lab.clock.time() == 2 * ROW_S
    assert calls(lab) == [["running"] * 4, ["a", "b", "c", "d"]]
    assert [(await each).shots.tolist() for each in sent] == [[4], [5], [6], [7]]


async def test_a_pass_may_end_in_the_middle_of_a_call_and_the_next_begin_there() -> None:
    async with open_lab(VirtualRig(batch_rows=4), slice_s=10.0) as lab:
        await lab.run(4, "running")
        sent = [await lab.send(rows, name) for name, rows in (("a", 3), ("b", 6), ("c", 2))]
        await all_of(*sent)
    assert calls(lab)[1:] == [["a", "a", "a", "b"], ["b"] * 4, ["b", "c", "c"]]


async def test_slices_are_whole_calls_while_there_are_rows_to_fill_them() -> None:
    rig = VirtualRig(batch_rows=8)
    async with open_lab(rig, slice_s=1.7 * ROW_S) as lab:  # 1.7 calls
        await (await lab.send(803))
    assert {len(call.values) for call in rig.calls[:-1]} == {8}


async def test_a_batch_waits_for_company_exactly_as_long_as_it_may() -> None:
    async with open_lab(VirtualRig(batch_rows=4), company_wait_s=COMPANY_S) as lab:
        await lab.at(1.0)
        sent = [await lab.send(1, "a")]
        await lab.at(3.0)
        sent.append(await lab.send(2, "b", client="b"))
        await all_of(*sent)
    assert calls(lab) == [["a", "b", "b"]]
    assert lab.rig.calls[0].begun_s == 1.0 + COMPANY_S


async def test_a_full_batch_waits_for_nobody() -> None:
    async with open_lab(VirtualRig(batch_rows=4), company_wait_s=COMPANY_S) as lab:
        sent = [await lab.send(3, "a")]
        await lab.at(1.0)
        sent.append(await lab.send(1, "b"))
        await all_of(*sent)
    assert lab.rig.calls[0].begun_s == 1.0


async def test_a_system_of_single_rows_waits_for_no_company() -> None:
    async with open_lab(company_wait_s=COMPANY_S) as lab:
        await (await lab.send(1))
        assert lab.clock.time() == ROW_S


async def test_one_that_leaves_while_waiting_for_company_does_not_hold_up_the_next() -> None:
    async with open_lab(VirtualRig(batch_rows=4), company_wait_s=COMPANY_S) as lab:
        leaves = await lab.send(1)
        await lab.at(2.0)
        await lab.scheduler.cancel(leaves.name)
        await lab.at(2.5)
        await (await lab.send(1))
    assert [call.begun_s for call in lab.rig.calls] == [2.5 + COMPANY_S]


async def test_rows_with_and_without_keys_do_not_share_a_call() -> None:
    async with open_lab(VirtualRig(batch_rows=4), slice_s=10.0) as lab:
        await lab.run(4, "running")
        sent = [
            await lab.send(2, "keys a", keys=row_keys(0, 10, 2, 1.0)),
            await lab.send(1, "keys b", keys=row_keys(0, 20, 1, 1.0)),
            await lab.send(2, "none"),
            await lab.send(1, "keys c", keys=row_keys(0, 30, 1, 1.0)),
        ]
        await all_of(*sent)
    assert calls(lab)[1:] == [["keys a", "keys a", "keys b"], ["none"] * 2, ["keys c"]]
    assert [call.keys for call in lab.rig.calls[1:]] == [[10, 11, 20], [], [30]]


async def test_keys_follow_their_rows_into_shared_calls() -> None:
    async with open_lab(VirtualRig(batch_rows=4)) as lab:
        await lab.run(4, "running")
        sent = [
            await lab.send(5, client=c, keys=row_keys(0, 100 * i, 5, 1.0))
            for i, c in enumerate("abc")
        ]
        await all_of(*sent)
    keys = {v: k for call in lab.rig.calls[1:] for v, k in zip(call.values, call.keys, strict=True)}
    for i, each in enumerate(sent):
        assert [keys[value] for value in each.values] == [100 * i + row for row in range(5)]


async def test_a_limit_error_in_a_shared_call_is_the_fault_of_its_own_pass_alone() -> None:
    async with open_lab(VirtualRig(batch_rows=4)) as lab:
        await lab.run(4, "running")
        good = await lab.send(1, "good")
        bad = await lab.send(2, "bad")
        late = await lab.send(1, "late")
        lab.rig.refuses.add(bad.values[1])
        assert isinstance(await bad.error(), LimitError)
        await all_of(good, late)
        assert lab.scheduler.status("rig").state == "ok"
        assert lab.scheduler.status("rig").next_shot == 6  # nothing of the bad one was sent
    assert calls(lab)[1:] == [["good"], ["late"]]


async def test_who_is_cancelled_during_a_refused_shared_call_is_not_tried_alone() -> None:
    rig = VirtualRig(batch_rows=4)
    async with open_lab(rig) as lab:
        await lab.run(4, "running")
        bad, cancelled = await lab.send(1, "bad"), await lab.send(1, "cancelled")
        rig.refuses.add(bad.values[0])
        ending: list[object] = []

        def cancel_meanwhile() -> None:
            lab.clock.call_soon_threadsafe(
                lambda: ending.append(lab.clock.create_task(lab.scheduler.cancel("cancelled")))
            )
            lab.clock.sleep(0.01)

        rig.before_refusing = cancel_meanwhile
        await bad.error()
        await cancelled.error()
    assert calls(lab)[1:] == []


async def test_a_higher_priority_gets_into_the_very_next_call() -> None:
    async with open_lab(VirtualRig(batch_rows=4), slice_s=10.0) as lab:
        bulk = await lab.run(400, "bulk")
        await lab.at(10.3 * ROW_S)
        urgent = await lab.send(1, "urgent", client="b", priority=1)
        await all_of(urgent, bulk)
    assert urgent.ended_s == 12 * ROW_S
    assert calls(lab)[11] == ["urgent", "bulk", "bulk", "bulk"]
