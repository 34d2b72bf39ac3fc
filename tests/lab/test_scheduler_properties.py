"""Random submissions, cancels and faults: every pass ends once, with its own rows in order."""

import asyncio
import contextlib
import logging
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.errors import InstrumentTimeout
from drivers.spec import Array, ArraySpec
from lab.errors import LabError, PassCancelled, SystemClosed, SystemFaulted, UnknownName
from lab.measurement import ForwardPass, Measurement
from lab.scheduling.scheduler import HardwareScheduler
from lab.scheduling.waiting import Ticket, WaitingPasses
from lab.systems.base import PhysicalSystem, SystemDescription

LIMIT_S = 20.0
ROWS = 4  # the most rows a pass has here; row i of pass p has the value ROWS * p + i

Op = tuple[Any, ...]
OPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("submit"), st.integers(0, ROWS), st.integers(0, 2), st.booleans(), st.booleans()
        ),
        st.tuples(st.just("cancel"), st.integers(0, 20)),
        st.tuples(st.just("cancel task"), st.integers(0, 20)),
        st.tuples(st.just("open gate"), st.integers(1, 5)),
        st.tuples(st.just("recover")),
        st.tuples(st.just("let threads run")),
    ),
    max_size=30,
)


class RandomRig(PhysicalSystem):
    """Write down every row; refuse to be used by two at once or outside start and shutdown."""

    instruments = ()

    def __init__(self) -> None:
        super().__init__()
        value = ArraySpec("value", "V", (1,), 0.0, 1e6)
        self.description = SystemDescription("rig", value, value, value, 0.0)
        self.events: list[tuple[str, int, int]] = []
        self.bad_passes: set[int] = set()
        self.gate = threading.Semaphore(0)
        self.misused = ""
        self.faulted = False
        self._started = False
        self._in_use = threading.Lock()

    def start(self) -> None:
        self._started = True

    def shutdown(self) -> None:
        self._started = False

    def _measure_row(self, x: Array, theta: Array) -> tuple[Array, bool]:
        if not self._started or not self._in_use.acquire(blocking=False):
            self.misused = f"row {x} while not started or in use"
        number, row = divmod(int(x[0]), ROWS)
        self.events.append(("row", number, row))
        if not self.gate.acquire(timeout=LIMIT_S):
            self.misused = "nobody opened the gate"
        self._in_use.release()
        if number in self.bad_passes and row == 1:
            self.faulted = True
            raise InstrumentTimeout("osa", "no answer")
        return x + theta, False


@dataclass
class Run:
    """One random run: what was asked of each pass, and how it ended."""

    rig: RandomRig
    scheduler: HardwareScheduler
    lengths: list[int] = field(default_factory=list)
    clients: list["asyncio.Task[None]"] = field(default_factory=list)
    threaded: set[int] = field(default_factory=set)
    cancelled: set[int] = field(default_factory=set)
    task_cancelled: set[int] = field(default_factory=set)
    others: list["asyncio.Task[None]"] = field(default_factory=list)
    outcomes: dict[int, Any] = field(default_factory=dict)

    async def do(self, op: Op) -> None:
        match op:
            case ("submit", rows, priority, bad, in_thread):
                number = len(self.clients)
                self.lengths.append(rows)
                self.rig.bad_passes.update({number} if bad else ())
                self.threaded.update({number} if in_thread else ())
                self.clients.append(asyncio.create_task(self.client(number, priority)))
            case ("cancel", which) if which < len(self.clients):
                self.cancelled.add(which)
                self.others.append(asyncio.create_task(self.cancel(which)))
            case ("cancel task", which) if which < len(self.clients):
                # cancelling the wait for a thread would not reach the thread
                if which not in self.threaded:
                    self.task_cancelled.add(which)
                    self.clients[which].cancel()
            case ("open gate", rows):
                self.rig.gate.release(rows)
            case ("recover",):
                self.others.append(asyncio.create_task(self.recover()))
            case ("let threads run",):
                await asyncio.to_thread(lambda: None)
        await asyncio.sleep(0)

    async def client(self, number: int, priority: int) -> None:
        """Submit one pass and write down its outcome."""
        x = np.arange(self.lengths[number], dtype=float)[:, None] + ROWS * number
        request = ForwardPass("rig", x, np.zeros_like(x), None, priority, pass_id=str(number))
        try:
            if number in self.threaded:
                outcome: Any = await asyncio.to_thread(self.scheduler.measure_blocking, request)
            else:
                outcome = await self.scheduler.submit(request)
        except (LabError, InstrumentTimeout, asyncio.CancelledError) as error:
            outcome = error
        assert number not in self.outcomes
        self.outcomes[number] = outcome
        self.rig.events.append(("end", number, 0))

    async def cancel(self, which: int) -> None:
        with contextlib.suppress(UnknownName):  # it has not come yet, or has ended
            await self.scheduler.cancel(str(which))

    async def recover(self) -> None:
        with contextlib.suppress(SystemClosed, SystemFaulted):  # it closed, or failed again
            await self.scheduler.recover("rig")


