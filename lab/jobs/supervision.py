"""A job in a trainer process: served while it works, and started again when it dies or hangs."""

import logging
import pickle
import queue
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from drivers.spec import Array
from lab.errors import LabError, TrainerDied
from lab.jobs.desk import Assignment, Work
from lab.jobs.job_desk import JobDesk
from lab.jobs.pipe_desk import PackedKeys, unpack_keys
from lab.jobs.told_errors import RemoteTrace, tell
from lab.jobs.trainers import Trainer, Trainers
from lab.measurement import ForwardPass, Measurement
from lab.recording.known_rows import PartlyKnown

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0
_ASKED = (
    *("metric", "plan_rows", "count_rows", "start_pace", "go_back"),
    *("twin", "own_twin", "find_or_begin_twin", "add_twin"),
    *("read", "write", "names", "delete"),
)
"""What a process may ask for at its job's desk (`lab.jobs.desk`)."""


@dataclass(frozen=True)
class Patience:
    """With what is put up, and for how long.

    deaths: of a job's trainer processes in a row in which none got further than any before.
    hang_s: without a sign of progress while no rows are measured. goodbye_s: from the request to
    end until a process is killed where the job goes on in the next service; keep_s: where it does
    not, for it may want to write its last checkpoint.
    """

    deaths: int = 3
    hang_s: float = 600.0
    goodbye_s: float = 2.0
    keep_s: float = 60.0


def supervise(
    nursery: Trainers,
    work: Work,
    assignment: Assignment,
    desk: JobDesk,
    patience: Patience,
    watch: Callable[[Trainer], None],
) -> dict[str, Any]:
    """Have `work` done in a trainer process and return its result; raise what it raised.

    A process that dies is replaced, and goes on from the newest checkpoint; TrainerDied after too
    many. watch: told of every process. Raises Stopped when the job was stopped.
    """
    deaths, furthest = 0, desk.progress
    while True:
        desk.check()
        desk.start()
        trainer = nursery.trainer(desk.stopped)
        watch(trainer)
        session = Session(trainer, desk, patience)
        try:
            end = session.serve(work, assignment)
        finally:
            how = session.close()
            desk.close()
        if end is not None:
            return end.value()
        desk.check()
        deaths = 1 if _further(desk.progress, furthest) else deaths + 1
        furthest = max(desk.progress[0], furthest[0]), max(desk.progress[1], furthest[1])
        how = session.hung or how
        if deaths >= patience.deaths:
            raise TrainerDied(f"the trainer process died {deaths} times ({how})")
        log.warning("job %s goes on in another process: its own died (%s)", assignment.job, how)


def _further(now: tuple[int, str], before: tuple[int, str]) -> bool:
    return now[0] > before[0] or now[1] > before[1]


@dataclass(frozen=True)
class End:
    """The last word of a trainer process: a result, or an error."""

    result: dict[str, Any] | None = None
    error: Exception | None = None

    def value(self) -> dict[str, Any]:
        """Return the result, or raise the error."""
        if self.error is not None or self.result is None:
            raise self.error or TypeError("the work returned nothing")
        return self.result


