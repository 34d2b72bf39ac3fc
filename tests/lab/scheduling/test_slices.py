"""Long passes are cut into slices, and what a pass gets back does not depend on the cuts."""

import numpy as np
import pytest

from drivers.row_key import row_keys
from virtual_lab import open_lab
from virtual_rig import VirtualRig
from virtual_time import EPOCH_S

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("virtual_time", "no_leaks")]

ROW_S = 1 / 64
SLICE_ROWS = 16
SLICE_S = SLICE_ROWS * ROW_S


async def test_a_bulk_pass_makes_room_after_every_slice() -> None:
    async with open_lab(VirtualRig(call_s=ROW_S), slice_s=SLICE_S) as lab:
        bulk = await lab.send(100, "bulk", client="bulk")
        await lab.at(10.5 * ROW_S)
        other = await lab.send(3, "other", client="other")
        await other
        await bulk
    # the first row shows how long a row takes; then come whole slices
    assert lab.stretches() == [("bulk", 1 + SLICE_ROWS), ("other", 3), ("bulk", 99 - SLICE_ROWS)]


async def test_an_equal_waits_at_most_a_slice_whenever_it_comes() -> None:
    async with open_lab(VirtualRig(call_s=ROW_S), slice_s=SLICE_S) as lab:
        await lab.send(2000, client="bulk")
        waits = []
        for i in range(40):
            await lab.at(0.71 * i + 0.01)
            came_s = lab.clock.time()
            await (await lab.send(1, client="interactive"))
            waits.append(lab.clock.time() - ROW_S - came_s)
    assert max(waits) <= SLICE_S
    assert max(waits) > SLICE_S / 2  # it did wait for slices


async def test_a_higher_priority_waits_for_the_row_in_flight_only() -> None:
    async with open_lab(VirtualRig(call_s=ROW_S), slice_s=10.0) as lab:
        bulk = await lab.send(600, "bulk", client="bulk")
        for i in range(1, 9):
            await lab.at(i + 0.3 * ROW_S)
            await (await lab.send(1, f"urgent {i}", client="interactive", priority=1))
            assert lab.clock.time() == i + 2 * ROW_S
        await bulk


async def test_an_equal_priority_does_not_cut_the_running_slice() -> None:
    async with open_lab(VirtualRig(call_s=ROW_S), slice_s=1.0) as lab:
        bulk = await lab.send(200, "bulk", client="bulk")
        await lab.at(0.5)
        other = await lab.send(1, "other", client="other")
        await other
        assert lab.clock.time() == pytest.approx(ROW_S + 1.0 + ROW_S)
        await bulk


async def test_a_slice_holds_at_least_one_row_however_slow() -> None:
    async with open_lab(VirtualRig(call_s=30.0), slice_s=0.02) as lab:
        a, b = await lab.send(2, "a", client="a"), await lab.send(2, "b", client="b")
        await a
        await b
    assert lab.order() == ["a", "b", "a", "b"]


async def test_interleaved_passes_each_get_their_own_rows_in_their_own_order() -> None:
    async with open_lab(VirtualRig(call_s=ROW_S), slice_s=2 * ROW_S) as lab:
        sent = [await lab.send(5 + i, client=f"{i % 3}", priority=i % 2) for i in range(9)]
        results = [await each for each in sent]  # and the lab checks the rows of each
    assert len(lab.stretches()) > len(sent)
    for each, m in zip(sent, results, strict=True):
        mine = [call for call in lab.rig.calls if call.values[0] in each.values]
        assert [call.values[0] for call in mine] == each.values
        np.testing.assert_allclose(m.row_s - EPOCH_S, [c.begun_s for c in mine], atol=1e-6)
        assert m.shots.tolist() == [lab.rig.rows.index(value) for value in each.values]
        assert m.started_s == m.row_s[0]
        assert m.finished_s == pytest.approx(EPOCH_S + mine[-1].begun_s + ROW_S, abs=1e-6)


async def test_each_row_keeps_its_key_through_the_cuts() -> None:
    async with open_lab(VirtualRig(call_s=ROW_S), slice_s=2 * ROW_S) as lab:
        sent = [
            await lab.send(6, client="a", keys=row_keys(0, 100, 6, 1.0)),
            await lab.send(6, client="b", keys=row_keys(0, 200, 6, 1.0)),
        ]
        for each in sent:
            await each
    assert len(lab.stretches()) > 2
    for first, each in zip((100, 200), sent, strict=True):
        keys = {c.values[0]: c.keys for c in lab.rig.calls}
        assert [keys[value] for value in each.values] == [[first + i] for i in range(6)]


async def test_a_pass_that_is_complete_is_delivered_before_its_slice_ends() -> None:
    async with open_lab(VirtualRig(call_s=ROW_S), slice_s=SLICE_S) as lab:
        await (await lab.send(1))
        first, second = await lab.send(2), await lab.send(10)
        await first
        assert lab.clock.time() == pytest.approx(3 * ROW_S)
        await second
    assert first.ended_s == pytest.approx(3 * ROW_S)
    assert second.ended_s == pytest.approx(13 * ROW_S)
