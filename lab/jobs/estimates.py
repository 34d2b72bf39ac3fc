"""How far the jobs of this service are, and when those that wait should start."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from lab.jobs.dry_run import JobsAhead
from lab.jobs.live_job import LiveJob
from lab.jobs.records import ACTIVE, JobEstimate, JobRecord
from lab.jobs.store import Store


class Estimates:
    """Estimates of the jobs in one queue; blocking, thread-safe."""

    def __init__(self, store: Store, live: Mapping[str, LiveJob], queue: str, workers: int) -> None:
        """Ask the jobs that run here (`live`) how far they are; so many run at once."""
        self._store, self._live = store, live
        self._queue, self._workers = queue, workers

    def of(self, records: Sequence[JobRecord]) -> list[JobRecord]:
        """Return the records, with an estimate where the job is under way here."""
        waiting: list[str] = []
        if any(record.state == "pending" for record in records):
            # of those behind them nobody can say when there will be room
            waiting = self._store.next_jobs(self._queue, self._workers)
        return [self._with_estimate(record, waiting) for record in records]

    def ahead(self, system: str) -> JobsAhead:
        """Return what is still to be done on a system before a new job."""
        left = self._store.unfinished_jobs([self._queue])
        ids = [record.id for record in left if record.config["system"] == system]
        live = [self._live.get(job_id) for job_id in ids]
        told = [job.rows.estimate(None) for job in live if job is not None]
        rows = [e.rows_planned - e.rows_done for e in told if e.rows_planned is not None]
        return JobsAhead(len(ids), sum(max(0, n) for n in rows), len(ids) - len(rows))

    def _with_estimate(self, record: JobRecord, waiting: list[str]) -> JobRecord:
        if record.state not in ACTIVE or record.queue != self._queue:
            return record
        job = self._live.get(record.id)
        if job is not None:
            return replace(record, estimate=job.rows.estimate(job.started_s))
        start_s = record.started_s
        if record.id in waiting:
            start_s = self._free_worker_s(waiting.index(record.id))
        return replace(record, estimate=JobEstimate(0, None, start_s, None))

    def _free_worker_s(self, ahead: int) -> float | None:
        """Return when there should be room for a job with so many before it; None: unknown."""
        # a copy at once: other threads change it
        running = [job for job in tuple(self._live.values()) if job.kind != "compare"]
        ends = [job.rows.estimate(None).finish_s or math.inf for job in running]
        free = [time.time()] * (self._workers - len(running))
        times = [*free, *sorted(ends)]
        return times[ahead] if ahead < len(times) and math.isfinite(times[ahead]) else None
