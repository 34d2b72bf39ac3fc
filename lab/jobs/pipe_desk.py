"""A job's desk as its trainer process sees it: at the other end of a pipe.

What the process says is (number, what, arguments); number is None where no answer is wanted.
What it hears is (number, whether that went well, value or error), and (None, True, reason) once it
is to end. When the pipe ends, its parent has gone, and the process goes at once.
"""

import itertools
import logging
import os
import pickle
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, cast

import numpy as np
import torch

from drivers.row_key import RowKey
from drivers.spec import Array
from lab.config import TwinKind
from lab.errors import PassCancelled, QueueFull, Stopped
from lab.jobs.desk import Assignment, Work
from lab.jobs.records import TwinRecord
from lab.jobs.told_errors import ToldError, tell
from lab.measure import Run
from lab.systems.base import never

ALIVE_EVERY_S = 2.0
LEFT_ALONE = 3  # exit code
# The thread that hears answers gets the interpreter from one that computes within so long.
SWITCH_INTERVAL_S = 0.001


class PipeDesk:
    """A `lab.jobs.desk.Desk` whose answers come from the parent process."""

    def __init__(self, line: Connection) -> None:
        """Listen at once; nobody else reads from or writes to `line`."""
        self._line = line
        self._sending = threading.Lock()
        self._numbers = itertools.count()
        self._waiting: dict[int, Future[Any]] = {}
        self._stop = threading.Event()
        self._reason = ""
        self._on_stop: list[Callable[[], object]] = []
        self._asked = self._shown = 0
        threading.Thread(target=self._listen, name="line", daemon=True).start()

    def run(self) -> Run:
        """Return what executes rows: passes that the parent queues."""
        return PipeRun(self)

    def stopped(self) -> bool:
        """Say whether the job is to end; who asks is not stuck."""
        self._asked += 1
        return self._stop.is_set()

    def check(self) -> None:
        """Raise Stopped if the job is to end."""
        if self.stopped():
            raise Stopped(self._reason)

    def pause(self, seconds: float) -> None:
        """Wait; raise Stopped as soon as the job is to end."""
        self._stop.wait(seconds)
        self.check()

    def metric(self, metric: Mapping[str, Any]) -> None:
        """Have one metric kept: before whatever is asked later."""
        self.say("metric", dict(metric))

    def plan_rows(self, rows: int) -> None:
        """Expect so many rows more than planned so far."""
        self.say("plan_rows", rows)

    def count_rows(self, rows: int) -> None:
        """Count rows that were measured elsewhere."""
        self.say("count_rows", rows)

    @contextmanager
    def when_stopped(self, call: Callable[[], object]) -> Iterator[None]:
        """Have something called when the job is to end, inside the block; maybe twice."""
        self._on_stop.append(call)
        try:
            if self._stop.is_set():
                call()
            yield
        finally:
            self._on_stop.remove(call)

    def start_pace(self) -> None:
        """Take the job's pace from here on."""
        self.say("start_pace")

    def go_back(self, step: int, rows: int) -> None:
        """Go on from a checkpoint."""
        self._ask("go_back", step, rows)

    def twin(self, twin_id: str) -> TwinRecord:
        """Return a kept twin; raise UnknownName."""
        return cast(TwinRecord, self._ask("twin", twin_id))

    def own_twin(self) -> TwinRecord | None:
        """Return the twin that this job has fitted, if it has."""
        return cast(TwinRecord | None, self._ask("own_twin"))

    def find_or_begin_twin(
        self, system: str, kind: TwinKind, rows: int, seed: int
    ) -> TwinRecord | None:
        """Return a kept twin like this; None: the job is to fit it."""
        found = self._ask("find_or_begin_twin", system, kind, rows, seed)
        return cast(TwinRecord | None, found)

    def add_twin(self, record: TwinRecord, state: bytes) -> None:
        """Keep a twin and its parameters."""
        self._ask("add_twin", record, state)

    def read(self, name: str) -> bytes:
        """Return a kept file; raise OSError."""
        return cast(bytes, self._ask("read", name))

    def write(self, name: str, data: bytes) -> None:
        """Keep a file; raise OSError."""
        self._ask("write", name, data)

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder."""
        return cast(list[str], self._ask("names", folder))

    def delete(self, name: str) -> None:
        """Drop a kept file."""
        self._ask("delete", name)

    def measure(
        self,
        x: Array,
        theta: Array,
        keys: Sequence[RowKey],
        depth: int,
        stopped: Callable[[], bool],
    ) -> tuple[Array, float]:
        """Have a pass measured; return y and the time from its first row to its last one's end, s.

        stopped: asked just before it is sent, so that what is cancelled later is all there is.
        """
        packed = pack_keys(keys)
        return cast(
            tuple[Array, float], self._ask("measure", x, theta, packed, depth, stopped=stopped)
        )

    def say(self, what: str, *arguments: object) -> None:
        """Say something that wants no answer."""
        with self._sending:
            self._line.send((None, what, arguments))

    def _ask(self, what: str, *arguments: object, stopped: Callable[[], bool] = never) -> Any:
        answer: Future[Any] = Future()
        with self._sending:
            if stopped():
                raise PassCancelled("stopped before the pass was queued")
            number = next(self._numbers)
            self._waiting[number] = answer
            self._line.send((number, what, arguments))
        return answer.result()

    def _listen(self) -> None:
        try:
            while True:
                if self._line.poll(ALIVE_EVERY_S):
                    self._hear(*self._line.recv())
                elif self._asked != self._shown:
                    self._shown = self._asked
                    self.say("alive")
        finally:
            # the parent is gone, or nothing from it can be understood: nobody wants the rest
            os._exit(LEFT_ALONE)

    def _hear(self, number: int | None, well: bool, value: Any) -> None:
        if number is None:
            self._reason = value
            self._stop.set()
            for call in tuple(self._on_stop):
                call()
        elif well:
            self._waiting.pop(number).set_result(value)
        else:
            error: ToldError = value
            self._waiting.pop(number).set_exception(error.rebuilt())


class PipeRun:
    """Execute rows in the parent process (a `lab.measure.Run`)."""

    def __init__(self, desk: PipeDesk) -> None:
        """Ask at `desk`."""
        self._desk = desk
        self._counting = threading.Lock()
        self._hardware_s = 0.0

    def __call__(
        self,
        x: Array,
        theta: Array,
        keys: Sequence[RowKey],
        *,
        depth: int = 0,
        stopped: Callable[[], bool] = never,
    ) -> Array:
        """Return y in physical units; raises what the scheduler raises but QueueFull: waits."""
        while True:
            try:
                y, seconds = self._desk.measure(x, theta, keys, depth, stopped)
            except QueueFull as full:
                self._desk.pause(full.retry_after_s)
            else:
                break
        with self._counting:
            self._hardware_s += seconds
        return y

    def cancel(self) -> None:
        """Have every pass under way cancelled, without waiting for its end."""
        self._desk.say("cancel")

    def hardware_s(self) -> float:
        """Return the time from each pass's first row to its last one's end, summed, s."""
        return self._hardware_s


PackedKeys = tuple[Any, Any, Any]


def pack_keys(keys: Sequence[RowKey]) -> PackedKeys:
    """Return rows' keys as arrays, which travel faster: streams, indices, times in s."""
    return (
        np.array([key.stream for key in keys], dtype=np.int64),
        np.array([key.index for key in keys], dtype=np.int64),
        np.array([key.time_s for key in keys], dtype=np.float64),
    )


def unpack_keys(packed: PackedKeys) -> list[RowKey]:
    """Return the rows' keys."""
    return [RowKey(*key) for key in zip(*(part.tolist() for part in packed), strict=True)]


class LineHandler(logging.Handler):
    """Let the parent log what is worth a warning here."""

    def __init__(self, desk: PipeDesk) -> None:
        """Say it at `desk`."""
        super().__init__(logging.WARNING)
        self._desk = desk

    def emit(self, record: logging.LogRecord) -> None:
        """Say one line, with its trace if it has one."""
        self._desk.say("log", record.name, record.levelno, self.format(record))


def work_at(line: Connection) -> None:
    """Do the work that the parent sends first, and say how it ended."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    torch.set_num_threads(1)  # one core per job: more would only take it from the siblings
    try:
        work, assignment = cast(tuple[Work, Assignment], pickle.loads(line.recv()))
    except EOFError:  # nobody wants it any more
        return
    desk = PipeDesk(line)
    logging.getLogger().addHandler(LineHandler(desk))
    try:
        result = work(assignment, desk)
    except BaseException as error:
        desk.say("failed", tell(error), traceback.format_exc())
    else:
        desk.say("done", result)
