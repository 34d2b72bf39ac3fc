"""Jobs: durable pieces of work (training, twin fits) that run beside the event loop.

A job that fails is data, its state and error; its siblings go on. Every job ends exactly once:
succeeded, failed or cancelled. One that the service left unfinished, whether it was stopped or
died, goes on when the next one opens the store: a training from its newest good checkpoint,
anything else from its beginning. Where it cannot go on it ends as unknown.
"""

import asyncio
import logging
import math
import secrets
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch

from lab.config import TrainConfig
from lab.errors import (
    CheckpointRefused,
    Conflict,
    DatabaseAway,
    DeadlineMissed,
    LabError,
    Stopped,
    SystemClosed,
    SystemStopped,
    UnknownName,
)
from lab.jobs.live_job import LiveJob
from lab.jobs.records import FitConfig, JobRecord, JobState, MetricRecord
from lab.jobs.runner import JobRunner
from lab.jobs.store import Store
from lab.traces import trace_of

log = logging.getLogger(__name__)

T = TypeVar("T")
_METRICS_AT_ONCE = 1000
_LOOK_AGAIN_S = 1.0  # for who follows a job while the database is out of reach
_LEFT = "the service ended without finishing this job"
_CANCELLED = "cancelled by request"
_MISSED = "DeadlineMissed: the job's deadline has passed"


