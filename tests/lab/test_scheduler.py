"""The scheduler against a system whose every row waits at a gate that the test opens."""

import asyncio
import concurrent.futures
import itertools
import logging
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from drivers.errors import InstrumentTimeout, LimitError, ProtocolError
from drivers.row_key import RowKey, row_keys
from drivers.spec import Array, ArraySpec
from lab.errors import (
    Conflict,
    PassCancelled,
    SystemClosed,
    SystemFaulted,
    UnknownName,
    WrongThread,
)
from lab.measurement import ForwardPass, Measurement
from lab.scheduling.scheduler import CHECK_ON_LOOP, HardwareScheduler
from lab.scheduling.system_queue import SystemQueue
from lab.systems.base import PhysicalSystem, Rows, SystemDescription, never

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]

LIMIT_S = 10.0  # no wait in these tests lasts so long unless something hangs


class FakeInstrument:
    """A name to share, and a check that nobody else uses it at the same time."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.in_use = threading.Lock()


class GatedSystem(PhysicalSystem):
    """y = (x, theta); a row blocks until the test lets it pass; calls are written down in order."""

    def __init__(self, name: str = "rig", instruments: Sequence[Any] = (), gated: bool = True):
        super().__init__(announce=lambda key: self.calls.append(("key", key.index)))
        scalar = ArraySpec("value", "V", (1,), 0.0, 1000.0)
        self.description = SystemDescription(
            name, scalar, scalar, ArraySpec("y", "V", (2,), 0.0, 1000.0), 0.0
        )
        self.instruments = tuple(instruments)
        self.gated = gated
        self.calls: list[Any] = []
        self.threads: set[int] = set()
        self.check_threads: list[int] = []
        self.raises: dict[Any, Exception] = {}  # row value, "start" or "shutdown" -> error
        self.rows_short = 0
        self._begun: queue.SimpleQueue[float] = queue.SimpleQueue()
        self._gate = threading.Semaphore(0)

    def _call(self, what: Any) -> None:
        self.threads.add(threading.get_ident())
        self.calls.append(what)
        if what in self.raises:
            raise self.raises[what]

    def start(self) -> None:
        self._call("start")

    def shutdown(self) -> None:
        self._call("shutdown")

    def check(self, x: Array, theta: Array) -> tuple[Array, Array]:
        self.check_threads.append(threading.get_ident())
        return super().check(x, theta)

    def transform(
        self,
        x: Array,
        theta: Array,
        keys: Sequence[RowKey] | None = None,
        stop: Callable[[], bool] = never,
    ) -> Rows:
        rows = super().transform(x, theta, keys, stop)
        keep = len(rows.y) - self.rows_short
        return Rows(rows.y[:keep], rows.saturated[:keep])

    def _measure_row(self, x: Array, theta: Array) -> tuple[Array, bool]:
        held = [i.in_use.acquire(blocking=False) for i in self.instruments]
        assert all(held), "an instrument was used by two systems at once"
        try:
            value = float(x[0])
            self._begun.put(value)
            if self.gated:
                assert self._gate.acquire(timeout=LIMIT_S), "the test never opened the gate"
            self._call(value)
            return np.concatenate([x, theta]), value > 500
        finally:
            for instrument in self.instruments:
                instrument.in_use.release()

    async def row_begun(self) -> float:
        """Return the value of the next row that has begun."""
        return await asyncio.to_thread(self._begun.get, timeout=LIMIT_S)

    def open_gate(self, rows: int = 1) -> None:
        self._gate.release(rows)

    def open_for_good(self) -> None:
        self.gated = False
        self._gate.release()

    @property
    def measured(self) -> list[float]:
        return [c for c in self.calls if isinstance(c, float)]


def make_pass(*values: float, system: str = "rig", **options: Any) -> ForwardPass:
    x = np.array(values, dtype=float).reshape(-1, 1)
    return ForwardPass(system, x, x / 2, **options)


Submit = Callable[..., "asyncio.Task[Measurement]"]


class Bench:
    """An open scheduler with one gated system, `rig`."""

    def __init__(self, scheduler: HardwareScheduler, rig: GatedSystem) -> None:
        self.scheduler, self.rig = scheduler, rig

    async def submit(self, *values: float, **options: Any) -> "asyncio.Task[Measurement]":
        """Start a task that submits a pass; return once the pass is queued."""
        task = asyncio.create_task(self.scheduler.submit(make_pass(*values, **options)))
        await asyncio.sleep(0)  # a small pass queues in the task's first step
        return task

    async def submit_running(self, *values: float, **options: Any) -> "asyncio.Task[Measurement]":
        """Submit a pass and return when its first row is on the hardware."""
        task = await self.submit(*values, **options)
        assert await self.rig.row_begun() == values[0]
        return task


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    rig = GatedSystem()
    async with asyncio.timeout(3 * LIMIT_S), HardwareScheduler({"rig": rig}) as scheduler:
        yield Bench(scheduler, rig)
        rig.open_for_good()


@asynccontextmanager
async def free_running(**systems: GatedSystem) -> AsyncIterator[HardwareScheduler]:
    for system in systems.values():
        system.gated = False
    async with asyncio.timeout(3 * LIMIT_S), HardwareScheduler(systems) as scheduler:
        yield scheduler


async def several_loop_turns() -> None:
    """Give every ready callback its turn, so that `not task.done()` means something."""
    for _ in range(20):
        await asyncio.sleep(0)


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
        firsts = [(await scheduler.submit(make_pass(*range(n)))).first_shot for n in (2, 3, 0, 1)]
        assert firsts == [100, 102, 105, 105]
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
    assert (await bench.scheduler.submit(make_pass(4))).first_shot == 3
    assert bench.rig.calls == ["start", 1, 2, 4]


# --- cancelling


async def test_cancelling_a_waiting_pass_ends_it_at_once(bench: Bench) -> None:
    running = await bench.submit_running(1)
    by_id, by_task = await bench.submit(2, 3, pass_id="x"), await bench.submit(4)
    last = await bench.submit(5)
    await bench.scheduler.cancel("x")
    with pytest.raises(PassCancelled, match="pass x on rig ended after 0 of 2 rows"):
        await by_id
    by_task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await by_task
    assert not running.done()
    assert bench.scheduler.status("rig").waiting == 1
    bench.rig.open_for_good()
    await asyncio.gather(running, last)
    assert bench.rig.measured == [1, 5]


async def test_cancelling_a_running_pass_waits_for_the_row_in_flight(bench: Bench) -> None:
    task = await bench.submit_running(1, 2, 3, pass_id="x")
    following = await bench.submit(4)
    cancelling = asyncio.create_task(bench.scheduler.cancel("x"))
    await several_loop_turns()
    assert not task.done()
    assert not cancelling.done()
    bench.rig.open_gate()
    with pytest.raises(PassCancelled, match="after 1 of 3 rows"):
        await task
    await cancelling
    bench.rig.open_for_good()
    m = await following
    assert bench.rig.measured == [1, 4]
    assert m.first_shot == 1


async def test_a_cancelled_task_waits_for_the_row_in_flight_however_often_it_is_asked(
    bench: Bench,
) -> None:
    task = await bench.submit_running(1, 2, 3)
    following = await bench.submit(4)
    for _ in range(3):
        task.cancel()
        await several_loop_turns()
        assert not task.done()
    bench.rig.open_gate()
    with pytest.raises(asyncio.CancelledError):
        await task
    bench.rig.open_for_good()
    await following
    assert bench.rig.measured == [1, 4]


async def test_a_pass_cancelled_during_its_last_row_is_cancelled(bench: Bench) -> None:
    task = await bench.submit_running(1, pass_id="x")
    cancelling = asyncio.create_task(bench.scheduler.cancel("x"))
    await several_loop_turns()
    bench.rig.open_for_good()
    with pytest.raises(PassCancelled, match="after 1 of 1 rows"):
        await task
    await cancelling


async def test_a_pass_cancelled_before_the_close_is_cancelled(bench: Bench) -> None:
    task = await bench.submit_running(1, 2, pass_id="x")
    others = [asyncio.create_task(bench.scheduler.cancel("x"))]
    await several_loop_turns()
    others.append(asyncio.create_task(bench.scheduler.close()))
    await several_loop_turns()
    bench.rig.open_for_good()
    with pytest.raises(PassCancelled, match="after 1 of 2 rows"):
        await task
    await asyncio.gather(*others)


async def test_a_fault_while_cancelling_is_told(bench: Bench) -> None:
    bench.rig.raises[1.0] = InstrumentTimeout("osa", "no answer")
    task = await bench.submit_running(1, 2, pass_id="x")
    cancelling = asyncio.create_task(bench.scheduler.cancel("x"))
    await several_loop_turns()
    bench.rig.open_for_good()
    with pytest.raises(InstrumentTimeout):
        await task
    await cancelling
    assert bench.scheduler.status("rig").state == "faulted"


# --- faults


@pytest.mark.parametrize("error", [InstrumentTimeout("osa", "no answer"), RuntimeError("a bug")])
async def test_a_fault_fails_the_pass_and_all_that_wait(bench: Bench, error: Exception) -> None:
    bench.rig.raises[2.0] = error
    task, waiting = await bench.submit_running(1, 2, 3), await bench.submit(4)
    bench.rig.open_for_good()
    with pytest.raises(type(error)) as caught:
        await task
    assert caught.value is error
    assert bench.rig.calls == ["start", 1, 2, "shutdown"], "safe before anyone hears of it"
    with pytest.raises(SystemFaulted, match=str(error)) as refused:
        await waiting
    assert refused.value.__cause__ is error
    with pytest.raises(SystemFaulted, match=str(error)):
        await bench.scheduler.submit(make_pass(5))
    status = bench.scheduler.status("rig")
    assert (status.state, status.reason, status.waiting) == ("faulted", str(error), 0)
    assert bench.rig.measured == [1, 2]


async def test_recovery_shuts_down_starts_and_never_reuses_a_shot_number(bench: Bench) -> None:
    bench.rig.raises[2.0] = InstrumentTimeout("osa", "no answer")
    bench.rig.open_for_good()
    with pytest.raises(InstrumentTimeout):
        await bench.scheduler.submit(make_pass(1, 2, 3))
    faulted_since = bench.scheduler.status("rig").since_s
    await asyncio.gather(*(bench.scheduler.recover("rig") for _ in range(3)))
    assert bench.rig.calls[3:] == ["shutdown", "shutdown", "start"]
    status = bench.scheduler.status("rig")
    assert (status.state, status.reason) == ("ok", "")
    assert status.since_s >= faulted_since
    assert (await bench.scheduler.submit(make_pass(9))).first_shot == 3


async def test_a_system_that_does_not_recover_stays_faulted_with_the_newest_reason(
    bench: Bench,
) -> None:
    bench.rig.raises[1.0] = InstrumentTimeout("osa", "no answer")
    bench.rig.open_for_good()
    with pytest.raises(InstrumentTimeout):
        await bench.scheduler.submit(make_pass(1))
    bench.rig.raises["shutdown"] = ProtocolError("shaper", "garbage")
    bench.rig.raises["start"] = ProtocolError("osa", "still garbage")
    with pytest.raises(ProtocolError, match="still garbage"):
        await bench.scheduler.recover("rig")
    reason = bench.scheduler.status("rig").reason
    assert reason.startswith("osa: still garbage; ")
    assert "safe state not confirmed: ProtocolError('shaper: garbage')" in reason
    assert "before that, the shutdown failed" in reason
    del bench.rig.raises["start"], bench.rig.raises["shutdown"]
    await bench.scheduler.recover("rig")
    assert bench.scheduler.status("rig").state == "ok"


async def test_recovery_does_not_need_the_shutdown_to_succeed(bench: Bench) -> None:
    bench.rig.raises[1.0] = bench.rig.raises["shutdown"] = InstrumentTimeout("osa", "no answer")
    bench.rig.open_for_good()
    with pytest.raises(InstrumentTimeout):
        await bench.scheduler.submit(make_pass(1))
    await bench.scheduler.recover("rig")
    await bench.scheduler.submit(make_pass(2))
    del bench.rig.raises["shutdown"]


async def test_recovering_a_healthy_system_changes_nothing_and_disturbs_no_pass(
    bench: Bench,
) -> None:
    task = await bench.submit_running(1, 2)
    recovery = asyncio.create_task(bench.scheduler.recover("rig"))
    bench.rig.open_for_good()
    await asyncio.gather(task, recovery)
    assert bench.rig.calls == ["start", 1, 2]


async def test_a_system_that_does_not_start_is_faulted_and_the_others_work() -> None:
    broken, rig = GatedSystem("broken"), GatedSystem()
    broken.raises["start"] = InstrumentTimeout("osa", "no answer")
    async with free_running(broken=broken, rig=rig) as scheduler:
        assert [s.state for s in scheduler.statuses()] == ["faulted", "ok"]
        with pytest.raises(SystemFaulted, match="broken is faulted: osa: no answer"):
            await scheduler.submit(make_pass(1, system="broken"))
        await scheduler.submit(make_pass(1))
        assert broken.calls == ["start", "shutdown"]
        del broken.raises["start"]
        await scheduler.recover("broken")
        await scheduler.submit(make_pass(2, system="broken"))


async def test_fewer_rows_than_asked_for_is_a_fault(bench: Bench) -> None:
    bench.rig.rows_short = 1
    bench.rig.open_for_good()
    with pytest.raises(ProtocolError, match="rig: measured 2 of 3 rows"):
        await bench.scheduler.submit(make_pass(1, 2, 3))
    assert bench.scheduler.status("rig").state == "faulted"


async def test_a_fault_of_one_system_leaves_the_other_alone() -> None:
    a, b = GatedSystem("a"), GatedSystem("b")
    a.raises[1.0] = InstrumentTimeout("osa", "no answer")
    async with free_running(a=a, b=b) as scheduler:
        with pytest.raises(InstrumentTimeout):
            await scheduler.submit(make_pass(1, system="a"))
        assert (await scheduler.submit(make_pass(1, system="b"))).system == "b"


# --- closing


async def test_close_with_a_full_queue(bench: Bench) -> None:
    running = await bench.submit_running(1, 2, 3)
    waiting = [await bench.submit(value) for value in range(10, 30)]
    closing = [asyncio.create_task(bench.scheduler.close()) for _ in range(2)]
    await several_loop_turns()
    for task in waiting:
        assert isinstance(task.exception(), SystemClosed)
    assert not running.done()
    with pytest.raises(SystemClosed):
        await bench.scheduler.submit(make_pass(5))
    with pytest.raises(SystemClosed):
        await bench.scheduler.recover("rig")
    assert not any(task.done() for task in closing)
    bench.rig.open_gate()
    with pytest.raises(SystemClosed, match="after 1 of 3 rows"):
        await running
    await asyncio.gather(*closing)
    await bench.scheduler.close()
    assert bench.rig.calls == ["start", 1, "shutdown"]
    assert bench.scheduler.status("rig").state == "closed"


async def test_close_reaches_the_safe_state_even_if_it_is_cancelled(bench: Bench) -> None:
    running = await bench.submit_running(1, 2)
    closing = asyncio.create_task(bench.scheduler.close())
    await several_loop_turns()
    closing.cancel()
    await several_loop_turns()
    assert not closing.done()
    bench.rig.open_gate()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert bench.rig.calls == ["start", 1, "shutdown"]
    assert isinstance((await asyncio.gather(running, return_exceptions=True))[0], SystemClosed)


async def test_close_shuts_every_system_down_and_tells_what_it_could_not_confirm(
    caplog: pytest.LogCaptureFixture,
) -> None:
    a, b = GatedSystem("a"), GatedSystem("b")
    a.raises["shutdown"] = InstrumentTimeout("shaper", "no answer")
    async with free_running(a=a, b=b) as scheduler:
        pass
    assert (a.calls, b.calls) == (["start", "shutdown"], ["start", "shutdown"])
    assert "safe state not confirmed" in scheduler.status("a").reason
    assert [r.levelno for r in caplog.records if "shaper: no answer" in r.message] == [
        logging.ERROR
    ]


async def test_a_system_task_cancelled_from_outside_ends_its_passes_and_leaves_a_safe_state(
    bench: Bench,
) -> None:
    running, waiting = await bench.submit_running(1, 2), await bench.submit(3)
    (task,) = [t for t in asyncio.all_tasks() if t.get_name() == "system-rig"]
    task.cancel()
    await several_loop_turns()
    assert not running.done()
    bench.rig.open_gate()
    for ended in (running, waiting):
        with pytest.raises(SystemClosed):
            await ended
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.rig.calls == ["start", 1, "shutdown"]


async def test_an_idle_system_task_cancelled_from_outside_takes_no_more_passes(
    bench: Bench,
) -> None:
    (task,) = [t for t in asyncio.all_tasks() if t.get_name() == "system-rig"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(SystemClosed):
        await bench.scheduler.submit(make_pass(1))
    assert bench.rig.calls == ["start", "shutdown"]


async def test_cancelling_the_opening_closes_what_was_started() -> None:
    slow, entered, go_on = GatedSystem("slow"), threading.Event(), threading.Event()

    def start() -> None:
        entered.set()
        assert go_on.wait(LIMIT_S)
        slow.calls.append("start")

    slow.start = start  # type: ignore[method-assign]
    rig = GatedSystem()
    opening = asyncio.create_task(HardwareScheduler({"rig": rig, "slow": slow}).__aenter__())
    assert await asyncio.to_thread(entered.wait, LIMIT_S)
    opening.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert rig.calls == slow.calls == ["start", "shutdown"]


async def test_before_it_is_entered_and_after_it_is_closed_a_scheduler_takes_nothing() -> None:
    scheduler = HardwareScheduler({"rig": GatedSystem()})
    with pytest.raises(SystemClosed):
        await scheduler.submit(make_pass(1))
    async with scheduler:
        pass
    with pytest.raises(SystemClosed):
        await asyncio.to_thread(scheduler.measure_blocking, make_pass(1))
    with pytest.raises(RuntimeError, match="entered once"):
        await scheduler.__aenter__()


# --- blocking callers


async def test_blocking_on_the_loops_own_thread_raises_at_once(bench: Bench) -> None:
    with pytest.raises(WrongThread, match="rig"):
        bench.scheduler.measure_blocking(make_pass(1))
    assert bench.rig.calls == ["start"]


async def test_many_threads_each_get_their_own_rows(bench: Bench) -> None:
    bench.rig.open_for_good()

    def client(number: int) -> list[float]:
        return [
            float(bench.scheduler.measure_blocking(make_pass(10 * number + i)).y[0, 0])
            for i in range(10)
        ]

    got = await asyncio.gather(*(asyncio.to_thread(client, number) for number in range(6)))
    assert got == [[10 * number + i for i in range(10)] for number in range(6)]


async def test_a_blocking_caller_hears_what_went_wrong(bench: Bench) -> None:
    bench.rig.raises[1.0] = InstrumentTimeout("osa", "no answer")
    bench.rig.open_for_good()
    expected = [(1001, LimitError), (1, InstrumentTimeout), (2, SystemFaulted)]
    for value, error in expected:
        with pytest.raises(error):
            await asyncio.to_thread(bench.scheduler.measure_blocking, make_pass(value))
    with pytest.raises(UnknownName):
        await asyncio.to_thread(bench.scheduler.measure_blocking, make_pass(1, system="oven"))


async def test_a_waiting_thread_hears_of_the_close(bench: Bench) -> None:
    thread = asyncio.create_task(asyncio.to_thread(bench.scheduler.measure_blocking, make_pass(1)))
    assert await bench.rig.row_begun() == 1
    closing = asyncio.create_task(bench.scheduler.close())
    await several_loop_turns()
    bench.rig.open_for_good()
    with pytest.raises(SystemClosed):
        await thread
    await closing


async def test_an_interrupt_in_the_waiting_thread_cancels_the_pass(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, interrupted = concurrent.futures.Future.result, threading.Event()

    def interrupted_result(future: Any, timeout: float | None = None) -> Any:
        if threading.current_thread().name == "trainer":
            raise KeyboardInterrupt
        return result(future, timeout)

    def trainer() -> None:
        try:
            bench.scheduler.measure_blocking(make_pass(2))
        except KeyboardInterrupt:
            interrupted.set()

    running = await bench.submit_running(1)
    monkeypatch.setattr(concurrent.futures.Future, "result", interrupted_result)
    thread = threading.Thread(target=trainer, name="trainer")
    thread.start()
    await asyncio.to_thread(thread.join, LIMIT_S)
    assert interrupted.is_set()
    bench.rig.open_for_good()
    await running
    await bench.scheduler.submit(make_pass(3))
    assert bench.rig.measured == [1, 3]


async def test_the_end_of_the_loop_is_told_to_a_blocking_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scheduler = HardwareScheduler({"rig": GatedSystem(gated=False)})

    async def live() -> None:
        async with scheduler:
            pass

    await asyncio.to_thread(asyncio.run, live())
    # as if the loop had ended between the check and the hand-over
    monkeypatch.setattr(SystemQueue, "refuse", lambda queue: None)
    with pytest.raises(SystemClosed, match="event loop has ended"):
        await asyncio.to_thread(scheduler.measure_blocking, make_pass(1))


async def test_a_loop_that_ends_without_a_close_still_leaves_a_safe_state() -> None:
    rig = GatedSystem()
    with concurrent.futures.ThreadPoolExecutor(1) as trainer:

        async def forget_to_close() -> "concurrent.futures.Future[Measurement]":
            scheduler = await HardwareScheduler({"rig": rig}).__aenter__()
            asked = trainer.submit(scheduler.measure_blocking, make_pass(1, 2, 3))
            await rig.row_begun()
            asyncio.get_running_loop().call_soon(rig.open_for_good)
            return asked

        asked = await asyncio.to_thread(asyncio.run, forget_to_close())
        assert isinstance(asked.exception(LIMIT_S), SystemClosed)
    assert rig.calls[0] == "start"
    assert rig.calls[-1] == "shutdown"


# --- several systems


async def test_systems_run_in_parallel() -> None:
    a, b = GatedSystem("a"), GatedSystem("b")
    async with asyncio.timeout(LIMIT_S), HardwareScheduler({"a": a, "b": b}) as scheduler:
        tasks = [asyncio.create_task(scheduler.submit(make_pass(1, system=s))) for s in "ab"]
        assert (await a.row_begun(), await b.row_begun()) == (1, 1)
        assert (a.measured, b.measured) == ([], [])
        a.open_for_good()
        b.open_for_good()
        await asyncio.gather(*tasks)


async def test_systems_that_share_an_instrument_take_turns() -> None:
    shared = FakeInstrument("laser")
    a, b = GatedSystem("a", [shared]), GatedSystem("b", [shared])
    async with asyncio.timeout(LIMIT_S), HardwareScheduler({"a": a, "b": b}) as scheduler:
        first = [asyncio.create_task(scheduler.submit(make_pass(i, system="a"))) for i in (1, 2)]
        assert await a.row_begun() == 1
        other = asyncio.create_task(scheduler.submit(make_pass(9, pass_id="x", system="b")))
        await several_loop_turns()
        late = asyncio.create_task(scheduler.submit(make_pass(8, priority=1, system="b")))
        await several_loop_turns()
        assert scheduler.status("b").running is None
        await scheduler.cancel("x")
        a.open_gate()
        assert await b.row_begun() == 8, "who asked first goes next, not who just had it"
        assert a.measured == [1]
        a.open_for_good()
        b.open_for_good()
        await asyncio.gather(*first, late)
        assert isinstance((await asyncio.gather(other, return_exceptions=True))[0], PassCancelled)


async def test_systems_that_share_several_instruments_in_any_order_never_deadlock() -> None:
    one, two, three = (FakeInstrument(name) for name in ("one", "two", "three"))
    systems = {
        "".join(i.name for i in chosen): GatedSystem("", chosen)
        for chosen in [(one, two), (two, one), (two, three), (three, one), (three,)]
    }
    async with free_running(**systems) as scheduler:
        names = itertools.islice(itertools.cycle(systems), 200)
        await asyncio.gather(*(scheduler.submit(make_pass(1, 2, system=n)) for n in names))
    assert [len(s.measured) for s in systems.values()] == [80] * 5


# --- status


async def test_status_tells_what_runs_and_what_waits(bench: Bench) -> None:
    idle = bench.scheduler.status("rig")
    assert (idle.state, idle.running, idle.waiting, idle.busy_s) == ("ok", None, 0, 0.0)
    task = await bench.submit_running(1, 2, pass_id="x")
    await bench.submit(3)
    status = bench.scheduler.status("rig")
    assert (status.running, status.waiting, status.rows_done) == ("x", 1, 0)
    assert status.busy_s > 0
    assert 0 < status.duty_cycle <= 1
    bench.rig.open_for_good()
    await task
    await bench.scheduler.submit(make_pass(4))
    done = bench.scheduler.status("rig")
    assert (done.running, done.waiting, done.rows_done) == (None, 0, 4)
    assert done.busy_s > status.busy_s


@pytest.fixture(autouse=True)
def quiet_logs(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Keep the expected fault reports out of the test output."""
    with caplog.at_level(logging.ERROR):
        yield
