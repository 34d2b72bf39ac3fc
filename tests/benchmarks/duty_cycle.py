"""Which share of the time the hardware is busy while jobs train: rows times their declared time.

    python tests/benchmarks/duty_cycle.py [--json] [--rounds N] [--seconds S] [--micro-batches M]

Each row is one blocking call of a fixed time. A job is physics-aware training as the service runs
it: blocking threads, batches of 32 rows, 5 layers, Adam, and a `Pipeline` with the number of
micro-batches that a lone job chooses itself (and several then use). Its digital work is real torch
arithmetic on one thread, sized at the start on this machine: 30 ms for the backward of a batch and
2 ms for what lies between two measurements. It takes less for fewer rows, as much less as
arithmetic does. `naive` is the same job unsplit.

Counted from the first step after the number of micro-batches is chosen to the last that all jobs
have finished. Nothing but rows is counted as busy. `in calls` adds the time by which calls returned
late, which is the machine's doing: the two differ on one that has other work. The cases take
turns, once a round; figures are medians of the rounds.
"""

import argparse
import asyncio
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from fixed_rows import CHANNELS, FixedRows, OtherLoad
from torch import Tensor, nn

from drivers.row_key import RowKey
from drivers.spec import Array
from lab.measure import DeviceMeasure
from lab.micro_batches import AutoMicroBatches
from lab.pat import Measure, PhysicalLayer
from lab.pipeline import Pipeline
from lab.scheduling.scheduled_run import ScheduledRun
from lab.scheduling.scheduler import HardwareScheduler

SWITCH_INTERVAL_S = 0.001  # as the service sets it (`server.serve`)
BATCH, LAYERS, CLASSES = 32, 5, 10
BACKWARD_S, HOP_S = 0.030, 0.002
_WIDTH = 2048
_TIMED = 7  # steps to size the work by
_WARM_UP = 2  # steps
_CHOOSING = 11  # steps that a job needs at most to choose its number of micro-batches, and one

Split = int | None
"""Into how many micro-batches a step is split; None: as the job chooses."""


@dataclass(frozen=True)
class Case:
    """Jobs that train at once, and the duty cycle they should reach."""

    name: str
    row_ms: int
    jobs: int
    at_least: float | None
    naive: bool = False


CASES = (
    Case("naive_1ms", 1, 1, None, naive=True),
    Case("one_job_1ms", 1, 1, 0.93),
    Case("two_jobs_1ms", 1, 2, 0.98),
    Case("naive_5ms", 5, 1, None, naive=True),
    Case("one_job_5ms", 5, 1, 0.98),
    Case("two_jobs_5ms", 5, 2, 0.995),
    Case("three_clients_5ms", 5, 3, 0.99),
)
MOST_SHARE_RATIO = 1.1


class Arithmetic(torch.autograd.Function):
    """Functions of wide rows, so many forward and so many backward; values have no meaning."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, forward: int, backward: int) -> Tensor:
        ctx.count = backward
        return _compute(x, forward)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _compute(grads[0], ctx.count), None, None


def _compute(x: Tensor, count: int) -> Tensor:
    wide = x.repeat(1, _WIDTH // x.shape[1])
    for _ in range(count):
        wide = torch.tanh(wide)
    return wide[:, : x.shape[1]].contiguous()


@dataclass
class Work:
    """How many functions make a hop, and a layer's part of the backward."""

    hop: int = 1
    backward: int = 1

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = Arithmetic.apply(x, self.hop, self.backward)
        return 0.5 + 0.5 * y


class Twin(nn.Module):
    """A twin that costs next to nothing: the work is in `Work`."""

    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        return 0.5 * (x + theta)


class Network(nn.Module):
    """Five measurements, digital work after each."""

    def __init__(self, measure: Measure, work: Work) -> None:
        super().__init__()
        self.work = work
        self.layers = nn.ModuleList(
            PhysicalLayer(torch.rand(CHANNELS), measure, Twin()) for _ in range(LAYERS)
        )

    def forward(self, h: Tensor) -> Tensor:
        for layer in self.layers:
            h = self.work(layer(h))
        return h[:, :CLASSES]


