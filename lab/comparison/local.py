"""Run a comparison here, on a bench file: the service's trainer and scheduler without the service.

One run after another on the bench; or, where every instrument is simulated, several processes that
each simulate a bench of their own, here or on a cluster (`lab.comparison.on_ray`). Noise follows
row keys, so the results are the same.
"""

import asyncio
import multiprocessing
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from queue import Queue
from typing import Any

import torch

from lab.apparatus import Apparatus, open_apparatus
from lab.bench import Bench, open_bench
from lab.bench_config import BenchConfig
from lab.comparison.plan import (
    TWIN_SEED,
    Comparison,
    OnProgress,
    Outcome,
    Progress,
    fit_name,
    run_name,
)
from lab.config import TrainConfig
from lab.datasets import Dataset
from lab.errors import ConfigError
from lab.plant_run import plant_run
from lab.recipes import completed, is_possible, measures_much
from lab.rigs import gap, is_simulated, with_rigs
from lab.rules.choose import refuse_impossible
from lab.scheduling.scheduled_run import ScheduledRun
from lab.scheduling.scheduler import HardwareScheduler
from lab.systems.base import never
from lab.train_result import EpochMetric
from lab.trainer import train
from lab.twins import FittedTwin, fit_stream, fit_system_twin, task_drives

Work = Callable[[TrainConfig, bytes, OnProgress, Callable[[], bool]], dict[str, Any]]
"""Does one run in a process of its own, of its config and what all runs share, pickled."""

FanOut = Callable[[Work, Sequence[TrainConfig], bytes, OnProgress], list[dict[str, Any]]]
"""Does all runs somewhere, and returns their results in order."""


@dataclass(frozen=True)
class LocalRuns:
    """Run a plan on a bench; `workers` processes at a time, 1 for the bench itself.

    elsewhere: does the runs instead, each on a simulated bench of its own; the twin is fitted here.
    """

    plan: Comparison
    bench: BenchConfig
    dataset: Dataset
    on_progress: OnProgress
    workers: int = 1
    elsewhere: FanOut | None = None

    def __call__(self, twin_rows: int | None, gap: float | None = None) -> Outcome:
        """Fit one twin and run every method, control and seed with it.

        gap: of the simulated rigs, instead of the bench file's. Raises ConfigError where the bench
        cannot serve the plan, DriverError and SystemFaulted where an instrument fails.
        """
        self._check()
        return replace(self, bench=with_rigs(self.bench, gap=gap))._run(twin_rows)

    def _run(self, twin_rows: int | None) -> Outcome:
        configs = self._configs(twin_rows)
        # one thread: the arrays are small, and threads would only wait for each other
        torch.set_num_threads(1)
        with open_bench(self.bench, start=False) as bench, open_scheduler(bench) as queue:
            fitted = self._fit(bench, queue, configs[0], twin_rows)
            if self.workers == 1 and self.elsewhere is None:
                results = [
                    train_once(c, self.dataset, fitted, bench, queue, self.on_progress)
                    for c in configs
                ]
        if self.elsewhere is not None:
            results = self.elsewhere(train_alone, configs, self._common(fitted), self.on_progress)
        elif self.workers > 1:
            results = self._train_in_processes(configs, fitted)
        plain = configs[0].model_dump(mode="json")
        return Outcome(fitted.report(), results, plain, gap(self.bench, self.plan.system))

    def _check(self) -> None:
        if self.plan.system not in self.bench.systems:
            known = ", ".join(self.bench.systems)
            raise ConfigError(f"system: no '{self.plan.system}' on this bench (there are: {known})")
        if is_simulated(self.bench):
            return
        if self.workers > 1:
            raise ConfigError("workers: a real bench is one device, and takes one worker")
        if self.elsewhere is not None:
            raise ConfigError("ray: a real bench is one device, whose runs take turns here")
        if "ideal" in self.plan.methods:
            raise ConfigError("methods: 'ideal' differentiates a simulated bench, this one is real")
        if self.plan.path == "plant":
            raise ConfigError("path: only a simulated bench has a plant to measure on")

    def _configs(self, twin_rows: int | None) -> list[TrainConfig]:
        """Return the completed configs; without controls that the network leaves no room for."""
        plan, family = self.plan, self.bench.systems[self.plan.system].system
        configs = [completed(c, family) for c in plan.configs(plan.twin_fields(twin_rows))]
        if plan.path is None and is_simulated(self.bench) and measures_much(configs[0]):
            configs = [c.model_copy(update={"path": "plant"}) for c in configs]
        for config in configs:
            refuse_impossible(config)
        return [c for c in configs if is_possible(c)]

    def _fit(
        self, bench: Bench, queue: HardwareScheduler, config: TrainConfig, rows: int | None
    ) -> FittedTwin:
        apparatus = scheduled_apparatus(bench, queue, config)
        try:
            twin = bench.new_twin(config.system, config.twin.kind)
        except ValueError as error:
            raise ConfigError(f"twin_kind: {error}") from error

        def report(step: int, steps: int, _loss: float) -> None:
            self.on_progress(Progress("fit", fit_name(rows), step, steps))

        return fit_system_twin(
            config.twin,
            twin,
            apparatus.open_device(fit_stream(config.twin.seed), 0),
            task_drives=task_drives(
                config.model_copy(update={"seed": TWIN_SEED}), self.dataset, apparatus.description
            ),
            on_progress=report,
        )

    def _common(self, fitted: FittedTwin) -> bytes:
        # as bytes: torch would otherwise hand tensors over in shared memory, by file descriptor
        return pickle.dumps((self.bench, self.dataset, fitted))

    def _train_in_processes(
        self, configs: list[TrainConfig], fitted: FittedTwin
    ) -> list[dict[str, Any]]:
        spawn = multiprocessing.get_context("spawn")
        common = self._common(fitted)
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
    return train_alone(config, common, events.put, stop.is_set)


def train_alone(
    config: TrainConfig, common: bytes, on_progress: OnProgress, stop: Callable[[], bool]
) -> dict[str, Any]:
    """Train and test one network on a simulated bench of its own.

    common: bench config, dataset and fitted twin, pickled. The result follows from these alone.
    """
    bench_config, dataset, fitted = pickle.loads(common)
    torch.set_num_threads(1)
    with open_bench(bench_config, start=False) as bench, open_scheduler(bench) as queue:
        return train_once(config, dataset, fitted, bench, queue, on_progress, stop)


def train_once(
    config: TrainConfig,
    dataset: Dataset,
    fitted: FittedTwin,
    bench: Bench,
    queue: HardwareScheduler,
    on_progress: OnProgress,
    stop: Callable[[], bool] = never,
) -> dict[str, Any]:
    """Train and test one network, and return its result as plain data."""
    run = run_name(config)

    def report(metric: EpochMetric) -> None:
        on_progress(Progress("train", run, metric.step, metric.of, metric.accuracy))

    apparatus = scheduled_apparatus(bench, queue, config)
    return train(config, dataset, fitted, apparatus, on_metric=report, stop=stop).as_dict()


def scheduled_apparatus(
    bench: Bench, scheduler: HardwareScheduler, config: TrainConfig
) -> Apparatus:
    """Return a system of the bench, its rows executed by the scheduler, or by the plant itself."""
    if config.path == "plant":
        return open_apparatus(bench, config.system, plant_run(bench, config.system))
    return open_apparatus(bench, config.system, ScheduledRun(scheduler, config.system))


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
