"""Which checkpoints are kept of jobs that have ended, and for how long.

Of a job that has succeeded none; of one that can be continued the newest good one, for `KEPT_DAYS`
after its end. A job that has not ended, or is paused, keeps them all.
"""

import time
from contextlib import suppress

from lab.checkpoints import CheckpointFolder
from lab.errors import UnknownName
from lab.jobs.records import ENDED, JobState
from lab.jobs.state_files import CHECKPOINTS, checkpoints_folder
from lab.jobs.store import Store

KEPT_DAYS = 30.0
_DAY_S = 86400.0


def drop_checkpoints(
    store: Store, job_id: str, state: JobState, finished_s: float | None = None
) -> None:
    """Delete those of a job that are not kept; what cannot be deleted is told in the log.

    finished_s: when it ended, seconds since the epoch; None: it may just have ended.
    """
    folder = CheckpointFolder(store.files_without_waiting.under(checkpoints_folder(job_id)))
    old = finished_s is not None and time.time() - finished_s > KEPT_DAYS * _DAY_S
    if state == "succeeded" or (state in ENDED and old):
        folder.clear()
    elif state in ENDED:
        folder.keep_newest()


def tidy(store: Store) -> None:
    """Delete the checkpoints of all jobs that are not kept; raise DatabaseAway, OSError."""
    names = store.files.under(CHECKPOINTS).names()
    for job_id in {folder for folder, slash, _ in (n.partition("/") for n in names) if slash}:
        with suppress(UnknownName):
            record = store.job(job_id)
            drop_checkpoints(store, job_id, record.state, record.finished_s)