class Session:
    """One trainer process at work on a job; `serve` once, then `close`.

    Its thread answers requests in their order, and hands rows to the scheduler without waiting; a
    second one sends the answers, because neither the scheduler's loop nor who reads may wait for a
    process that does not read. hung: what was wrong with it where it had to be killed, else empty.
    """

    def __init__(self, trainer: Trainer, desk: JobDesk, patience: Patience) -> None:
        """Serve `trainer` at `desk`."""
        self.hung = ""
        self._trainer, self._desk, self._job = trainer, desk, desk.job
        self._patience = patience
        self._passes: dict[str, Future[Measurement]] = {}
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._sender = threading.Thread(target=self._send, name="trainer-answers", daemon=True)
        self._news_s = time.monotonic()
        self._stopped_s: float | None = None
        self._calls: dict[str, Callable[..., Any]] = {
            **{name: getattr(desk, name) for name in _ASKED},
            "cancel": self._cancel,
            "alive": lambda: None,
            "log": lambda name, level, text: logging.getLogger(name).log(level, "%s", text),
        }

    def serve(self, work: Work, assignment: Assignment) -> End | None:
        """Serve until the end; None: it died, or was killed because it hung or had to go."""
        self._sender.start()
        self._answers.put(pickle.dumps((work, assignment)))  # tensors too, by value
        with self._job.when_stopped(self._ask_to_end), suppress(EOFError, OSError):
            while self._may_go_on():
                if not self._trainer.line.poll(_LOOK_EVERY_S):
                    continue
                number, what, arguments = self._trainer.line.recv()
                self._news_s = time.monotonic()
                if what == "done":
                    return End(result=arguments[0])
                if what == "failed":
                    return End(error=_failure(*arguments))
                self._answer(number, what, arguments)
        return None

    def close(self) -> str:
        """End the process and its passes, in any case; return how it ended."""
        self._trainer.kill()
        self._cancel()
        wait(tuple(self._passes.values()))
        self._answers.put(None)
        if self._sender.is_alive():
            self._sender.join()
        return self._trainer.end()

    def _ask_to_end(self) -> None:
        if self._job.at_once:
            self._trainer.kill()
        self._answers.put((None, True, self._job.ends_as[1]))

    def _may_go_on(self) -> bool:
        """Say whether the process is all right; kill nothing here, `close` does."""
        now = time.monotonic()
        if self._job.stopped():
            self._stopped_s = self._stopped_s or now
            goes_on = self._job.ends_as[0] is None
            most_s = self._patience.goodbye_s if goes_on else self._patience.keep_s
            return now - self._stopped_s <= most_s
        if self._passes:
            self._news_s = now
        if now - self._news_s > self._patience.hang_s:
            self.hung = f"no sign of life for {self._patience.hang_s:g} s: killed"
            return False
        return True

    def _answer(self, number: int | None, what: str, arguments: tuple[Any, ...]) -> None:
        if what == "measure":
            self._measure(number, *arguments)
            self._news_s = time.monotonic()  # it may have waited for the database
            return
        if number is None:
            self._calls[what](*arguments)  # what fails here fails the job
            self._news_s = time.monotonic()  # it may have waited for the disk
            return
        try:
            answer = self._calls[what](*arguments)
        except Exception as error:
            self._answers.put((number, False, tell(error)))
        else:
            self._answers.put((number, True, answer))
        self._news_s = time.monotonic()

    def _measure(
        self, number: int | None, x: Array, theta: Array, keys: PackedKeys, depth: int
    ) -> None:
        """Hand a pass to the scheduler, and have its end answered; see `ScheduledRun`."""
        job, pass_id = self._job, uuid.uuid4().hex
        system, unpacked = job.config.system, unpack_keys(keys)
        forward_pass = ForwardPass(system, x, theta, unpacked, pass_id=pass_id, depth=depth)
        job.pass_ids.add(pass_id)
        try:
            owned = self._desk.own(forward_pass)
            measuring = self._desk.scheduler.measure_soon(owned.rest, job.stopped)
        except Exception as error:
            job.pass_ids.discard(pass_id)
            self._answers.put((number, False, tell(error)))
            return
        self._passes[pass_id] = measuring
        measuring.add_done_callback(partial(self._measured, number, owned))

    def _measured(self, number: int | None, owned: PartlyKnown, ended: Future[Measurement]) -> None:
        self._passes.pop(owned.forward_pass.pass_id, None)
        self._job.pass_ids.discard(owned.forward_pass.pass_id)
        try:
            answer = self._answer_of(owned, ended)
        except Exception as error:  # whoever has asked would wait for ever
            answer = False, tell(error)
        self._answers.put((number, *answer))

    def _answer_of(self, owned: PartlyKnown, ended: Future[Measurement]) -> tuple[bool, Any]:
        error = ended.exception()
        if isinstance(error, Exception):
            self._desk.record(owned, error)
            if isinstance(error, LabError):
                error.measured = None  # which is not sent
            return False, tell(error)
        measured = ended.result()
        self._desk.record(owned, measured)
        return True, (owned.whole(measured).y, measured.finished_s - measured.started_s)

    def _cancel(self) -> None:
        for pass_id in tuple(self._passes):
            self._desk.scheduler.cancel_soon(pass_id)

    def _send(self) -> None:
        """Send what is to be said, in a thread of its own, until None."""
        while (message := self._answers.get()) is not None:
            try:
                self._trainer.line.send(message)
            except OSError:  # it has died, which the end of its line tells
                continue
            except Exception:  # nothing that can be sent: it would wait for ever
                log.exception("job %s: an answer cannot be sent", self._job.id)
                self._trainer.kill()


def _failure(told: Any, trace: str) -> Exception:
    error: Exception = told.rebuilt()
    error.__cause__ = RemoteTrace(trace)
    return error
