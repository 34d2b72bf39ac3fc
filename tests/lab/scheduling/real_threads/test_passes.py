"""A pass through the scheduler: its rows, its turn, and what is refused at once."""

import asyncio
import threading

import numpy as np
import pytest

from drivers.errors import LimitError
from drivers.row_key import row_keys
from gated_system import Bench, GatedSystem, make_pass
from lab.errors import Conflict, UnknownName
from lab.measurement import ForwardPass
from lab.scheduling.scheduler import CHECK_ON_LOOP, HardwareScheduler

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]


# --- a pass and its rows


async def test_a_pass_returns_its_rows_in_order(bench: Bench) -> None:
    bench.rig.open_for_good()
    m = await bench.scheduler.submit(make_pass(3, 1, 600, keys=row_keys(0, 7, 3, 1.0)))
    np.testing.assert_array_equal(m.y, [[3, 1.5], [1, 0.5], [600, 300]])
    assert m.saturated.tolist() == [False, False, True]
    assert bench.rig.calls == ["start", ("key", 7), 3, ("key", 8), 1, ("key", 9), 600]
    assert m.system == "rig"
    assert m.pass_id
    assert m.submitted_s <= m.started_s <= m.finished_s


async def test_shot_numbers_go_on_from_the_given_start() -> None:
    rig = GatedSystem(gated=False)
    async with HardwareScheduler({"rig": rig}, first_shot={"rig": 100}) as scheduler:
        shots = [
            (await scheduler.submit(make_pass(*range(n)))).shots.tolist() for n in (2, 3, 0, 1)
        ]
        assert shots == [[100, 101], [102, 103, 104], [], [105]]
        assert scheduler.status("rig").next_shot == 106
        assert scheduler.status("rig").rows_done == 6


async def test_the_caller_may_reuse_its_arrays_once_it_has_submitted(bench: Bench) -> None:
    await bench.submit_running(1)
    request = make_pass(2)
    task = asyncio.create_task(bench.scheduler.submit(request))
    await asyncio.sleep(0)
    request.x[:] = request.theta[:] = 99
    bench.rig.open_for_good()
    np.testing.assert_array_equal((await task).y, [[2, 1]])


async def test_hardware_is_used_by_one_thread_that_is_not_the_loops(bench: Bench) -> None:
    bench.rig.open_for_good()
    for value in range(5):
        await bench.scheduler.submit(make_pass(value))
    await bench.scheduler.close()
    assert bench.rig.calls == ["start", 0, 1, 2, 3, 4, "shutdown"]
    assert len(bench.rig.threads) == 1
    assert threading.get_ident() not in bench.rig.threads


# --- order


async def test_higher_priority_first_and_first_come_first_served_among_equals(
    bench: Bench,
) -> None:
    await bench.submit_running(0)
    order = [(10, 0), (20, 5), (11, 0), (30, -1), (21, 5), (40, 9), (31, -1)]
    for value, priority in order:
        await bench.submit(value, priority=priority)
    bench.rig.open_for_good()
    await bench.scheduler.submit(make_pass(50, priority=-100))
    assert bench.rig.measured == [0, 40, 20, 21, 10, 11, 30, 31, 50]


async def test_any_number_of_tasks_each_get_their_own_rows(bench: Bench) -> None:
    bench.rig.open_for_good()
    passes = [make_pass(i, 500 - i) for i in range(200)]
    for i, m in enumerate(await asyncio.gather(*map(bench.scheduler.submit, passes))):
        np.testing.assert_array_equal(m.y[:, 0], [i, 500 - i])


# --- refusals


async def test_bad_arrays_are_refused_at_once_and_touch_nothing(bench: Bench) -> None:
    with pytest.raises(LimitError, match=r"rig: value: 1001 V at index \[1, 0\]"):
        await bench.scheduler.submit(make_pass(1, 1001))
    with pytest.raises(ValueError, match="2 rows but 3 row keys"):
        await bench.scheduler.submit(make_pass(1, 2, keys=row_keys(0, 0, 3, 1.0)))
    with pytest.raises(ValueError, match="2 rows of x but 1 rows of theta"):
        await bench.scheduler.submit(ForwardPass("rig", np.ones((2, 1)), np.ones((1, 1))))
    assert bench.rig.calls == ["start"]
    assert bench.scheduler.status("rig").state == "ok"


async def test_large_arrays_are_checked_off_the_loops_thread(bench: Bench) -> None:
    small, large = np.zeros((0, 1)), np.full((CHECK_ON_LOOP, 1), 1001.0)
    await bench.scheduler.submit(ForwardPass("rig", small, small))
    with pytest.raises(LimitError):
        await bench.scheduler.submit(ForwardPass("rig", large, large))
    loop_thread = threading.get_ident()
    on_loop = [thread == loop_thread for thread in bench.rig.check_threads]
    assert (on_loop[0], on_loop[-1]) == (True, False)


async def test_unknown_names(bench: Bench) -> None:
    with pytest.raises(UnknownName, match=r"no system 'oven' \(there are: rig\)"):
        await bench.scheduler.submit(make_pass(1, system="oven"))
    with pytest.raises(UnknownName, match="'oven'"):
        bench.scheduler.status("oven")
    with pytest.raises(UnknownName, match="'oven'"):
        await bench.scheduler.recover("oven")
    bench.rig.open_for_good()
    await bench.scheduler.submit(make_pass(1, pass_id="done"))
    with pytest.raises(UnknownName, match="'done'"):
        await bench.scheduler.cancel("done")


async def test_two_live_passes_cannot_have_one_id_but_it_can_be_used_again(bench: Bench) -> None:
    first = await bench.submit_running(1, pass_id="a")
    with pytest.raises(Conflict, match="'a'"):
        await bench.scheduler.submit(make_pass(2, pass_id="a"))
    bench.rig.open_for_good()
    assert (await first).pass_id == "a"
    assert (await bench.scheduler.submit(make_pass(3, pass_id="a"))).pass_id == "a"
    assert bench.rig.measured == [1, 3]


async def test_a_limit_error_during_a_pass_is_no_fault(bench: Bench) -> None:
    bench.rig.raises[2.0] = LimitError("shaper", "phase", "too much")
    bench.rig.open_for_good()
    with pytest.raises(LimitError, match="shaper: phase"):
        await bench.scheduler.submit(make_pass(1, 2, 3))
    assert (await bench.scheduler.submit(make_pass(4))).shots[0] == 1
    assert bench.rig.calls == ["start", 1, 2, 4]


# --- status


async def test_status_tells_what_runs_and_what_waits(bench: Bench) -> None:
    idle = bench.scheduler.status("rig")
    assert (idle.state, idle.running, idle.waiting, idle.busy_s) == ("ok", [], 0, 0.0)
    task = await bench.submit_running(1, 2, pass_id="x")
    await bench.submit(3)
    status = bench.scheduler.status("rig")
    assert (status.running, status.waiting, status.rows_done) == (["x"], 1, 0)
    assert status.busy_s > 0
    assert 0 < status.duty_cycle <= 1
    bench.rig.open_for_good()
    await task
    await bench.scheduler.submit(make_pass(4))
    done = bench.scheduler.status("rig")
    assert (done.running, done.waiting, done.rows_done) == ([], 0, 4)
    assert done.busy_s > status.busy_s
