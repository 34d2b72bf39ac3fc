"""Measure one job's rows: as its client's, by its deadline, and waiting for a full queue."""

from collections.abc import Callable
from dataclasses import replace

from lab.errors import QueueFull
from lab.jobs.live_job import LiveJob
from lab.measurement import ForwardPass, Measurement
from lab.scheduling.scheduler import HardwareScheduler


def measure_for(
    job: LiveJob,
    scheduler: HardwareScheduler,
    forward_pass: ForwardPass,
    stopped: Callable[[], bool],
    record: Callable[[ForwardPass, Measurement], None] | None = None,
) -> Measurement:
    """Queue a pass of a job and return its measurement; while the queue is full, wait and retry.

    record: what keeps the measured rows, without waiting for a disk.
    Raises what `HardwareScheduler.submit` raises but QueueFull, and Stopped.
    """
    ours = replace(forward_pass, client=job.client, job=job.id, deadline_s=job.config.deadline_s)
    while True:
        try:
            measurement = scheduler.measure_blocking(ours, stopped)
        except QueueFull as full:
            job.pause(full.retry_after_s)
        else:
            job.rows.count(len(measurement.y))
            if record is not None:
                record(ours, measurement)
            return measurement
