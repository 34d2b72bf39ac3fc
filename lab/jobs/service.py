"""Jobs: durable pieces of work (training, twin fits) that run beside the event loop.

A job that fails is data, its state and error; its siblings go on. Every job ends exactly once:
succeeded, failed or cancelled. One that the service left unfinished, whether it was stopped or
died, goes on when the next one opens the store: a training from its newest good checkpoint,
anything else from its beginning. Where it cannot go on it ends as unknown.

The service takes, lists, watches, pauses and cancels; the engine decides when a job runs and hands
it to the performer, which works on it.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from lab.errors import Conflict, DatabaseAway, SystemClosed
from lab.jobs.answers import JobAnswers
from lab.jobs.comparing import Hands
from lab.jobs.configs import CompareConfig
from lab.jobs.dry_run import DryRun
from lab.jobs.engine import Engine, engine_url
from lab.jobs.estimates import Estimates
from lab.jobs.housekeeping import Housekeeper
from lab.jobs.intake import SHARED, Intake, changed_config
from lab.jobs.kinds import JobConfig
from lab.jobs.lineage import changed_since, same_again
from lab.jobs.news import NewsBoard, wait_for_news
from lab.jobs.performing import Performer
from lab.jobs.queues import ANYWHERE, COMPARISONS, queue_of
from lab.jobs.records import STOPPED, JobRecord, JobState, MetricRecord, Order, Wish
from lab.jobs.runner import JobRunner
from lab.jobs.stopping import Stopping
from lab.jobs.store import Store
from lab.jobs.sweeping import queue_run
from lab.jobs.tidying import tidy

log = logging.getLogger(__name__)

T = TypeVar("T")
_METRICS_AT_ONCE = 1000
_LOOK_AGAIN_S = 1.0  # for who follows a job while the database is out of reach
_QUEUE_WITHIN_S = 3.0
_NO_ORDER = Order()
_COMPARISONS = 64  # at once on each service


class JobService(JobAnswers):
    """Take, run, watch and stop jobs; its methods are for the event loop it was made on.

    workers: how many jobs run at once; they share the hardware pass by pass. It goes by the lasting
    name of the runner's directory, which no other living service of the same store has. Where
    several services share a database, what any of them may work on (fits, parts of comparisons) is
    queued for all; with own_only this one leaves it to the others.
    """

    def __init__(
        self, runner: JobRunner, store: Store, workers: int = 2, *, own_only: bool = False
    ) -> None:
        """Run jobs with `runner` and keep them in `store`; `open` before use."""
        host = runner.directory.host
        self._runner = runner
        self._store = store
        self._opened = self._closed = False
        self._board = NewsBoard()
        self._intake = Intake(runner.directory, self._board, lambda: self._housekeeper.hurry())
        hands = Hands(self._intake.keep_part, self._intake.let_go_on)
        self._performer = Performer(runner, store, self._board, host, hands)
        self._directory = runner.directory
        self._queue = queue_of(host)
        self._at_once = {self._queue: workers, COMPARISONS: _COMPARISONS}
        if self._directory.book is not None:
            self._at_once[ANYWHERE] = 0 if own_only else workers
        self._engine = Engine(
            engine_url(store.folder, store.engine.url), host, self._performer.perform
        )
        self._stopping = Stopping(store, self._board, self._performer, self._directory)
        self._housekeeper = Housekeeper(
            store,
            self._engine,
            self._board,
            self._performer,
            self._directory,
            tuple(self._at_once),
            self._stopping.grant,
        )
        self._estimates = Estimates(store, self._performer.live, self._queue, workers)
        self._cancelling: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Take jobs from now on, and go on with those that an earlier service left unfinished."""
        await asyncio.to_thread(tidy, self._store)
        await asyncio.to_thread(lambda: self._runner.software)  # before the files may change
        await self.reached_at("")
        self._opened = True
        await asyncio.to_thread(self._engine.open, self._at_once)
        await self._housekeeper.open()

    async def reached_at(self, url: str) -> None:
        """Tell the other services where this one is reached, if there are others."""
        self._directory.url = url
        if self._directory.book is not None:
            own, bench = self._directory.own(), self._directory.record
            enter = self._directory.book.enter
            await asyncio.to_thread(enter, self._directory.host, own, url, bench)

    def trouble(self) -> str | None:
        """Say why jobs may not start, None while all is well."""
        if self._closed:
            return "the service is stopping"
        return self._housekeeper.trouble()

    async def check(self, config: JobConfig) -> JobConfig:
        """Return the config as `submit` would run it, with everything set that it leaves open.

        Raises UnknownName (system, twin), ConfigError (what can be known not to work),
        DeadlineMissed (already).
        """
        config = await asyncio.to_thread(self._runner.completed, config)
        await asyncio.to_thread(self._runner.check, config)
        return config

    async def submit(self, config: JobConfig, order: Order = _NO_ORDER) -> JobRecord:
        """Keep a new job and let it start as soon as there is room for it.

        Where the order's key is known, the job that has it is returned. Raises what `check` raises,
        Conflict (the key belongs to another config), SystemClosed.
        """
        self._refuse_when_closed()
        if await asyncio.to_thread(self._intake.knows, self._store, order):
            # whoever asks again may do so when it could not begin any more
            config = await asyncio.to_thread(self._runner.completed, config)
        else:
            config = await self.check(config)
        record, new = await asyncio.to_thread(self._intake.keep, self._store, config, order)
        if new:
            await self._queue_run(record)
        return (await asyncio.to_thread(self._estimates.of, [record]))[0]

    async def dry_run(self, config: JobConfig) -> DryRun:
        """Say what a job would cost, keep nothing; raise what `submit` raises, and DataError."""
        config = await asyncio.to_thread(self._runner.completed, config)
        ahead = await asyncio.to_thread(self._estimates.ahead, config.system)
        return await asyncio.to_thread(self._runner.dry_run, config, ahead)

    async def _queue_run(self, record: JobRecord) -> None:
        """Queue a job's run; the sweep does it where the engine's database takes too long."""
        try:
            async with asyncio.timeout(_QUEUE_WITHIN_S):
                await asyncio.to_thread(queue_run, self._engine, record)
        except TimeoutError:
            log.warning("job %s is queued later: the engine does not answer", record.id)

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise SystemClosed("the service is stopping and takes no more jobs")

    async def rerun(self, job_id: str, order: Order = _NO_ORDER) -> tuple[JobRecord, list[str]]:
        """Start the same job again; return the new one, and in words what it has other.

        Its tags are the job's where the order has none. Raises UnknownName, ConfigError, and what
        `submit` raises.
        """
        record = await self.get(job_id)
        config = same_again(record)
        now = await asyncio.to_thread(self._runner.provenance, config)
        changed = await asyncio.to_thread(changed_since, self._store, record, now)
        origin, tags = f"rerun of {job_id}", order.tags or record.tags
        return await self.submit(config, replace(order, origin=origin, tags=tags)), changed

    async def cancel(self, job_id: str, *, at_once: bool = False) -> JobRecord:
        """Cancel a job: at once while it is pending or paused, else between rows and steps.

        at_once: without a checkpoint of where it stopped; what it computes is broken off. Returns
        the job as it is now, which may still be running. Raises UnknownName, or Conflict if it has
        ended.
        """
        wish: Wish = "cancel at once" if at_once else "cancel"
        return await self._ask(job_id, wish, "cancelled", "cancelled by request")

    async def pause(self, job_id: str) -> JobRecord:
        """Pause a job: at once while it is pending, else with a checkpoint between two steps.

        Returns the job as it is now, which may still be running. Raises UnknownName, or Conflict
        if it has ended.
        """
        return await self._ask(job_id, "pause", "paused", "paused by request")

    async def _ask(self, job_id: str, wish: Wish, state: JobState, reason: str) -> JobRecord:
        record = await self.get(job_id)
        await self._stopping.ask(record, wish, state, reason)
        if record.kind == "compare":
            self._housekeeper.hurry()  # its parts follow
        return await self.get(job_id)

    async def go_on(self, job_id: str, changes: Mapping[str, Any] | None = None) -> JobRecord:
        """Continue a job that is paused, failed, cancelled or unknown, from its last checkpoint.

        changes: of its config: epochs, rows, rate_theta, rate_digital, priority, deadline_s. Raises
        UnknownName, ConfigError, DeadlineMissed, Conflict (it is in another state), SystemClosed.
        """
        self._refuse_when_closed()
        record = await self.get(job_id)
        if record.state not in STOPPED:
            raise Conflict(f"job {job_id} cannot be continued: it {record.standing}")
        config = changed_config(record, changes or {})
        await asyncio.to_thread(self._runner.check, config)
        await asyncio.to_thread(self._runner.check_length, record, config)
        plain = config.model_dump(mode="json")
        if isinstance(config, CompareConfig):
            # before the comparison, which would find that they have failed
            shared = {name: plain[name] for name in SHARED}
            await asyncio.to_thread(self._intake.let_parts_go_on, self._store, job_id, shared)
        if await asyncio.to_thread(self._store.continue_job, job_id, plain) is None:
            raise Conflict(f"job {job_id} cannot be continued: it {record.standing}")
        record = await self.get(job_id)
        await self._queue_run(record)
        self._board.tell(job_id)
        return record

    async def cancel_all(self, reason: str) -> None:
        """Cancel every job, also those that compute or wait; each ends by itself."""
        jobs, now_s = tuple(self._performer.live.values()), time.time()
        await asyncio.gather(*(self._performer.stop(job, reason) for job in jobs))
        # none may go on in the next service, should this one die before they have ended
        try:
            await asyncio.to_thread(self._cancel_left, reason)
        except DatabaseAway as away:
            log.warning("the jobs that wait end as cancelled when this has passed: %s", away)
            self._cancelling = asyncio.create_task(self._cancel_later(reason, now_s))

    async def _cancel_later(self, reason: str, until_s: float) -> None:
        await self._when_in_reach(asyncio.to_thread, self._cancel_left, reason, until_s)

    def _cancel_left(self, reason: str, until_s: float = math.inf) -> None:
        self._stopping.cancel_left(list(self._at_once), reason, until_s)

    async def watch(self, job_id: str, since: int = 0) -> AsyncIterator[MetricRecord | JobRecord]:
        """Yield the job, every metric after step `since`, and the job whenever its state changes.

        Ends after the job in its final state, or, without that, when the service is closed: the
        job goes on in the next one. Raises UnknownName.
        """
        shown: JobState | None = None
        while True:
            news = self._board.news(job_id)
            closed = self._closed
            record = await self._when_in_reach(self.get, job_id)
            if not record.ended and record.state != shown:
                shown = record.state
                yield record
            found = await self._when_in_reach(self.metrics, job_id, since, _METRICS_AT_ONCE)
            for metric in found:
                since = metric.step
                yield metric
            if len(found) == _METRICS_AT_ONCE:
                continue
            if record.ended:
                yield record
                return
            if closed and job_id not in self._performer.live:
                return
            await wait_for_news(news)

    async def _when_in_reach(self, ask: Callable[..., Awaitable[T]], *about: Any) -> T:
        """Return what `ask` answers as soon as the database can be read."""
        while True:
            try:
                return await ask(*about)
            except DatabaseAway as away:
                if self._closed:
                    raise
                await asyncio.sleep(min(away.retry_after_s, _LOOK_AGAIN_S))

    async def stop_all(self) -> None:
        """Take no more jobs and stop every one, to go on in the next service.

        None of them queues a pass any more. What they compute may go on for a while: `close`
        waits for it.
        """
        self._closed = True
        self._performer.refuse()
        jobs = list(self._performer.live.values())
        stop = self._performer.stop
        await asyncio.gather(*(stop(job, "the service stopped", None) for job in jobs))

    async def close(self) -> None:
        """Stop every job, to go on in the next service, and wait for it; idempotent."""
        await self.stop_all()
        if self._opened:
            self._opened = False
            await self._housekeeper.close()
            if self._cancelling is not None:
                self._cancelling.cancel()
                await asyncio.wait([self._cancelling])
            await self._performer.close()
            await asyncio.to_thread(self._engine.close)