class JobService:
    """Take, run, watch and stop jobs; its methods are for the event loop it was made on.

    workers: how many jobs run at once; they share the hardware pass by pass.
    """

    def __init__(self, runner: JobRunner, store: Store, workers: int = 2) -> None:
        """Run jobs with `runner` and keep them in `store`."""
        self._runner = runner
        self._store = store
        self._live: dict[str, LiveJob] = {}
        self._closed = False
        self._closing = threading.Event()
        self._missing: set[asyncio.Task[None]] = set()
        self._worker_count = workers
        # one core per job: threads of torch's own would only take it from the siblings
        self._workers = ThreadPoolExecutor(
            workers, "job", initializer=torch.set_num_threads, initargs=(1,)
        )

    async def submit(self, config: TrainConfig | FitConfig, client: str = "local") -> JobRecord:
        """Keep a new job and let it start as soon as a worker is free; its rows are `client`'s.

        Raises UnknownName (system, twin), ConfigError (what can be known not to work),
        DeadlineMissed (already), SystemClosed.
        """
        self._refuse_when_closed()
        config = self._runner.completed(config)
        await asyncio.to_thread(self._runner.check, config)
        job = LiveJob(secrets.token_hex(6), config, self._store, client)
        self._live[job.id] = job
        try:
            plain = config.model_dump(mode="json")
            await asyncio.to_thread(self._store.add_job, job.id, job.kind, plain, client)
            record = await self.get(job.id)
        except BaseException:
            self._forget(job)
            raise
        if self._closed:
            job.ends_as = "cancelled", "the service stopped"  # its client is told so
            await self._end_unstarted(job)
        self._refuse_when_closed()
        self._start(job)
        return record

    def _start(self, job: LiveJob) -> None:
        job.future = self._workers.submit(self._work, job)
        if job.config.deadline_s is not None:
            left_s = job.config.deadline_s - time.time()
            loop = asyncio.get_running_loop()
            job.deadline = loop.call_later(left_s, self._miss_deadline, job)

    async def go_on(self) -> None:
        """Go on with the jobs that an earlier service left unfinished, the oldest first."""
        await asyncio.to_thread(self._runner.tidy)
        for record in await asyncio.to_thread(self._store.unfinished_jobs):
            if record.error:  # it was being cancelled
                await self._end_left(record, "cancelled", record.error)
                continue
            try:
                config = await asyncio.to_thread(self._runner.recovered, record)
            except DeadlineMissed:
                await self._end_left(record, "failed", _MISSED)
            except (LabError, ValueError) as error:
                await self._end_left(record, "unknown", f"{_LEFT}, and it cannot go on: {error}")
            else:
                log.info("job %s goes on", record.id)
                job = self._live[record.id] = LiveJob(record.id, config, self._store, record.client)
                self._start(job)

    async def _end_left(self, record: JobRecord, state: JobState, reason: str) -> None:
        log.warning("job %s is %s: %s", record.id, state, reason)
        await asyncio.to_thread(self._store.end_job, record.id, state, error=reason)

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise SystemClosed("the service is stopping and takes no more jobs")

    async def get(self, job_id: str) -> JobRecord:
        """Return a job; raise UnknownName."""
        return self._estimated(await asyncio.to_thread(self._store.job, job_id))

    async def newest(self, state: JobState | None = None, limit: int = 100) -> list[JobRecord]:
        """Return the newest jobs, newest first."""
        found = await asyncio.to_thread(self._store.jobs, state, limit)
        return [self._estimated(record) for record in found]

    def _estimated(self, record: JobRecord) -> JobRecord:
        """Return the record, with an estimate if the job is under way here."""
        job = self._live.get(record.id)
        if record.ended or job is None:
            return record
        start_s = record.started_s or self._free_worker_s(job)
        return replace(record, estimate=job.rows.estimate(start_s))

    def _free_worker_s(self, job: LiveJob) -> float | None:
        """Return when a worker should be free for a pending job; None where nobody can say."""
        live = list(self._live.values())
        running = [other for other in live if other.future is not None and other.future.running()]
        ahead = sum(other not in running for other in live[: live.index(job)])
        ends = [other.rows.estimate(None).finish_s or math.inf for other in running]
        free = [time.time()] * (self._worker_count - len(running))
        times = [*free, *sorted(ends)]
        return times[ahead] if ahead < len(times) and math.isfinite(times[ahead]) else None

    async def metrics(
        self, job_id: str, since: int = 0, limit: int = _METRICS_AT_ONCE
    ) -> list[MetricRecord]:
        """Return the first metrics after step `since`; raise UnknownName."""
        await self.get(job_id)
        return await asyncio.to_thread(self._store.metrics, job_id, since, limit)

    async def result(self, job_id: str) -> dict[str, Any]:
        """Return what a job that succeeded found out; raise UnknownName, or Conflict."""
        record = await self.get(job_id)
        result = await asyncio.to_thread(self._store.result, job_id)
        if result is None:
            raise Conflict(f"job {job_id} has no result: it is {record.state}")
        return result

    async def cancel(self, job_id: str) -> JobRecord:
        """Cancel a job: at once while it is pending, else between rows and training steps.

        Returns the job as it is now, which may still be running. Raises UnknownName, or Conflict
        if it has ended.
        """
        record = await self.get(job_id)
        job = self._live.get(job_id)
        if record.ended or job is None:
            raise Conflict(f"job {job_id} has ended: it is {record.state}")
        await asyncio.to_thread(self._store.cancelling_job, job_id, _CANCELLED)
        await self._stop(job, _CANCELLED)
        return await self.get(job_id)

    async def cancel_all(self, reason: str) -> None:
        """Cancel every job, also those that compute or wait for a worker; each ends by itself."""
        jobs = tuple(self._live.values())
        await asyncio.gather(*(self._stop(job, reason) for job in jobs))
        # none may go on in the next service, should this one die before they have ended
        note = self._store.impatient().cancelling_job
        try:
            await asyncio.gather(*(asyncio.to_thread(note, job.id, reason) for job in jobs))
        except DatabaseAway as away:
            log.warning("%d jobs end as cancelled when this has passed: %s", len(jobs), away)

    async def watch(self, job_id: str, since: int = 0) -> AsyncIterator[MetricRecord | JobRecord]:
        """Yield the job, every metric after step `since`, and the job whenever its state changes.

        Ends after the job in its final state, or, without that, when the service is closed: the
        job goes on in the next one. Raises UnknownName.
        """
        shown: JobState | None = None
        while True:
            job = self._live.get(job_id)
            news = job.news() if job is not None else None
            record = await self._when_in_reach(self.get, job_id)
            if not record.ended and record.state != shown:
                shown = record.state
                yield record
            found = await self._when_in_reach(self.metrics, job_id, since)
            for metric in found:
                since = metric.step
                yield metric
            if len(found) == _METRICS_AT_ONCE:
                continue
            if record.ended:
                yield record
                return
            if news is None and self._closed:
                return
            if news is None:  # its end could not be written
                yield replace(record, state="unknown")
                return
            await news.wait()

    async def _when_in_reach(self, ask: Callable[..., Awaitable[T]], *about: Any) -> T:
        """Return what `ask` answers as soon as the database can be read."""
        while True:
            try:
                return await ask(*about)
            except DatabaseAway as away:
                if self._closed:
                    raise
                await asyncio.sleep(min(away.retry_after_s, _LOOK_AGAIN_S))

    async def stop_all(self) -> None:
        """Take no more jobs and stop every one, to go on in the next service.

        None of them queues a pass any more. What they compute may go on for a while: `close`
        waits for it.
        """
        self._closed = True
        self._closing.set()
        jobs = list(self._live.values())
        await asyncio.gather(*(self._stop(job, "the service stopped", None) for job in jobs))

    async def close(self) -> None:
        """Stop every job, to go on in the next service, and wait for it; idempotent."""
        await self.stop_all()
        await asyncio.gather(*self._missing)
        await asyncio.to_thread(self._workers.shutdown)

    def _miss_deadline(self, job: LiveJob) -> None:
        self._beside(self._stop(job, _MISSED, "failed"))

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Let something happen beside the rest; `close` waits for it."""
        task = asyncio.create_task(work)
        self._missing.add(task)
        task.add_done_callback(self._missing.discard)

    async def _stop(self, job: LiveJob, reason: str, state: JobState | None = "cancelled") -> None:
        job.stop(reason, state)
        if job.future is not None and job.future.cancel():
            await self._end_unstarted(job)
            return
        self._runner.turns.wake()
        # a copy at once: the job's threads change the set
        await asyncio.gather(*(self._cancel_pass(job, p) for p in tuple(job.pass_ids)))

    async def _cancel_pass(self, job: LiveJob, pass_id: str) -> None:
        try:
            await self._runner.scheduler.cancel(pass_id)
        except UnknownName:
            # it has just ended, or it is still on its way and will not be queued
            log.debug("pass %s of job %s was not there to cancel", pass_id, job.id)

    async def _end_unstarted(self, job: LiveJob) -> None:
        state, reason = job.ends_as
        if state is not None:
            end = partial(self._store.end_job, job.id, state, error=reason)
            try:
                await asyncio.to_thread(end)
            except DatabaseAway:
                self._beside(self._end_later(job, end))
                return
        self._forget(job)

    async def _end_later(self, job: LiveJob, end: Callable[[], None]) -> None:
        try:
            await self._when_in_reach(asyncio.to_thread, end)
        finally:
            self._forget(job)

    def _forget(self, job: LiveJob) -> None:
        """Drop a job that has ended, and tell its watchers."""
        self._live.pop(job.id, None)
        if job.deadline is not None:
            job.deadline.cancel()
        job.tell()

    def _work(self, job: LiveJob) -> None:
        """Run a job in its worker thread, to its one end, or to where the next service goes on."""
        store = self._store.patient(self._wait_unless_closing)
        try:
            store.start_job(job.id)
            job.tell()
            outcome = self._outcome(job)
            if outcome["state"] is not None:
                store.end_job(job.id, **outcome)
            if outcome["state"] == "succeeded":
                self._runner.forget_checkpoints(job.id)
        except Stopped as stopped:
            log.warning("job %s goes on in the next service: %s", job.id, stopped)
        except Exception:
            # the store failed: nothing can be kept, so the job will be unknown
            log.exception("job %s: its state could not be written", job.id)
        finally:
            job.on_loop(lambda: self._forget(job))

    def _wait_unless_closing(self, seconds: float) -> None:
        """Wait, in a job's thread, for the database; raise Stopped when the service is closed."""
        if self._closing.wait(seconds):
            raise Stopped("the service stopped while the database was out of reach")

    def _outcome(self, job: LiveJob) -> dict[str, Any]:
        try:
            return {"state": "succeeded", "result": self._runner.run(job)}
        except Exception as error:
            # a pass has the deadline of its job, and may notice it before the job's timer does
            if isinstance(error, DeadlineMissed):
                job.stop(_MISSED, "failed")
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
