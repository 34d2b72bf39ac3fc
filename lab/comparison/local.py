"""Run a comparison here, on a bench file: the service's trainer and scheduler without the service.

One run after another on the bench; or, where every instrument is simulated, several processes that
each simulate a bench of their own. Noise follows row keys, so the results are the same.
"""

import asyncio
import multiprocessing
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from queue import Queue
from typing import Any

import torch

from lab.apparatus import Apparatus, open_apparatus
from lab.bench import Bench, open_bench
from lab.comparison.plan import (
    TWIN_SEED,
    Comparison,
    OnProgress,
    Outcome,
    Progress,
    fit_name,
    run_name,
)
from lab.config import BenchConfig, TrainConfig
from lab.datasets import Dataset
from lab.errors import ConfigError
from lab.rigs import gap, is_simulated
from lab.scheduling.scheduled_run import ScheduledRun
from lab.scheduling.scheduler import HardwareScheduler
from lab.systems.base import never
from lab.train_result import EpochMetric
from lab.trainer import train
from lab.twins import FittedTwin, draw_task_inputs, fit_stream, fit_system_twin


@dataclass(frozen=True)
class LocalRuns:
    """Run a plan on a bench; `workers` processes at a time, 1 for the bench itself."""

    plan: Comparison
    bench: BenchConfig
    dataset: Dataset
    on_progress: OnProgress
    workers: int = 1

    def __call__(self, twin_rows: int) -> Outcome:
        """Fit one twin and run every method and seed with it.

        Raises ConfigError where the bench cannot serve the plan, DriverError and SystemFaulted
        where an instrument fails.
        """
        self._check()
        # one thread: the arrays are small, and threads would only wait for each other
        torch.set_num_threads(1)
        with open_bench(self.bench, start=False) as bench, open_scheduler(bench) as queue:
            apparatus = scheduled_apparatus(bench, queue, self.plan.system)
            fitted = self._fit(bench, apparatus, twin_rows)
            configs = self.plan.configs(self.plan.twin_config(twin_rows))
            if self.workers == 1:
                results = [
                    train_once(c, self.dataset, fitted, apparatus, self.on_progress)
                    for c in configs
                ]
        if self.workers > 1:
            results = self._train_in_processes(configs, fitted)
        return Outcome(fitted.report(), results, gap(self.bench, self.plan.system))

    def _check(self) -> None:
        if self.plan.system not in self.bench.systems:
            known = ", ".join(self.bench.systems)
            raise ConfigError(f"system: no '{self.plan.system}' on this bench (there are: {known})")
        if is_simulated(self.bench):
            return
        if self.workers > 1:
            raise ConfigError("workers: a real bench is one device, and takes one worker")
        if "ideal" in self.plan.methods:
            raise ConfigError("methods: 'ideal' differentiates a simulated bench, this one is real")

    def _fit(self, bench: Bench, apparatus: Apparatus, rows: int) -> FittedTwin:
        plan = self.plan
        try:
            twin = bench.new_twin(plan.system, plan.twin_kind)
        except ValueError as error:
            raise ConfigError(f"twin_kind: {error}") from error

        def report(step: int, steps: int, _loss: float) -> None:
            self.on_progress(Progress("fit", fit_name(rows), step, steps))

        return fit_system_twin(
            plan.twin_config(rows),
            twin,
            apparatus.open_device(fit_stream(plan.twin_config(rows).seed), 0),
            task_inputs=draw_task_inputs(
                self.dataset, apparatus.description, plan.split, TWIN_SEED
            ),
            on_progress=report,
        )

    def _train_in_processes(
        self, configs: list[TrainConfig], fitted: FittedTwin
    ) -> list[dict[str, Any]]:
        spawn = multiprocessing.get_context("spawn")
        # as bytes: torch would otherwise hand tensors over in shared memory, by file descriptor
        common = pickle.dumps((self.bench, self.dataset, fitted))
        with (
            spawn.Manager() as manager,
            ProcessPoolExecutor(self.workers, spawn, _ignore_interrupts) as pool,
        ):
            events: Queue[Progress | int] = manager.Queue()
            stop = manager.Event()
            futures = [pool.submit(_train_in_process, c, common, events, stop) for c in configs]
            try:
                return self._collect(futures, events)
            except BaseException:
                stop.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _collect(
        self, futures: list[Future[dict[str, Any]]], events: "Queue[Progress | int]"
    ) -> list[dict[str, Any]]:
        """Pass progress on until every run has ended; raise the first error of one."""
        for i, future in enumerate(futures):
            future.add_done_callback(partial(_announce_end, events, i))
        ended = 0
        while ended < len(futures):
            event = events.get()
            if isinstance(event, Progress):
                self.on_progress(event)
            else:
                futures[event].result()
                ended += 1
        return [future.result() for future in futures]


def _announce_end(events: "Queue[Progress | int]", run: int, _future: Future[Any]) -> None:
    events.put(run)


def _ignore_interrupts() -> None:
    """Leave Ctrl-C, which a terminal sends to every process, to the one that is in charge."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _train_in_process(
    config: TrainConfig, common: bytes, events: "Queue[Progress | int]", stop: threading.Event
) -> dict[str, Any]:
    bench_config, dataset, fitted = pickle.loads(common)
    torch.set_num_threads(1)
    with open_bench(bench_config, start=False) as bench, open_scheduler(bench) as queue:
        apparatus = scheduled_apparatus(bench, queue, config.system)
        return train_once(config, dataset, fitted, apparatus, events.put, stop.is_set)


def train_once(
    config: TrainConfig,
    dataset: Dataset,
    fitted: FittedTwin,
    apparatus: Apparatus,
    on_progress: OnProgress,
    stop: Callable[[], bool] = never,
) -> dict[str, Any]:
    """Train and test one network, and return its result as plain data."""
    run = run_name(config)

    def report(metric: EpochMetric) -> None:
        on_progress(Progress("train", run, metric.epoch, config.epochs, metric.accuracy))

    return train(config, dataset, fitted, apparatus, on_metric=report, stop=stop).as_dict()


def scheduled_apparatus(bench: Bench, scheduler: HardwareScheduler, system: str) -> Apparatus:
    """Return a system of the bench, its rows executed by the scheduler."""
    return open_apparatus(bench, system, ScheduledRun(scheduler, system))


@contextmanager
def open_scheduler(bench: Bench) -> Iterator[HardwareScheduler]:
    """Run a scheduler on an event loop in a thread of its own, for blocking callers."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="scheduler")
    thread.start()
    scheduler = bench.scheduler()
    try:
        asyncio.run_coroutine_threadsafe(scheduler.__aenter__(), loop).result()
        yield scheduler
    finally:
        interrupted = _wait_through_interrupts(
            asyncio.run_coroutine_threadsafe(scheduler.close(), loop)
        )
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        if interrupted:
            raise KeyboardInterrupt


def _wait_through_interrupts(future: Future[None]) -> bool:
    """Wait for the future whatever is pressed; say whether an interrupt came.

    Until the scheduler is closed a row may be on the wire, and nobody else may talk.
    """
    interrupted = False
    while True:
        try:
            future.result()
            return interrupted
        except KeyboardInterrupt:
            interrupted = True