FEATURES, LABELS = torch.rand(BATCH, CHANNELS), torch.arange(BATCH) % CLASSES


def loss(network: Network, rows: Tensor) -> tuple[Tensor, None]:
    return nn.functional.cross_entropy(network(FEATURES[rows]), LABELS[rows]), None


class Pause:
    """Rows that only take their time, 1 ms each (a `lab.measure.Run`)."""

    spent_s = 0.0

    def __call__(self, x: Array, theta: Array, keys: Sequence[RowKey], **_: Any) -> Array:
        begin = time.perf_counter()
        time.sleep(1e-3 * len(x))
        self.spent_s += time.perf_counter() - begin
        return x

    def cancel(self) -> None:
        pass


def step_times(work: Work, rows: int = BATCH) -> tuple[float, float]:
    """Return the median times, s, of what lies between two measurements, and of the backward.

    With the pauses of a real step: arithmetic is slower after them than in one go.
    """
    pause = Pause()
    device = DeviceMeasure(FixedRows(1e-3).description, pause, stream=0)
    network = Network(device, work)
    forwards, backwards = [], []
    for _ in range(_TIMED):
        pause.spent_s, begin = 0.0, time.perf_counter()
        value, _ = loss(network, torch.arange(rows))
        middle = time.perf_counter()
        value.backward()
        forwards.append((middle - begin - pause.spent_s) / LAYERS)
        backwards.append(time.perf_counter() - middle)
    return statistics.median(forwards), statistics.median(backwards)


def size_work() -> Work:
    """Return as much work as the module's docstring says."""
    work = Work(1, 1)
    least = step_times(work)
    work = Work(8, 40)
    for _ in range(2):
        more = step_times(work)
        hop_s, backward_s = (b - a for a, b in zip(least, more, strict=True))
        work.hop = max(1, round(1 + (work.hop - 1) * (HOP_S - least[0]) / hop_s))
        work.backward = max(
            1, round(1 + (work.backward - 1) * (BACKWARD_S - least[1]) / backward_s)
        )
    return work


class TrainingJob:
    """One client of the scheduler that trains until it is told to stop.

    ends: when each step ended, `time.perf_counter` seconds.
    """

    def __init__(self, scheduler: HardwareScheduler, system: FixedRows, work: Work, number: int):
        run = ScheduledRun(scheduler, "bench", client=f"job {number}")
        self.device = DeviceMeasure(system.description, run, stream=number)
        self.row_s = system.description.row_time_s
        self.network = Network(self.device, work)
        self.ends: list[float] = []
        self.micro_batches = 0

    def train(self, split: Split, stop: threading.Event) -> None:
        """Train, blocking."""
        torch.set_num_threads(1)
        number = AutoMicroBatches(self.device.hardware_s, self.row_s) if split is None else split
        optimiser = torch.optim.Adam(self.network.parameters(), lr=1e-3)
        twin, rows = Twin(), torch.arange(BATCH)
        pipeline = Pipeline(
            self.network, lambda share: (self.device.part(share), twin), number, self.device.cancel
        )
        with pipeline:
            while not stop.is_set():
                optimiser.zero_grad()
                pipeline.step(rows, loss)
                optimiser.step()
                self.ends.append(time.perf_counter())
                self.micro_batches = pipeline.micro_batches


async def run_case(case: Case, work: Work, seconds: float, split: Split) -> dict[str, Any]:
    """Return the duty cycle, the ratio of the jobs' rows and their numbers of micro-batches."""
    warm_up = _CHOOSING if split is None else _WARM_UP
    system, stop = FixedRows(1e-3 * case.row_ms), threading.Event()
    async with HardwareScheduler({"bench": system}) as scheduler:
        jobs = [TrainingJob(scheduler, system, work, i) for i in range(case.jobs)]
        running = [asyncio.create_task(asyncio.to_thread(job.train, split, stop)) for job in jobs]
        await until(lambda: all(len(job.ends) >= warm_up for job in jobs), running)
        await asyncio.sleep(seconds)
        stop.set()
        await asyncio.gather(*running)
    start_s = max(job.ends[warm_up - 1] for job in jobs)
    end_s = min(job.ends[-1] for job in jobs)
    rows = system.rows_between(start_s, end_s)
    return {
        "duty": 1e-3 * case.row_ms * sum(rows.values()) / (end_s - start_s),
        "occupied": system.occupied_s(start_s, end_s) / (end_s - start_s),
        "share_ratio": max(rows.values()) / min(rows.values()),
        "micro_batches": [job.micro_batches for job in jobs],
    }


