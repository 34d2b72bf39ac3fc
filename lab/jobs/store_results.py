"""What the jobs of a store have found: metrics while they run, results, and their provenance."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from lab.jobs.database import Database
from lab.jobs.plain import plain
from lab.jobs.records import MetricRecord
from lab.jobs.store_states import refuse_superseded, superseded
from lab.jobs.tables import jobs, metrics


class ResultStore:
    """Keep the findings of jobs in a database; a part of `lab.jobs.store.Store`."""

    _database: Database

    def result(self, job_id: str) -> dict[str, Any] | None:
        """Return a job's result, None while it has none; raise UnknownName."""
        query = sa.select(jobs.c.result).where(jobs.c.id == job_id)
        result: dict[str, Any] | None = self._database.row(query, f"no job '{job_id}'").result
        return result

    def provenance(self, job_id: str) -> dict[str, Any] | None:
        """Return what is kept of where a job's numbers come from; raise UnknownName."""
        query = sa.select(jobs.c.provenance).where(jobs.c.id == job_id)
        found: dict[str, Any] | None = self._database.row(query, f"no job '{job_id}'").provenance
        return found

    def keep_provenance(self, job_id: str, attempt: int, provenance: Mapping[str, Any]) -> None:
        """Keep where a job's numbers come from; raise Superseded if the attempt does not count."""
        change = sa.update(jobs).where(jobs.c.id == job_id, jobs.c.attempt == attempt)
        if not self._database.change(change.values(provenance=plain(provenance))):
            refuse_superseded(self._database, job_id, attempt)

    def last_calibration(
        self, system: str, until_s: float | None = None
    ) -> tuple[str, dict[str, Any]] | None:
        """Return id and result of a system's newest calibration that had ended by `until_s`."""
        query = sa.select(jobs.c.id, jobs.c.result).where(
            jobs.c.kind == "calibrate",
            jobs.c.state == "succeeded",
            jobs.c.config["system"].as_string() == system,
        )
        if until_s is not None:
            query = query.where(jobs.c.finished_s <= until_s)
        rows = self._database.rows(query.order_by(jobs.c.finished_s.desc(), jobs.c.id).limit(1))
        return (rows[0].id, rows[0].result) if rows else None

    def add_metric(
        self, job_id: str, step: int, metric: Mapping[str, Any], attempt: int | None = None
    ) -> None:
        """Keep one metric; steps count from 1. A number that is not finite is kept as null.

        Raises Superseded if the attempt does not count any more.
        """
        told = sa.update(jobs).where(jobs.c.id == job_id).values(last_step=step, deaths=0)
        if attempt is not None:
            told = told.where(jobs.c.attempt == attempt)
        values = {"job_id": job_id, "step": step, "metric": plain(metric)}
        row = self._database.insertion(metrics, values, replaced=["metric"])
        if not self._database.change(told, row):
            raise superseded(job_id)

    def metrics(self, job_id: str, since: int = 0, limit: int = 1000) -> list[MetricRecord]:
        """Return the first `limit` metrics after step `since`, in order."""
        query = sa.select(metrics.c.step, metrics.c.metric).where(
            metrics.c.job_id == job_id, metrics.c.step > since
        )
        rows = self._database.rows(query.order_by(metrics.c.step).limit(limit))
        return [MetricRecord(row.step, row.metric) for row in rows]

    def drop_metrics(self, job_id: str, after: int, attempt: int | None = None) -> None:
        """Forget the metrics after step `after`: the job measures them again.

        Raises Superseded if the attempt does not count any more.
        """
        back = sa.update(jobs).where(jobs.c.id == job_id).values(last_step=after)
        if attempt is not None:
            back = back.where(jobs.c.attempt == attempt)
        later = (metrics.c.job_id == job_id, metrics.c.step > after)
        if not self._database.change(back, sa.delete(metrics).where(*later)):
            raise superseded(job_id)
