"""Clients of equal priority share the hardware time, whatever the size and number of their passes.

Shares are counted in rows of equal time, while everybody has something to do.
"""

import asyncio
from collections import Counter
from typing import Any

import pytest

from virtual_lab import Lab, open_lab
from virtual_rig import VirtualRig

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("virtual_time", "no_leaks")]

ROW_S = 1 / 64
SLICES = {"slice_s": 4 * ROW_S}


async def keep_sending(lab: Lab, client: str, rows: int, **options: Any) -> None:
    """Be a client with one outstanding pass at any time."""
    while True:
        await (await lab.send(rows, client=client, **options))


async def shares(lab: Lab, rows: int, *clients: Any) -> dict[str, float]:
    """Let the clients work side by side for so many rows; return their shares of them."""
    first = len(lab.rig.rows)
    tasks = [asyncio.create_task(client) for client in clients]
    await asyncio.sleep(rows * ROW_S / lab.rig.batch_rows)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    done = Counter(lab.clients()[first:])
    return {client: count / done.total() for client, count in done.items()}


def about(share: float) -> Any:
    return pytest.approx(share, rel=0.05)


@pytest.mark.parametrize("count", [2, 3])
async def test_equal_demand_gets_equal_shares(count: int) -> None:
    async with open_lab(VirtualRig(call_s=ROW_S), **SLICES) as lab:
        clients = [keep_sending(lab, f"{i}", rows=25) for i in range(count)]
        got = await shares(lab, 800, *clients)
    assert got == {f"{i}": about(1 / count) for i in range(count)}


async def test_the_size_of_passes_does_not_matter_once_they_fill_a_slice() -> None:
    async with open_lab(VirtualRig(call_s=ROW_S), **SLICES) as lab:
        sizes = {"small": 4, "middle": 27, "large": 1000}
        got = await shares(lab, 1000, *(keep_sending(lab, c, n) for c, n in sizes.items()))
    assert got == {client: about(1 / 3) for client in sizes}


async def test_single_rows_get_their_share_if_the_client_always_has_some_waiting() -> None:
    async with open_lab(VirtualRig(call_s=ROW_S), **SLICES) as lab:
        ahead = [keep_sending(lab, "single rows", 1) for _ in range(5)]
        got = await shares(lab, 800, *ahead, keep_sending(lab, "large", 1000))
    assert got == {"single rows": about(0.5), "large": about(0.5)}


async def test_a_queue_full_of_passes_gets_no_more_than_one_pass_at_a_time() -> None:
    async with open_lab(VirtualRig(call_s=ROW_S), **SLICES) as lab:
        for _ in range(300):
            await lab.send(4, client="bulk")
        one, another = keep_sending(lab, "one", 4), keep_sending(lab, "another", 4)
        got = await shares(lab, 800, one, another)
    assert got == {c: about(1 / 3) for c in ("bulk", "one", "another")}


async def test_weights_are_shares() -> None:
    weights = {"two": 2.0, "half": 0.5}
    async with open_lab(VirtualRig(call_s=ROW_S), weights=weights, **SLICES) as lab:
        clients = (keep_sending(lab, c, 200) for c in ("one", "two", "half"))
        got = await shares(lab, 1400, *clients)
    assert got == {"one": about(1 / 3.5), "two": about(2 / 3.5), "half": about(0.5 / 3.5)}


async def test_clients_that_share_instrument_calls_share_them_fairly() -> None:
    async with open_lab(VirtualRig(call_s=ROW_S, batch_rows=8), **SLICES) as lab:
        got = await shares(lab, 6400, keep_sending(lab, "a", 640), keep_sending(lab, "b", 320))
    assert got == {"a": about(0.5), "b": about(0.5)}


async def test_a_client_that_comes_back_has_saved_nothing() -> None:
    async with open_lab(VirtualRig(call_s=ROW_S), **SLICES) as lab:
        await shares(lab, 100, keep_sending(lab, "sometimes", 4))
        await shares(lab, 600, keep_sending(lab, "always", 4))
        both = keep_sending(lab, "sometimes", 500), keep_sending(lab, "always", 500)
        got = await shares(lab, 300, *both)
    assert got == {"sometimes": about(0.5), "always": about(0.5)}


async def test_a_newcomer_neither_waits_nor_overtakes_for_the_time_before() -> None:
    async with open_lab(VirtualRig(call_s=ROW_S), **SLICES) as lab:
        await shares(lab, 600, keep_sending(lab, "old", 4))
        got = await shares(lab, 300, keep_sending(lab, "old", 500), keep_sending(lab, "new", 500))
    assert got == {"old": about(0.5), "new": about(0.5)}


async def test_a_higher_priority_takes_all_it_wants_and_is_shared_fairly_itself() -> None:
    async with open_lab(VirtualRig(call_s=ROW_S), **SLICES) as lab:
        urgent = [keep_sending(lab, c, 16, priority=1) for c in "ab"]
        got = await shares(lab, 800, *urgent, keep_sending(lab, "low", 16))
    assert got["a"] == about(0.5)
    assert got["b"] == about(0.5)
    assert got.get("low", 0.0) < 0.02
