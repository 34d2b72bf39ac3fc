"""Queues are bounded, and who is refused hears when to come back."""

import pytest

from lab.errors import QueueFull
from virtual_lab import open_lab
from virtual_rig import ROW_S, VirtualRig

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("virtual_time", "no_leaks")]


async def test_a_client_may_have_so_many_passes_waiting_and_the_others_are_not_hurt() -> None:
    async with open_lab(max_waiting_per_client=3) as lab:
        await lab.run(1, client="greedy")  # it runs: it does not wait
        for _ in range(3):
            await lab.send(1, client="greedy")
        error = await lab.refusal(client="greedy")
        assert isinstance(error, QueueFull)
        assert "3 passes of greedy wait" in str(error)
        other = await lab.send(1, client="modest")
        assert not other.task.done()
        for each in lab.sent[:4]:
            await each
        await (await lab.send(1, client="greedy"))


async def test_a_client_has_one_limit_with_and_without_reservation() -> None:
    async with open_lab(max_waiting_per_client=3) as lab:
        held = await lab.scheduler.reserve("rig", "me", 60.0)
        await lab.run(1, reservation=held.number)
        for reservation in (None, held.number, None):
            await lab.send(1, reservation=reservation)
        assert isinstance(await lab.refusal(reservation=held.number), QueueFull)


async def test_those_who_wait_for_a_reservation_to_end_take_no_place_from_its_owner() -> None:
    async with open_lab(max_waiting=2, max_waiting_rows=2) as lab:
        held = await lab.scheduler.reserve("rig", "ann", 60.0)
        for _ in range(2):
            await lab.send(1, client="bob")
        await (await lab.send(1, client="ann", reservation=held.number))
        assert isinstance(await lab.refusal(client="bob"), QueueFull)


async def test_all_clients_together_may_have_so_many() -> None:
    async with open_lab(max_waiting=5) as lab:
        await lab.run(1)
        for i in range(5):
            await lab.send(1, client=f"{i}")
        error = await lab.refusal(client="another")
        assert isinstance(error, QueueFull)
        assert "5 passes wait" in str(error)


async def test_rows_are_bounded_too_but_a_single_pass_always_fits() -> None:
    async with open_lab(max_waiting_rows=100) as lab:
        await lab.run(1)
        huge = await lab.send(5000)
        error = await lab.refusal(1)
        assert isinstance(error, QueueFull)
        assert "5000 rows wait" in str(error)
        await lab.scheduler.cancel(huge.name)
        await lab.send(60)
        await lab.send(40)
        assert isinstance(await lab.refusal(1), QueueFull)


async def test_rows_that_were_measured_do_not_count_as_waiting() -> None:
    async with open_lab(max_waiting_rows=100) as lab:
        await lab.run(80, client="a")
        await lab.send(80, client="b")
        assert isinstance(await lab.refusal(45, client="c"), QueueFull)
        await lab.at(60.1 * ROW_S)  # about 50 rows are left of each, and one of them runs
        waits = await lab.send(45, client="c")
        assert not waits.task.done()


async def test_it_says_when_a_place_should_be_free() -> None:
    async with open_lab(VirtualRig(call_s=2.0), max_waiting=3) as lab:
        await (await lab.send(1))
        await lab.run(1)
        for _ in range(3):
            await lab.send(7)
        error = await lab.refusal()
        assert isinstance(error, QueueFull)
        assert error.retry_after_s == pytest.approx(14.0)


@pytest.mark.parametrize(("call_s", "retry_after_s"), [(1e-3, 1.0), (100.0, 60.0)])
async def test_the_time_to_come_back_is_between_a_second_and_a_minute(
    call_s: float, retry_after_s: float
) -> None:
    async with open_lab(VirtualRig(call_s=call_s), max_waiting=1) as lab:
        await (await lab.send(1))
        await lab.run(1)
        await lab.send(1)
        error = await lab.refusal()
        assert isinstance(error, QueueFull)
        assert error.retry_after_s == retry_after_s


async def test_a_refused_pass_leaves_no_trace() -> None:
    async with open_lab(max_waiting=1) as lab:
        await lab.run(1)
        waiting = await lab.send(1)
        for _ in range(10):
            await lab.refusal(name="refused")
        status = lab.scheduler.status("rig")
        assert (status.waiting, status.waiting_rows) == (1, 1)
        await waiting
        await (await lab.send(1, "refused"))  # its id is free
