"""Pause and cancel jobs, wherever they wait or run."""

import asyncio
import math
from collections.abc import Collection

from lab.errors import Conflict
from lab.jobs.directory import Directory
from lab.jobs.live_job import LiveJob
from lab.jobs.news import NewsBoard
from lab.jobs.performing import Performer
from lab.jobs.records import WISHES, JobRecord, JobState, Wish
from lab.jobs.store import Store


class Stopping:
    """What jobs are asked for, kept for those that cannot do it yet."""

    def __init__(
        self, store: Store, board: NewsBoard, performer: Performer, directory: Directory
    ) -> None:
        """Ask the jobs that run here at `performer`; another service finds the wish in `store`."""
        self._store, self._board = store, board
        self._performer, self._directory = performer, directory

    async def ask(self, record: JobRecord, wish: Wish, state: JobState, reason: str) -> None:
        """Have a job end in a state: at once where it does not run, else as soon as it can.

        Raises Conflict if it has ended, is in that state, or has been asked for more.
        """
        if record.ended or record.state == state:
            raise Conflict(f"job {record.id} cannot be {state}: it {record.standing}")
        if WISHES.index(wish) < WISHES.index(record.wish):
            raise Conflict(f"job {record.id} cannot be {state}: it has been asked to {record.wish}")
        if await asyncio.to_thread(self._store.settle_pending, record.id, state, reason):
            self._board.tell(record.id)
        # on the disk before the job hears of it, should this process die meanwhile
        elif await asyncio.to_thread(self._store.wish, record.id, wish, reason):
            await self.grant(record.id, wish, reason)

    async def grant(self, job_id: str, wish: Wish, reason: str) -> None:
        """Let a job that runs here do what it was asked for; another host tells its own."""
        job = self._performer.live.get(job_id)
        if job is not None and _asks_for_more(job, wish):
            job.at_once = wish == "cancel at once"
            await self._performer.stop(job, reason, "paused" if wish == "pause" else "cancelled")

    def cancel_left(self, queues: Collection[str], reason: str, until_s: float = math.inf) -> None:
        """Cancel what was submitted until then (seconds since the epoch) and has not ended.

        Of the jobs in these queues those on systems of this service; blocking.
        """
        store = self._store.impatient()
        for record in store.unfinished_jobs(queues):
            is_ours = self._directory.is_here(record.config.get("system", ""))
            if record.created_s > until_s or not is_ours:
                continue
            if store.settle_pending(record.id, "cancelled", reason):
                self._board.tell(record.id)
            else:
                store.wish(record.id, "cancel", reason)


def _asks_for_more(job: LiveJob, wish: Wish) -> bool:
    """Say whether a wish goes beyond what the job has been asked for already."""
    if not job.stopped():
        return True
    cancelled = job.ends_as[0] == "cancelled"
    if wish == "cancel at once":
        return not job.at_once and (cancelled or job.ends_as[0] == "paused")
    return wish == "cancel" and job.ends_as[0] == "paused"
