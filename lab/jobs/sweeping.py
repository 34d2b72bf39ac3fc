"""Look after jobs that nobody here works on: those the engine has lost, late or left by a host.

The store is the truth about a job, the engine only hands runs out. Where they disagree (a process
died between two writes, a disk was full, a service was stopped), the sweep queues the job again.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterable

from lab.jobs.engine import Engine
from lab.jobs.parts import follow_comparisons
from lab.jobs.performing import MISSED
from lab.jobs.records import JobRecord
from lab.jobs.store import Store

log = logging.getLogger(__name__)

SWEEP_EVERY_S = 2.0


def sweep(
    store: Store, engine: Engine, queues: Collection[str], tell: Callable[[str], None]
) -> None:
    """Queue again what has to go on, and end what came too late; blocking, safe on every host."""
    follow_comparisons(store, tell)
    # in this order: what ends in between has a run that is over, and a row that no longer waits
    records = store.unfinished_jobs(queues)
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