async def run(ops: list[Op], close_early: bool) -> Run:
    rig = RandomRig()
    async with asyncio.timeout(LIMIT_S), HardwareScheduler({"rig": rig}) as scheduler:
        this = Run(rig, scheduler)
        for op in ops:
            await this.do(op)
        rig.gate.release(1 + ROWS * len(this.clients))
        if close_early:
            await scheduler.close()
        await asyncio.gather(*this.clients, *this.others)
    return this


@settings(max_examples=200, deadline=None)
@given(OPS, st.booleans())
def test_every_pass_ends_once_with_its_own_rows_and_none_follows(
    ops: list[Op], close_early: bool
) -> None:
    logging.disable()
    try:
        this = asyncio.run(run(ops, close_early))
    finally:
        logging.disable(logging.NOTSET)
    assert not this.rig.misused
    for number in range(len(this.clients)):
        check_rows(this, number)
        check_outcome(this, number, close_early)
    check_passes_do_not_mix(this)
    check_shot_numbers(this)


def check_rows(this: Run, number: int) -> None:
    """The rows that ran are the first ones, in order, and all before the pass's one end."""
    mine = [(kind, row) for kind, owner, row in this.rig.events if owner == number]
    assert mine == [("row", i) for i in range(len(mine) - 1)] + [("end", 0)]
    if isinstance(this.outcomes[number], Measurement):
        assert len(mine) - 1 == this.lengths[number]


def check_outcome(this: Run, number: int, closed: bool) -> None:
    """An outcome has a cause: without cancel, fault and close there is a measurement."""
    match this.outcomes[number]:
        case Measurement(y=y):
            expected = ROWS * number + np.arange(this.lengths[number])
            np.testing.assert_array_equal(y[:, 0], expected)
        case PassCancelled():
            assert number in this.cancelled
        case asyncio.CancelledError():
            assert number in this.task_cancelled
        case InstrumentTimeout():
            assert number in this.rig.bad_passes
        case SystemFaulted():
            assert this.rig.faulted
        case SystemClosed():
            assert closed
        case other:
            raise AssertionError(f"unexpected outcome {other!r}")


def check_passes_do_not_mix(this: Run) -> None:
    owners = [owner for kind, owner, _ in this.rig.events if kind == "row"]
    blocks = [owner for i, owner in enumerate(owners) if i == 0 or owners[i - 1] != owner]
    assert len(blocks) == len(set(blocks))


def check_shot_numbers(this: Run) -> None:
    """Measured passes' shot numbers rise in the order of execution and never overlap."""
    order = dict.fromkeys(owner for kind, owner, _ in this.rig.events if kind == "row")
    free = 0
    for m in (this.outcomes[number] for number in order):
        if isinstance(m, Measurement):
            assert m.first_shot >= free
            free = m.first_shot + len(m.y)


@given(st.lists(st.one_of(st.integers(-2, 2), st.just("pop"), st.just("remove")), max_size=40))
def test_waiting_passes_are_a_stable_priority_queue(ops: list[Any]) -> None:
    asyncio.run(compare_with_sorting(ops))


async def compare_with_sorting(ops: list[Any]) -> None:
    waiting, model = WaitingPasses(), list[Ticket]()
    for number, op in enumerate(ops):
        if op == "pop":
            expected = model.pop(0) if model else None
            assert waiting.pop() is expected
        elif op == "remove":
            ticket = model.pop(len(model) // 2) if model else None
            assert ticket is None or waiting.remove(ticket)
            assert ticket is None or not waiting.remove(ticket)
        else:
            row = np.zeros((1, 1))
            ticket = Ticket(ForwardPass("rig", row, row, priority=op, pass_id=str(number)))
            waiting.add(ticket)
            model.append(ticket)
            model.sort(key=lambda t: -t.forward_pass.priority)  # stable: first come first
        assert len(waiting) == len(model)
    assert waiting.pop_all() == model
    assert len(waiting) == 0
    assert waiting.pop() is None
