"""What a service does beside its jobs, again and again: sweep, beat, take over, forget."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress

from lab.errors import DatabaseAway
from lab.jobs.directory import Directory
from lab.jobs.engine import Engine
from lab.jobs.hosts import BEAT_EVERY_S, HostBook, Watch
from lab.jobs.news import NewsBoard, wait_for_news
from lab.jobs.performing import Performer
from lab.jobs.queues import ANYWHERE, COMPARISONS
from lab.jobs.records import Wish
from lab.jobs.store import Store
from lab.jobs.sweeping import SWEEP_EVERY_S, Unclaimed, sweep, take_over
from lab.jobs.tidying import tidy

log = logging.getLogger(__name__)

_FORGET_EVERY_S, _FORGET_AFTER_S = 3600.0, 86400.0  # what the engine keeps of runs
_SWEPT_WITHIN_S = 5 * SWEEP_EVERY_S
_WORTH, _AT_LEAST_EVERY_S = 50, 300.0  # times as long as a whole sweep took, until the next one

Grant = Callable[[str, Wish, str], Awaitable[None]]


class Housekeeper:
    """Look after the jobs of some queues; made on the event loop.

    grant(job, wish, reason): lets a job that runs here do what was asked of it on another service.
    """

    def __init__(
        self,
        store: Store,
        engine: Engine,
        board: NewsBoard,
        performer: Performer,
        directory: Directory,
        queues: Collection[str],
        grant: Grant,
    ) -> None:
        """Do nothing yet."""
        self._store, self._engine, self._board = store, engine, board
        self._performer, self._directory = performer, directory
        self._queues, self._grant = queues, grant
        self._watch = Watch()
        self._unclaimed = Unclaimed()
        self._hurry = asyncio.Event()
        self._swept_s = time.monotonic()
        self._hurries = 0
        self._whole_s = -math.inf  # when to sweep as a whole again
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Sweep once, and go on with all of it beside the rest until `close`."""
        self._tasks.append(asyncio.create_task(self._beat_for_ever()))
        await self.sweep()
        self._tasks.append(asyncio.create_task(self._sweep_for_ever()))

    async def close(self) -> None:
        """End; idempotent."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def hurry(self) -> None:
        """Have jobs queued by the sweep, from any thread: the engine may have to be waited for."""
        self._hurries += 1
        self._whole_s = -math.inf
        self._board.on_loop(self._hurry.set)

    def trouble(self) -> str | None:
        """Say why jobs may not start, None while all is well."""
        late_s = time.monotonic() - self._swept_s
        if late_s > _SWEPT_WITHIN_S:
            return f"the engine or its database has not answered for {late_s:.0f} s"
        return None

    async def sweep(self) -> None:
        """Queue what has to go on, take over what dead services had, grant what was asked for."""
        live = list(self._performer.live)
        try:
            if self._directory.book is not None:
                await self._give_up_what_was_taken_over()
                await asyncio.to_thread(self._look_after_others, self._directory.book)
            await asyncio.to_thread(self._sweep)
            asked = await asyncio.to_thread(self._store.wishes, live)
        except DatabaseAway:
            return  # which is in the log already
        except Exception:
            log.exception("the jobs could not be looked after; trying again")
            return
        self._swept_s = time.monotonic()
        for job_id, (wish, reason) in asked.items():
            await self._grant(job_id, wish, reason)

    def _sweep(self) -> None:
        """Sweep; where many jobs wait, look at all of them for a small part of the time only."""
        began_s = time.monotonic()
        whole = began_s >= self._whole_s
        tell, hurries = self._board.tell, self._hurries
        sweep(self._store, self._engine, self._queues, tell, self._unclaimed, whole=whole)
        if whole and hurries == self._hurries:
            now_s = time.monotonic()
            self._whole_s = now_s + min(_WORTH * (now_s - began_s), _AT_LEAST_EVERY_S)

    async def _give_up_what_was_taken_over(self) -> None:
        """Stop the jobs that others have taken over while this service was frozen, say."""
        live = {job.id: job for job in tuple(self._performer.live.values())}
        attempts = {job.id: job.attempt for job in live.values()}
        for job_id in await asyncio.to_thread(self._store.superseded, attempts):
            log.warning("job %s: another process has taken it over", job_id)
            await self._performer.stop(live[job_id], "another process has taken it over", None)

    async def _sweep_for_ever(self) -> None:
        forgot_s = -math.inf
        while True:
            if time.monotonic() - forgot_s > _FORGET_EVERY_S:
                forgot_s = time.monotonic()
                await self._forget_old()
            await wait_for_news(self._hurry, SWEEP_EVERY_S)
            self._hurry.clear()
            await self.sweep()

    async def _forget_old(self) -> None:
        """Let the engine forget old runs, and delete checkpoints that nobody needs any more."""
        try:
            await asyncio.to_thread(self._engine.forget, time.time() - _FORGET_AFTER_S)
            await asyncio.to_thread(tidy, self._store)
        except Exception:
            log.exception("old runs and checkpoints could not be deleted; trying again later")

    def _look_after_others(self, book: HostBook) -> None:
        """Take over what dead services were working on that any service may work on."""
        left = self._store.moving_jobs([ANYWHERE, COMPARISONS], math.inf)
        running = [job for job in left if job.state == "running"]
        others = {job.host for job in running} - {self._directory.host}
        dead = self._watch.look(book.beats(), others)
        take_over(self._store, self._engine, running, dead)

    async def _beat_for_ever(self) -> None:
        """Say every few seconds that this service is alive; see `lab.jobs.hosts`."""
        while self._directory.book is not None:
            try:
                with suppress(DatabaseAway):
                    await asyncio.to_thread(self._directory.book.beat, self._directory.host)
            except Exception:  # whoever falls silent loses its jobs to the others
                log.exception("this service could not say that it is alive; trying again")
            await asyncio.sleep(BEAT_EVERY_S)
