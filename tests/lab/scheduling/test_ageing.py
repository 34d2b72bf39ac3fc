"""Nobody starves: who has waited for `longest_wait_s` gets a slice, and only a slice."""

import asyncio
import itertools

import pytest

from virtual_lab import Lab, Sent, open_lab
from virtual_rig import VirtualRig

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("virtual_time", "no_leaks")]

ROW_S = 1 / 64
SLICE_S = 4 * ROW_S
WAIT_S = 1.0
AGEING = {"slice_s": SLICE_S, "longest_wait_s": WAIT_S}


async def urgent_load(lab: Lab, rows: int, clients: int = 2) -> "list[asyncio.Task[None]]":
    """Keep the hardware busy with passes of high priority; two clients leave no gap."""

    async def client(i: int) -> None:
        while True:
            await (await lab.send(rows, client=f"urgent {i}", priority=9))

    return [asyncio.create_task(client(i)) for i in range(clients)]


async def end(load: "list[asyncio.Task[None]]") -> None:
    for task in load:
        task.cancel()
    await asyncio.gather(*load, return_exceptions=True)


def begun(lab: Lab, sent: Sent) -> list[float]:
    """Return when each row of a pass began, s."""
    return [call.begun_s for call in lab.rig.calls if call.values[0] in sent.values]


@pytest.mark.parametrize("rows", [1, 4, 100])
@pytest.mark.parametrize("head_start", [0, 8])
async def test_a_low_priority_gets_its_slice_within_the_longest_wait(
    rows: int, head_start: int
) -> None:
    async with open_lab(VirtualRig(call_s=ROW_S), **AGEING) as lab:
        lab.clock.turns_before_work = lambda: head_start  # the loop is ahead of the hardware
        load = await urgent_load(lab, rows)
        await lab.at(0.5)
        low = await lab.send(1000, priority=-9, client="low")
        await lab.at(6.5)
        await end(load)
        await lab.scheduler.cancel(low.name)
    times = [0.5, *begun(lab, low), 6.5]
    longest = max(b - a for a, b in itertools.pairwise(times))
    # the slice that runs when it is old enough, and the one that is already planned behind it
    assert longest <= WAIT_S + 2 * SLICE_S + 2 * ROW_S


async def test_ageing_gives_a_slice_and_not_more() -> None:
    async with open_lab(VirtualRig(call_s=ROW_S), **AGEING) as lab:
        load = await urgent_load(lab, 100)
        await lab.at(0.5)
        low = await lab.send(1000, priority=-9, client="low")
        await lab.at(6.0)
        slices = 5
        assert slices <= len(begun(lab, low)) <= slices * SLICE_S / ROW_S
        await end(load)


async def test_a_thousand_old_passes_do_not_overtake_urgent_ones() -> None:
    config = {**AGEING, "max_waiting_per_client": 2000}
    async with open_lab(VirtualRig(call_s=ROW_S), **config) as lab:
        for _ in range(1500):
            await lab.send(4, client="bulk")
        waits = []
        for i in range(50):  # from now on all that still wait are old
            await lab.at(2 * WAIT_S + i * 0.1)
            urgent = await lab.send(1, client="urgent", priority=5)
            await urgent
            waits.append(begun(lab, urgent)[0] - (2 * WAIT_S + i * 0.1))
    assert max(waits) <= SLICE_S + ROW_S
    assert sorted(waits)[45] <= ROW_S  # and hardly any met the slice of an old one


async def test_the_longest_waiting_of_several_old_ones_goes_first() -> None:
    async with open_lab(VirtualRig(call_s=ROW_S), **AGEING) as lab:
        load = await urgent_load(lab, 4)
        await lab.at(0.5)
        old = await lab.send(1, "old", priority=-9, client="a")
        await lab.at(0.75)
        less_old = await lab.send(1, "less old", priority=3, client="b")
        await old
        await less_old
        await end(load)
    assert begun(lab, old)[0] == pytest.approx(0.5 + WAIT_S, abs=2 * SLICE_S + ROW_S)
    assert begun(lab, less_old)[0] == pytest.approx(0.75 + WAIT_S, abs=2 * SLICE_S + ROW_S)
