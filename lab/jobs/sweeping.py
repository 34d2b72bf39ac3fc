"""Look after jobs that nobody here works on: those the engine has lost, late or left by a host.

The store is the truth about a job, the engine only hands runs out. Where they disagree (a process
died between two writes, a disk was full, a service was stopped), the sweep queues the job again.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterable

from lab.jobs.engine import Engine
from lab.jobs.hosts import DEAD_AFTER_S
from lab.jobs.parts import follow_comparisons
from lab.jobs.performing import MISSED
from lab.jobs.records import JobRecord
from lab.jobs.store import Store

log = logging.getLogger(__name__)

SWEEP_EVERY_S = 2.0
_NEW_S = 60.0
UNCLAIMED_S = DEAD_AFTER_S  # whoever is handed a run claims its job within milliseconds


class Unclaimed:
    """Runs that the engine has handed out, and whose jobs nobody has claimed; for one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with none; clock: steady, in s."""
        self._clock = clock
        self._since_s: dict[tuple[str, int], float] = {}

    def look(self, runs: Iterable[tuple[str, int]]) -> set[tuple[str, int]]:
        """Return which of the runs, those of now, have been seen so for UNCLAIMED_S."""
        now = self._clock()
        self._since_s = {run: self._since_s.get(run, now) for run in runs}
        return {run for run, since_s in self._since_s.items() if now - since_s >= UNCLAIMED_S}


def sweep(
    store: Store,
    engine: Engine,
    queues: Collection[str],
    tell: Callable[[str], None],
    unclaimed: Unclaimed,
    *,
    whole: bool = True,
) -> None:
    """Queue again what has to go on, and end what came too late; blocking, safe on every host.

    whole: look at every job that waits, too, and not only at those that are new, begun or late.
    """
    follow_comparisons(store, tell)
    # in this order: what ends in between has a run that is over, and a row that no longer waits
    new_s = time.time() - _NEW_S
    records = store.unfinished_jobs(queues) if whole else store.moving_jobs(queues, new_s)
    states = engine.states((record.id, record.run) for record in records)
    for record in records:
        state = states.get((record.id, record.run))
        if record.state == "pending" and _is_late(record):
            if store.settle_pending(record.id, "failed", MISSED):
                tell(record.id)
        elif state is None:  # its process died before it had queued it
            queue_run(engine, record)
        elif state == "over" and store.next_run(record.id, record.run):
            log.info("job %s goes on", record.id)
            queue_run(engine, store.job(record.id))
    if not whole:
        return
    waiting = ((record.id, record.run) for record in records if record.state == "pending")
    for job_id, run in unclaimed.look(key for key in waiting if states.get(key) == "running"):
        if store.next_run(job_id, run, unclaimed=True):
            log.warning("job %s goes on: who was to work on it has not begun", job_id)
            queue_run(engine, store.job(job_id))


def take_over(
    store: Store, engine: Engine, records: Iterable[JobRecord], dead: Collection[str]
) -> None:
    """Queue again what dead hosts were working on; blocking, safe on several hosts at once."""
    for record in records:
        if record.host in dead and store.take_over(record.id, record.run, record.host):
            log.warning("job %s is taken over: host '%s' is dead", record.id, record.host)
            queue_run(engine, store.job(record.id))


def queue_run(engine: Engine, record: JobRecord) -> None:
    """Queue the present run of a job; again is the same as once."""
    engine.enqueue(record.queue, record.id, record.run, record.config.get("priority", 0))


def _is_late(record: JobRecord) -> bool:
    deadline_s = record.config.get("deadline_s")
    return deadline_s is not None and deadline_s <= time.time()
