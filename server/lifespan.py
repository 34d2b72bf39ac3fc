"""Open the lab that the service serves, and leave its instruments safe at the end."""

import asyncio
import importlib
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.bench import Bench, open_bench
from lab.bench_config import BenchConfig
from lab.errors import DatabaseAway, UnknownName
from lab.jobs.admission import refuse_strangers
from lab.jobs.cradle import SLOW_IMPORTS
from lab.jobs.data_folder import hold_folder
from lab.jobs.directory import Directory
from lab.jobs.fence import Fence
from lab.jobs.hosts import HostBook
from lab.jobs.identity import hold_identity
from lab.jobs.nursery import CAN_FORK, Nursery
from lab.jobs.ray_nursery import RayNursery
from lab.jobs.runner import JobRunner
from lab.jobs.schedules.clock import ScheduleClock
from lab.jobs.schedules.service import ScheduleService
from lab.jobs.schedules.store import ScheduleStore
from lab.jobs.service import JobService
from lab.jobs.store import Store
from lab.recording.recorder import BUDGET_GB, RowRecorder
from lab.scheduling.scheduler import HardwareScheduler

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunningLab:
    """Everything the routes use."""

    bench: Bench
    scheduler: HardwareScheduler
    store: Store
    jobs: JobService
    schedules: ScheduleService
    fence: Fence
    recorder: RowRecorder | None = None

    async def stop(self) -> None:
        """End jobs and passes and bring the instruments to their safe state; idempotent."""
        self.store.hurry()
        await self.jobs.stop_all()
        await self.scheduler.close()  # waits for no job, which may compute for a while
        await self.jobs.close()


@asynccontextmanager
async def open_lab(
    config: BenchConfig | Path,
    data_dir: Path,
    *,
    database_url: str | None = None,
    host_name: str | None = None,
    own_only: bool = False,
    workers: int = 2,
    rows_budget_gb: float = BUDGET_GB,
    ray: str | None = None,
) -> AsyncIterator[RunningLab]:
    """Open bench, store, scheduler and jobs; close them in any case at the end.

    A system that does not start is faulted and the others work; see `create_app`. Raises
    ConfigError for a bench that cannot be opened, a data folder that cannot be used, a Ray cluster
    that is not there, or, without a bench, a secret that another service of the database refuses.
    """
    blocking = ExitStack()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.to_thread, blocking.close)
        trainers = jobs_compute_in() if ray is None else jobs_compute_on(ray)
        nursery = await asyncio.to_thread(blocking.enter_context, trainers)
        bench, store = await asyncio.to_thread(_open, blocking, config, data_dir, database_url)
        first = await asyncio.to_thread(store.reserve_shots, bench.systems)
        scheduler = await stack.enter_async_context(bench.scheduler(first))
        recorder = await asyncio.to_thread(_open_recorder, blocking, bench, store, rows_budget_gb)
        shared = not store.database.on_one_machine
        name = host_name or (socket.gethostname() if shared else "local")
        await asyncio.to_thread(blocking.enter_context, hold_identity(store.database, name, _lost))
        book = HostBook(store.database) if shared else None
        if book is not None and not bench.systems:  # all that its jobs measure is elsewhere
            await asyncio.to_thread(lambda: refuse_strangers(book.systems().values()))
        directory = Directory(bench, name, book)
        runner = JobRunner(
            bench, scheduler, store, directory=directory, recorder=recorder, nursery=nursery
        )
        jobs = JobService(runner, store, workers, own_only=own_only)
        schedules = ScheduleStore(store.database)
        fence = Fence(store, scheduler, recorder)
        lab = RunningLab(
            bench, scheduler, store, jobs, ScheduleService(schedules, jobs), fence, recorder
        )
        stack.push_async_callback(_release_shots, lab)
        stack.push_async_callback(lab.stop)
        await jobs.open()
        await stack.enter_async_context(_running(ScheduleClock(schedules, jobs)))
        yield lab


@contextmanager
def jobs_compute_in() -> Iterator[Nursery | None]:
    """Give that which jobs get processes from; where there are none, jobs compute in threads."""
    if not CAN_FORK:
        # importing takes the interpreter for long stretches: not while the service answers
        for module in SLOW_IMPORTS:
            importlib.import_module(module)
        yield None
        return
    with closing(Nursery()) as nursery:
        nursery.start()  # it imports while the instruments are opened
        yield nursery


@contextmanager
def jobs_compute_on(address: str) -> Iterator[RayNursery]:
    """Give that which jobs get processes on a Ray cluster from; raise ConfigError."""
    with closing(RayNursery(address)) as nursery:
        nursery.start()
        yield nursery


@asynccontextmanager
async def _running(clock: ScheduleClock) -> AsyncIterator[None]:
    """Let the clock run until the end of the block; what it had claimed by then stays claimed."""
    task = asyncio.create_task(clock.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


def _open(
    stack: ExitStack, config: BenchConfig | Path, data_dir: Path, database_url: str | None
) -> tuple[Bench, Store]:
    folder = stack.enter_context(hold_folder(data_dir))
    store = stack.enter_context(Store(folder, database_url))
    bench = stack.enter_context(open_bench(config, start=False, guard_log=folder / "guard.log"))
    return bench, store


def _lost(reason: str) -> None:
    """End this process as a signal would: its instruments are another's by now."""
    log.error("%s: this one stops", reason)
    os.kill(os.getpid(), signal.SIGTERM)


def _open_recorder(
    stack: ExitStack, bench: Bench, store: Store, budget_gb: float
) -> RowRecorder | None:
    if not budget_gb:
        return None

    def ended(job_id: str) -> bool:
        try:
            return store.job(job_id).ended
        except UnknownName:  # of another database: nobody goes on with it
            return True
        except DatabaseAway:  # then nothing is deleted
            return False

    recorder = RowRecorder(
        store.folder / "rows",
        lambda name: bench.system(name).description,
        bench=bench.config.measurement_digest(),
        ended=ended,
        budget_bytes=int(budget_gb * 1e9),
    )
    return stack.enter_context(recorder)


async def _release_shots(lab: RunningLab) -> None:
    """Write where the shot numbers ended; only after the last row, hence after `stop`."""
    next_shots = {status.name: status.next_shot for status in lab.scheduler.statuses()}
    try:
        await asyncio.to_thread(lab.store.impatient().release_shots, next_shots)
    except DatabaseAway as away:
        log.warning("the shot numbers will have a gap: %s", away)
