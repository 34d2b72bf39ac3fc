"""Which pass goes next: priority, then depth within a client, then first come, first served."""

import pytest

from virtual_lab import open_lab
from virtual_rig import ROW_S

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("virtual_time", "no_leaks")]


async def test_higher_priorities_go_first() -> None:
    async with open_lab() as lab:
        sent = [await lab.run(1, "running")]
        for name, priority in (("low", -5), ("normal", 0), ("urgent", 7), ("high", 3)):
            sent.append(await lab.send(1, name, priority=priority, client=name))
        for each in sent:
            await each
    assert lab.order() == ["running", "urgent", "high", "normal", "low"]


async def test_one_clients_equals_are_served_in_the_order_in_which_they_came() -> None:
    async with open_lab() as lab:
        sent = [await lab.send(2, f"{i}") for i in range(6)]
        for each in sent:
            await each
    assert lab.stretches() == [(f"{i}", 2) for i in range(6)]


async def test_a_clients_deepest_layer_goes_first() -> None:
    async with open_lab() as lab:
        sent = [await lab.run(1, "running")]
        for name, depth in (("first layer", 0), ("third", 2), ("second", 1), ("third again", 2)):
            sent.append(await lab.send(1, name, depth=depth))
        for each in sent:
            await each
    assert lab.order() == ["running", "third", "third again", "second", "first layer"]


async def test_depth_is_no_priority_over_other_clients() -> None:
    async with open_lab() as lab:
        sent = [await lab.run(1, "running", client="c")]
        for i in range(4):
            sent.append(await lab.send(1, f"deep {i}", client="a", depth=9))
            sent.append(await lab.send(1, f"flat {i}", client="b"))
        for each in sent:
            await each
    assert sorted(lab.clients()[1:3]) == sorted(lab.clients()[3:5]) == ["a", "b"]


async def test_one_clients_jobs_and_single_passes_take_turns() -> None:
    async with open_lab() as lab:
        sent = [await lab.run(1, "running")]
        for i in range(3):
            sent.append(await lab.send(1, f"a{i}", job="a", depth=i))
        for name, job in (("look", ""), ("b0", "b"), ("look again", ""), ("b1", "b")):
            sent.append(await lab.send(1, name, job=job))
        for each in sent:
            await each
    assert lab.order() == ["running", "a2", "look", "b0", "a1", "look again", "b1", "a0"]


async def test_a_long_run_of_a_job_does_not_keep_the_same_persons_quick_look_waiting() -> None:
    async with open_lab() as lab:
        long = await lab.run(1000, "long", job="training")
        look = await lab.send(1, "look")
        await look
        assert lab.order().count("long") < 1000, "it went between two slices"
        await long


async def test_depth_does_not_overtake_priority() -> None:
    async with open_lab() as lab:
        sent = [
            await lab.run(1, "running"),
            await lab.send(1, "deep", depth=50),
            await lab.send(1, "urgent", priority=1),
        ]
        for each in sent:
            await each
    assert lab.order() == ["running", "urgent", "deep"]


async def test_an_idle_system_begins_at_once_and_leaves_no_gaps() -> None:
    async with open_lab() as lab:
        await lab.at(10.0)
        sent = [await lab.send(3), await lab.send(2)]
        for each in sent:
            await each
        assert lab.clock.time() == 10.0 + 5 * ROW_S
    assert [call.begun_s for call in lab.rig.calls] == [10.0 + i * ROW_S for i in range(5)]
