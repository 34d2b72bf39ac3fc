"""Bring what a job has told to where it goes on, so that nothing is told twice or lost."""

import math
from collections.abc import Iterator

from lab.jobs.live_job import LiveJob
from lab.jobs.records import MetricRecord
from lab.jobs.store import Store


def go_back(store: Store, job: LiveJob, step: int, rows: int) -> None:
    """Let a job go on from its checkpoint after `step` steps; 0: from its beginning.

    rows: what it had measured by then, without its twin's.

    Metrics of a fit stay if its twin was kept, those of a training up to the checkpoint's step; the
    later ones are dropped, for they come again.
    """
    fitted = store.find_twin(job=job.id) is not None
    kept = 0
    for record in _all_metrics(store, job.id):
        metric = record.metric
        if not (fitted if metric["kind"] == "fit" else metric.get("step", math.inf) <= step):
            break
        kept = record.step
    store.drop_metrics(job.id, kept, job.attempt)
    job.go_on_after(kept, rows)


def _all_metrics(store: Store, job_id: str) -> Iterator[MetricRecord]:
    since = 0
    while page := store.metrics(job_id, since):
        yield from page
        since = page[-1].step
