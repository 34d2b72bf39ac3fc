"""Random use of a scheduler over two rigs that share an instrument; all of it is written down."""

import asyncio
import contextlib
import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from drivers.errors import DriverError
from drivers.row_key import row_keys
from lab.bench_config import SchedulerConfig
from lab.errors import LabError
from lab.measurement import ForwardPass
from lab.scheduling.scheduler import HardwareScheduler
from lab.scheduling.status import SystemStatus
from virtual_rig import SharedInstrument, VirtualRig
from virtual_time import running_loop

ROWS = 10  # more than any pass has; row i of pass p has the value ROWS * p + i + 1
RIGS = ("single", "batch")
LIMIT_S = 10_000.0  # of virtual time: all ends long before, or it never does

Op = tuple[Any, ...]


def seldom(*values: Any) -> Any:
    """Return None in most cases, so that most passes live long enough to meet something else."""
    return st.sampled_from([None] * 5 * len(values) + list(values))


some_seconds = st.sampled_from([0.1, 0.25, 0.7, 2.0])
moments = st.sampled_from(["before", "during", "after", "refused", "hangs"])
passes = st.fixed_dictionaries(
    {
        "rig": st.sampled_from(RIGS),
        "rows": st.sampled_from([0, 1, 1, 2, 3, 4, 7]),
        "priority": st.integers(-1, 1),
        "client": st.sampled_from("abc"),
        "depth": st.integers(0, 1),
        "keyed": st.booleans(),
        "deadline": seldom(0.3, 2.0, 5.0),
        "timeout": seldom(0.3, 1.1),
        "repeatable": st.booleans(),
        "on_fault": st.sampled_from(["wait", "fail"]),
        "reserved": seldom(True),
        "in_thread": seldom(True),
        "bad_row": st.one_of(st.none(), st.none(), st.tuples(st.integers(0, 3), moments)),
    }
)
which = st.integers(0, 30)
rigs = st.sampled_from(RIGS)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.lists(passes, min_size=2, max_size=6)),
        st.tuples(st.just("submit"), st.lists(passes, min_size=2, max_size=6)),
        st.tuples(st.just("time passes"), some_seconds),
        st.tuples(st.just("cancel"), which),
        st.tuples(st.just("cancel task"), which),
        st.tuples(st.just("reserve"), rigs, st.sampled_from([1.0, 3.0])),
        st.tuples(st.just("cancel reserving")),
        st.tuples(st.just("heartbeat"), rigs),
        st.tuples(st.just("release"), rigs),
        st.tuples(st.just("recover"), rigs),
        st.tuples(st.just("stop")),
        st.tuples(st.just("starts fail"), rigs, st.integers(1, 3)),
        st.tuples(st.just("shutdown fails"), rigs),
    ),
    min_size=6,
    max_size=20,
)
configs = st.fixed_dictionaries(
    {
        "slice_s": st.sampled_from([0.02, 1.0]),
        "longest_wait_s": st.sampled_from([0.5, 60.0]),
        "company_wait_s": st.sampled_from([0.0, 0.3]),
        "max_waiting_per_client": st.sampled_from([1000, 1000, 3]),
        "recovery_attempts": st.sampled_from([0, 2]),
        "call_timeout_s": st.just(3.0),
    }
)
head_starts = st.lists(st.integers(0, 4), min_size=1, max_size=5)


