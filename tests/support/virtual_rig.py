"""A physical system whose instrument calls take virtual time, fail on demand and are written down.

Every row has a value of its own, so that it can be recognised wherever it turns up.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from drivers.errors import Aborted, InstrumentTimeout, LimitError
from drivers.row_key import RowKey
from drivers.spec import Array, ArraySpec
from lab.systems.base import PhysicalSystem, Rows, SystemDescription
from virtual_time import running_loop

Moment = Literal["before", "during", "after"]
ROW_S = 0.25  # time of an instrument call, unless a test says otherwise; exact in binary


@dataclass
class Call:
    """One instrument call that reached the hardware: its rows' values; times are virtual, s."""

    begun_s: float
    values: list[float]
    keys: list[int]
    ended_s: float | None = None


@dataclass(frozen=True)
class Failure:
    """How an instrument call goes wrong: before, during or after its time."""

    moment: Moment = "during"
    error: Exception | None = None


class SharedInstrument:
    """A name to share, and whether somebody uses it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.in_use = threading.Lock()


class VirtualRig(PhysicalSystem):
    """y = (x, theta) of each row, after `call_s` of virtual time an instrument call.

    calls:    instrument calls that reached the hardware, in order. events: these rows' values and
              "start" and "shutdown", as (virtual time, what).
    failures: by row value, what goes wrong with it, one entry an execution.
    hangs:    by row value, how much longer than call_s its call takes, once.
    refuses:  values that the instruments refuse with a LimitError; nothing is sent.
    before_refusing: called in the hardware's thread just before that.
    fail_start, fail_shutdown: what the next ones raise; None lets one pass.
    failed_before: rows that went wrong before they reached the hardware.
    misuse:   anything that no caller may ever do.
    """

    def __init__(
        self,
        name: str = "rig",
        call_s: float = ROW_S,
        batch_rows: int = 1,
        instruments: Sequence[Any] = (),
        start_s: float = 0.0,
    ) -> None:
        super().__init__(announce=lambda keys, coming: self._keys.extend(k.index for k in keys))
        value = ArraySpec("value", "V", (1,), 0.0, 1e9)
        two = ArraySpec("y", "V", (2,), 0.0, 1e9)
        self.description = SystemDescription(name, value, value, two, call_s)
        self.clock = running_loop()
        self.instruments = tuple(instruments)
        self.call_s, self.start_s, self.batch_rows = call_s, start_s, batch_rows
        self.calls: list[Call] = []
        self.events: list[tuple[float, Any]] = []
        self.failures: dict[float, list[Failure]] = {}
        self.hangs: dict[float, float] = {}
        self.refuses: set[float] = set()
        self.before_refusing: Callable[[], None] = lambda: None
        self.fail_start: list[Exception | None] = []
        self.fail_shutdown: list[Exception | None] = []
        self.failed_before = 0
        self.misuse: list[str] = []
        self.started = False
        self._keys: list[int] = []
        self._in_use = threading.Lock()
        self._aborted = threading.Event()

    @property
    def rows(self) -> list[float]:
        """The values of all rows that reached the hardware, in order."""
        return [value for call in self.calls for value in call.values]

    def fail(
        self,
        value: float,
        moment: Moment = "during",
        error: Exception | None = None,
        times: int = 1,
    ) -> None:
        """Let the row of this value go wrong, the next `times` that it is measured."""
        self.failures.setdefault(value, []).extend([Failure(moment, error)] * times)

    def times(self, what: Any) -> list[float]:
        """Return when "start", "shutdown" or a row's value happened."""
        return [time for time, event in self.events if event == what]

    def abort(self, reason: Exception | None = None) -> None:
        self._aborted.set()
        self._note("abort")

    def start(self) -> None:
        self._note("start")
        with self._exclusive_use():
            self._aborted.clear()
            self.clock.sleep(self.start_s)
            _raise_next(self.fail_start)
            self.started = True

    def shutdown(self) -> None:
        self._note("shutdown")
        with self._exclusive_use():
            self.started = False
            _raise_next(self.fail_shutdown)

    def measure(self, x: Array, theta: Array, keys: Sequence[RowKey] | None = None) -> Rows:
        self._keys = []
        return super().measure(x, theta, keys)

    def _measure_batch(self, x: Array, theta: Array) -> Rows:
        values: list[float] = x[:, 0].tolist()
        if self.refuses.intersection(values):
            self.before_refusing()
            raise LimitError("dac", "x", "too much")
        if not self.started or len(values) > self.batch_rows:
            self.misuse.append(f"rows {values} of at most {self.batch_rows}, {self.started=}")
        with self._exclusive_use():
            self._execute(values)
        return Rows(np.concatenate([x, theta], axis=1), x[:, 0] > 5e8)

    def _execute(self, values: list[float]) -> None:
        self.failed_before += len(values)
        self._fail_if_due(values, "before")
        self.failed_before -= len(values)
        call = Call(self.clock.time(), values, self._keys)
        self.calls.append(call)
        for value in values:
            self._note(value)
        if self._next_moment(values) == "during":
            self.clock.sleep(self.call_s / 2)
            self._fail_if_due(values, "during")
        self.clock.sleep(self.call_s)
        if hangs := [self.hangs.pop(value) for value in values if value in self.hangs]:
            self.clock.sleep(max(hangs))
        self._fail_if_due(values, "after")
        if self._aborted.is_set():
            raise Aborted("osa", "sweep: aborted")
        call.ended_s = self.clock.time()

    def _next_moment(self, values: Iterable[float]) -> Moment | None:
        return next((self.failures[v][0].moment for v in values if self.failures.get(v)), None)

    def _fail_if_due(self, values: Iterable[float], moment: Moment) -> None:
        for value in values:
            if self.failures.get(value) and self.failures[value][0].moment == moment:
                failure = self.failures[value].pop(0)
                raise failure.error or InstrumentTimeout("osa", "no answer")

    def _note(self, what: Any) -> None:
        self.events.append((self.clock.time(), what))

    @contextmanager
    def _exclusive_use(self) -> Iterator[None]:
        """Note it if anybody else uses the rig or one of its instruments now."""
        locks = [self._in_use, *(i.in_use for i in self.instruments)]
        held = [lock for lock in locks if lock.acquire(blocking=False)]
        if len(held) < len(locks):
            self.misuse.append(f"used by two at once at {self.clock.time():g} s")
        try:
            yield
        finally:
            for lock in held:
                lock.release()


def _raise_next(errors: list[Exception | None]) -> None:
    if errors and (error := errors.pop(0)) is not None:
        raise error