async def until(condition: Callable[[], bool], running: list[asyncio.Task[None]]) -> None:
    """Wait for a condition; raise what ended one of the tasks before."""
    while not condition():
        await asyncio.wait(running, timeout=0.01, return_when=asyncio.FIRST_COMPLETED)
        for task in running:
            if task.done():
                task.result()


async def measure(rounds: int, seconds: float, split: Split) -> dict[str, Any]:
    """Return all figures."""
    load = OtherLoad()
    work = size_work()
    sizes = {rows: step_times(work, rows) for rows in (BATCH, BATCH // 4)}
    found: dict[str, list[dict[str, Any]]] = {case.name: [] for case in CASES}
    for _ in range(rounds):
        for case in CASES:
            # a few steps of every job
            window_s = seconds * (1 + case.jobs * case.row_ms / 5)
            alone = found[f"one_job_{case.row_ms}ms"]
            number = 1 if case.naive else alone[0]["micro_batches"][0] if alone else split
            found[case.name].append(await run_case(case, work, window_s, number))
    return {
        **{case.name: _figure(case, found[case.name]) for case in CASES},
        "occupied": {case.name: _median(found[case.name], "occupied") for case in CASES},
        "micro_batches": {case.name: found[case.name][-1]["micro_batches"] for case in CASES},
        "work_ms": {
            str(rows): {"hop": 1e3 * hop_s, "backward": 1e3 * backward_s}
            for rows, (hop_s, backward_s) in sizes.items()
        },
        "other_load_cores": load.cores(),
    }


def _figure(case: Case, found: list[dict[str, Any]]) -> float | dict[str, float]:
    duty = _median(found, "duty")
    several = case.name == "three_clients_5ms"
    return {"duty": duty, "share_ratio": _median(found, "share_ratio")} if several else duty


def _median(found: list[dict[str, Any]], key: str) -> float:
    return statistics.median(f[key] for f in found)


def print_table(figures: dict[str, Any]) -> None:
    for rows, work in figures["work_ms"].items():
        print(f"{rows:>3} rows: hop {work['hop']:.2f} ms, backward {work['backward']:.1f} ms")
    print(f"other processes kept {figures['other_load_cores']:.1f} processors busy")
    print(f"{'case':18} {'duty %':>7}  {'at least':>8}  {'in calls %':>10}  micro-batches")
    for case in CASES:
        found = figures[case.name]
        duty = found["duty"] if isinstance(found, dict) else found
        bound = "" if case.at_least is None else f"{100 * case.at_least:.1f}"
        occupied = 100 * figures["occupied"][case.name]
        parts = " ".join(str(n) for n in figures["micro_batches"][case.name])
        print(f"{case.name:18} {100 * duty:7.2f}  {bound:>8}  {occupied:10.2f}  {parts}", end="")
        if isinstance(found, dict):
            print(f"  shares {found['share_ratio']:.3f} (at most {MOST_SHARE_RATIO:g})", end="")
        print()


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="Measure the hardware's duty cycle.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=1, help="turns of each case")
    parser.add_argument("--seconds", type=float, default=2.5, help="shortest window of a case")
    parser.add_argument("--micro-batches", type=int, help="instead of the jobs' own choice")
    arguments = parser.parse_args()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    figures = asyncio.run(measure(arguments.rounds, arguments.seconds, arguments.micro_batches))
    if arguments.json:
        print(json.dumps(figures))
        return
    print_table(figures)


if __name__ == "__main__":
    main()
