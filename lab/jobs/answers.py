"""What a service says of its jobs when it is asked."""

import asyncio
from typing import Any

from lab.errors import Conflict
from lab.jobs.estimates import Estimates
from lab.jobs.lineage import told_provenance
from lab.jobs.records import JobRecord, JobState, MetricRecord
from lab.jobs.store import Store


class JobAnswers:
    """Look jobs up in a store, with estimates; a part of `lab.jobs.service.JobService`."""

    _store: Store
    _estimates: Estimates

    async def get(self, job_id: str) -> JobRecord:
        """Return a job; raise UnknownName."""
        record = await asyncio.to_thread(self._store.job, job_id)
        return (await asyncio.to_thread(self._estimates.of, [record]))[0]

    async def newest(
        self, state: JobState | None = None, limit: int = 100, **wanted: str | None
    ) -> list[JobRecord]:
        """Return the newest jobs, newest first; `wanted`: of a parent or with a tag."""
        found = await asyncio.to_thread(self._store.jobs, state, limit, **wanted)
        return await asyncio.to_thread(self._estimates.of, found)

    async def metrics(self, job_id: str, since: int = 0, limit: int = 1000) -> list[MetricRecord]:
        """Return the first metrics after step `since`; raise UnknownName."""
        await self.get(job_id)
        return await asyncio.to_thread(self._store.metrics, job_id, since, limit)

    async def result(self, job_id: str) -> dict[str, Any]:
        """Return what a job that succeeded found out; raise UnknownName, or Conflict."""
        record = await self.get(job_id)
        result = await asyncio.to_thread(self._store.result, job_id)
        if result is None:
            raise Conflict(f"job {job_id} has no result: it {record.standing}")
        return result

    async def provenance(self, job_id: str) -> dict[str, Any]:
        """Return where a job's numbers come from; raise UnknownName, Conflict before its start."""
        record = await self.get(job_id)
        return await asyncio.to_thread(told_provenance, self._store, record)