@dataclass
class Run:
    """One random run: what was asked, what happened, in the order in which it happened."""

    scheduler: HardwareScheduler
    rigs: dict[str, VirtualRig]
    asked: list[dict[str, Any]] = field(default_factory=list)
    clients: list["asyncio.Task[None]"] = field(default_factory=list)
    others: list["asyncio.Task[Any]"] = field(default_factory=list)
    reserving: list["asyncio.Task[Any]"] = field(default_factory=list)
    outcomes: dict[int, Any] = field(default_factory=dict)
    ended_at: dict[int, dict[str, int]] = field(default_factory=dict)
    cancelled: set[int] = field(default_factory=set)
    task_cancelled: set[int] = field(default_factory=set)
    numbers: dict[str, int] = field(default_factory=dict)
    statuses: list[SystemStatus] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    stops: int = 0

    async def do(self, op: Op) -> None:
        match op:
            case ("submit", burst):
                for asked in burst:
                    number = len(self.clients)
                    self.asked.append(asked)
                    self.clients.append(asyncio.create_task(self.client(number, asked)))
            case ("time passes", seconds):
                await asyncio.sleep(seconds)
            case ("cancel", number) if number < len(self.clients):
                self.cancelled.add(number)
                self.aside(self.scheduler.cancel(str(number)))
            case ("cancel task", number) if number < len(self.clients):
                if not self.asked[number]["in_thread"]:  # a thread cannot be cancelled
                    self.task_cancelled.add(number)
                    self.clients[number].cancel()
            case ("reserve", rig, ttl_s):
                self.reserving.append(self.aside(self.reserve(rig, ttl_s)))
            case ("cancel reserving",) if self.reserving:
                self.reserving[-1].cancel()
            case ("heartbeat", rig) if rig in self.numbers:
                with contextlib.suppress(LabError):
                    self.scheduler.heartbeat(rig, self.numbers[rig])
            case ("release", rig) if rig in self.numbers:
                with contextlib.suppress(LabError):
                    self.scheduler.release(rig, self.numbers[rig])
            case ("recover", rig):
                self.aside(self.scheduler.recover(rig))
            case ("stop",):
                self.stops += 1
                self.aside(self.scheduler.stop("a stop"))
            case ("starts fail", rig, count):
                self.rigs[rig].fail_start += [OSError("off")] * count
            case ("shutdown fails", rig):
                self.rigs[rig].fail_shutdown.append(OSError("wire"))
        await asyncio.sleep(0)

    def aside(self, coroutine: Any) -> "asyncio.Task[Any]":
        """Let something go on beside, which may well be refused."""

        async def go_on() -> None:
            with contextlib.suppress(LabError, OSError):
                await coroutine

        task = asyncio.create_task(go_on())
        self.others.append(task)
        return task

    async def reserve(self, rig: str, ttl_s: float) -> None:
        granted = await self.scheduler.reserve(rig, "somebody", ttl_s)
        assert granted.number > self.numbers.get(rig, 0)
        self.numbers[rig] = granted.number

    async def client(self, number: int, asked: dict[str, Any]) -> None:
        """Submit one pass, and write down how and when it ended."""
        request = self.request(number, asked)
        self.plan_what_goes_wrong(number, asked)
        try:
            if asked["in_thread"]:
                call = self.scheduler.measure_blocking
                outcome: Any = await asyncio.to_thread(call, request)
            else:
                outcome = await self.scheduler.submit(request)
        except (LabError, DriverError, asyncio.CancelledError) as error:
            outcome = error
        assert number not in self.outcomes, "it ended twice"
        self.outcomes[number] = outcome
        self.ended_at[number] = {name: len(rig.rows) for name, rig in self.rigs.items()}

    def request(self, number: int, asked: dict[str, Any]) -> ForwardPass:
        rows, now = asked["rows"], running_loop().wall_time()
        x = values_of(number, rows)
        return ForwardPass(
            asked["rig"],
            x,
            x / 2,
            keys=row_keys(0, ROWS * number + 1, rows, 1.0) if asked["keyed"] else None,
            priority=asked["priority"],
            client=asked["client"],
            pass_id=f"{number}",
            depth=asked["depth"],
            deadline_s=None if asked["deadline"] is None else now + asked["deadline"],
            timeout_s=asked["timeout"],
            repeatable=asked["repeatable"],
            on_fault=asked["on_fault"],
            reservation=self.numbers.get(asked["rig"]) if asked["reserved"] else None,
        )

    def plan_what_goes_wrong(self, number: int, asked: dict[str, Any]) -> None:
        if asked["bad_row"] is None:
            return
        rig, (row, what) = self.rigs[asked["rig"]], asked["bad_row"]
        value = float(ROWS * number + row + 1)
        if what == "refused":
            rig.refuses.add(value)
        elif what == "hangs":
            rig.hangs[value] = 20.0
        else:
            rig.fail(value, what)


def values_of(number: int, rows: int) -> Any:
    return ROWS * number + 1.0 + np.arange(rows, dtype=float)[:, None]


async def run(
    ops: list[Op], config: dict[str, Any], head_starts: list[int], close_early: bool
) -> Run:
    """Do the ops, let everything end (by itself, or by a close), and look what is left."""
    laser = SharedInstrument("laser")
    rigs = {
        "single": VirtualRig("single", instruments=[laser]),
        "batch": VirtualRig("batch", batch_rows=3, instruments=[laser]),
    }
    clock = running_loop()
    ahead = itertools.cycle(head_starts)
    clock.turns_before_work = lambda: next(ahead)
    scheduler = HardwareScheduler(rigs, SchedulerConfig(**config))
    async with scheduler:
        this = Run(scheduler, rigs)
        for op in ops:
            await this.do(op)
        if close_early:
            await scheduler.close()
        await asyncio.gather(*this.clients)  # the clock raises Stuck if one never ends
        this.statuses = scheduler.statuses()
    await asyncio.gather(*this.others, return_exceptions=True)
    assert clock.time() < LIMIT_S
    this.left = [repr(t) for t in asyncio.all_tasks() if t is not asyncio.current_task()]
    return this
