"""Systems run side by side; those that share an instrument take turns and never block for good."""

import asyncio

import pytest

from lab.errors import UnknownName
from virtual_lab import open_lab
from virtual_rig import ROW_S, SharedInstrument, VirtualRig

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("virtual_time", "no_leaks")]


async def test_systems_that_share_nothing_run_in_parallel() -> None:
    async with open_lab(*(VirtualRig(name) for name in "abcd")) as lab:
        sent = [await lab.send(8, system=name) for name in "abcd"]
        for each in sent:
            await each
        assert lab.clock.time() == 8 * ROW_S


async def test_systems_start_in_parallel() -> None:
    async with open_lab(*(VirtualRig(name, start_s=5.0) for name in "abcd")) as lab:
        assert lab.clock.time() == 5.0


async def test_two_that_share_an_instrument_take_turns_slice_by_slice() -> None:
    laser = SharedInstrument("laser")
    a, b = VirtualRig("a", instruments=[laser]), VirtualRig("b", instruments=[laser])
    async with open_lab(a, b) as lab:  # the rigs write down any use by two at once
        sent = [await lab.send(6, system=name) for name in "ab"]
        for each in sent:
            await each
        assert lab.clock.time() == 12 * ROW_S
    begun = sorted((call.begun_s, name) for name in "ab" for call in lab.rigs[name].calls)
    assert [name for _, name in begun] == list("ab" * 6)


async def test_a_fault_of_one_leaves_the_instruments_to_the_other() -> None:
    laser = SharedInstrument("laser")
    a, b = VirtualRig("a", instruments=[laser]), VirtualRig("b", instruments=[laser])
    async with open_lab(a, b, recovery_delay_s=100.0) as lab:
        hit = await lab.run(2, system="a")
        a.fail(hit.values[0], "after")
        a.fail_start = [OSError("off")] * 2
        await (await lab.send(8, system="b"))
        assert lab.clock.time() == 9 * ROW_S
        assert lab.scheduler.status("a").state == "faulted"
        assert lab.scheduler.status("b").state == "ok"
        await hit


@pytest.mark.parametrize("late_worker", [0, 3])
async def test_three_that_share_in_pairs_never_block_each_other_for_good(late_worker: int) -> None:
    ab, bc, ca = (SharedInstrument(name) for name in ("ab", "bc", "ca"))
    rigs = [
        VirtualRig("a", call_s=0.25, instruments=[ab, ca]),
        VirtualRig("b", call_s=0.375, instruments=[bc, ab]),
        VirtualRig("c", call_s=0.5, instruments=[ca, bc]),
    ]
    async with open_lab(*rigs) as lab:
        lab.clock.turns_before_work = lambda: late_worker

        async def client(system: str) -> None:
            for _ in range(5):
                await (await lab.send(3, system=system))

        await asyncio.gather(*(client(name) for name in "abc" for _ in range(2)))
        assert lab.clock.time() == pytest.approx(30 * (0.25 + 0.375 + 0.5))


async def test_an_urgent_pass_is_chosen_when_the_shared_instrument_is_free() -> None:
    laser = SharedInstrument("laser")
    a, b = VirtualRig("a", instruments=[laser]), VirtualRig("b", instruments=[laser])
    async with open_lab(a, b) as lab:
        long = await lab.run(1, system="a")
        sent = [await lab.send(1, "normal", system="b")]
        await lab.clock.at_rest()  # b waits for the laser, and has not yet chosen
        sent.append(await lab.send(1, "urgent", system="b", priority=5))
        for each in (long, *sent):
            await each
    assert lab.order(b) == ["urgent", "normal"]


async def test_names_of_systems_are_told_to_who_asks_for_another() -> None:
    async with open_lab(VirtualRig("a"), VirtualRig("b")) as lab:
        error = await lab.refusal(system="c")
        assert isinstance(error, UnknownName)
        assert "a, b" in str(error)
