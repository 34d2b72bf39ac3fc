"""Work on a run of a job in a thread of the engine's, from its claim to its one end."""

import asyncio
import logging
import threading
from typing import Any

import torch

from lab.deadlines import DeadlineTimer
from lab.errors import (
    CheckpointRefused,
    DeadlineMissed,
    LabError,
    Stopped,
    Superseded,
    SystemStopped,
    UnknownName,
)
from lab.jobs.comparing import Comparing, Hands
from lab.jobs.configs import CompareConfig
from lab.jobs.lineage import keep_attempt
from lab.jobs.live_job import LiveJob
from lab.jobs.news import NewsBoard
from lab.jobs.records import JobRecord, JobState
from lab.jobs.runner import JobRunner
from lab.jobs.store import Store
from lab.jobs.tidying import drop_checkpoints
from lab.traces import trace_of

log = logging.getLogger(__name__)

MISSED = "DeadlineMissed: the job's deadline has passed"
_LEFT = "the service ended without finishing this job"
_DEATHS = 10  # of its process in a row, without a metric in between


class Performer:
    """The jobs that this process works on; made on the event loop.

    live: by id. Once it is told to close it works on no others.
    """

    def __init__(
        self, runner: JobRunner, store: Store, board: NewsBoard, host: str, hands: Hands
    ) -> None:
        """Do the work with `runner`, in the name of `host`; that of comparisons with `hands`."""
        self.live: dict[str, LiveJob] = {}
        self._runner = runner
        self._hands = hands
        self._store = store.patient(self._wait_unless_closed)
        self._board = board
        self._host = host
        self._missing: set[asyncio.Task[None]] = set()
        self._working = 0
        self._changed = threading.Condition()
        self._closing = threading.Event()

    def perform(self, job_id: str, run: int) -> None:
        """Work on a run until its job has ended, or is to go on elsewhere or later.

        Does nothing for a run that does not count any more. Blocking; raises nothing.
        """
        self._count(1)
        try:
            self._perform(job_id, run)
        except (Superseded, Stopped) as error:
            log.warning("job %s: %s", job_id, error)
        except Exception:
            # the store failed: nothing can be kept, and the sweeper queues the job again
            log.exception("job %s: its state could not be written", job_id)
        finally:
            self._board.tell(job_id)
            self._count(-1)

    def _wait_unless_closed(self, seconds: float) -> None:
        """Wait, in a job's thread, for the database; raise Stopped when the service is closed."""
        if self._closing.wait(seconds):
            raise Stopped(
                "it goes on later: the service stopped while the database was out of reach"
            )

    def _count(self, change: int) -> None:
        with self._changed:
            self._working += change
            self._changed.notify_all()

    def _wait_until_idle(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._working == 0)

    def _perform(self, job_id: str, run: int) -> None:
        # one core per job: threads of torch's own would only take it from the siblings
        torch.set_num_threads(1)
        record = None if self._closing.is_set() else self._store.claim_job(job_id, run, self._host)
        if record is None:
            return
        job = self._accepted(record)
        if job is None:
            return
        self.live[job_id] = job
        try:
            if self._closing.is_set():  # since the claim
                job.stop("the service stopped", None)
            job.on_loop(lambda: self._watch_deadline(job))
            job.tell()
            self._end(job, self._outcome(job, record))
        finally:
            if self.live.get(job_id) is job:  # and not yet its next run
                del self.live[job_id]
            job.on_loop(lambda: _forget_deadline(job))

    def _end(self, job: LiveJob, outcome: dict[str, Any]) -> None:
        if outcome["state"] is None:
            self._store.hand_back(job.id, job.attempt)
            return
        self._store.end_job(job.id, **outcome, attempt=job.attempt)
        drop_checkpoints(self._store, job.id, outcome["state"])

    def _accepted(self, record: JobRecord) -> LiveJob | None:
        """Return the job, ready to be worked on; end it where it is not to run or cannot."""
        state, error = _as_wished(record)
        config = None
        # a comparison waits for hours, and no death is its own
        mortal = record.kind != "compare"
        if state is None and mortal and self._store.deaths(record.id) >= _DEATHS:
            state = "failed"
            error = f"its process died {_DEATHS} times in a row, without a metric in between"
        if state is None:
            try:
                config = self._runner.recovered(record)
            except DeadlineMissed:
                state, error = "failed", MISSED
            except (LabError, ValueError) as reason:
                state, error = "unknown", f"{_LEFT}, and it cannot go on: {reason}"
        if config is not None:
            return LiveJob(record, config, self._store, self._board)
        # what somebody asked for is nothing to warn of
        level = logging.INFO if record.wish else logging.WARNING
        log.log(level, "job %s is %s: %s", record.id, state, error)
        self._store.end_job(record.id, state or "unknown", error=error, attempt=record.attempt)
        drop_checkpoints(self._store, record.id, state or "unknown")
        return None

    def _outcome(self, job: LiveJob, record: JobRecord) -> dict[str, Any]:
        try:
            keep_attempt(job.store, record, self._runner.provenance(job.config, record.started_s))
            return {"state": "succeeded", "result": self._result(job)}
        except Superseded:
            raise
        except Exception as error:
            # a pass has the deadline of its job, and may notice it before the job's timer does
            if isinstance(error, DeadlineMissed):
                job.stop(MISSED, "failed")
            if isinstance(error, SystemStopped):
                job.stop(str(error))
            # what a stopped job runs into (a cancelled pass, a closed system) is its stop
            if job.stopped():
                state, reason = job.ends_as
                return {"state": state, "error": reason}
            if isinstance(error, CheckpointRefused):
                return {"state": "unknown", "error": f"{_LEFT}: {error}"}
            why = f"{type(error).__name__}: {error}"
            log.warning("job %s failed: %s", job.id, why, exc_info=trace_of(error))
            return {"state": "failed", "error": why}

    def _result(self, job: LiveJob) -> dict[str, Any]:
        if isinstance(job.config, CompareConfig):
            return Comparing(job, job.config, self._runner, self._hands).run()
        return self._runner.run(job)

    async def stop(self, job: LiveJob, reason: str, state: JobState | None = "cancelled") -> None:
        """Ask a job to end in a state (see `LiveJob.ends_as`), and cancel its passes."""
        job.stop(reason, state)
        self._runner.turns.wake()
        # a copy at once: the job's threads change the set
        await asyncio.gather(*(self._cancel_pass(job, p) for p in tuple(job.pass_ids)))

    def refuse(self) -> None:
        """Work on no more jobs than there are."""
        self._closing.set()

    async def close(self) -> None:
        """Work on no more jobs, and wait until none is worked on, which whoever stops them sees."""
        self.refuse()
        await asyncio.gather(*self._missing)
        await asyncio.to_thread(self._wait_until_idle)

    async def _cancel_pass(self, job: LiveJob, pass_id: str) -> None:
        try:
            await self._runner.scheduler.cancel(pass_id)
        except UnknownName:
            # it has just ended, or it is still on its way and will not be queued
            log.debug("pass %s of job %s was not there to cancel", pass_id, job.id)

    def _watch_deadline(self, job: LiveJob) -> None:
        if job.config.deadline_s is not None and job.id in self.live:
            job.deadline = DeadlineTimer(job.config.deadline_s, lambda: self._miss_deadline(job))

    def _miss_deadline(self, job: LiveJob) -> None:
        task = asyncio.create_task(self.stop(job, MISSED, "failed"))
        self._missing.add(task)
        task.add_done_callback(self._missing.discard)


def _as_wished(record: JobRecord) -> tuple[JobState | None, str]:
    """Return how a job ends that was asked to before its process died; None: it goes on."""
    if record.wish == "pause":
        return "paused", record.error
    if record.wish:
        return "cancelled", record.error
    return None, ""


def _forget_deadline(job: LiveJob) -> None:
    if job.deadline is not None:
        job.deadline.cancel()
