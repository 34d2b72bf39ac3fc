"""Micro-batches through the scheduler: the deepest first, jobs in turn, and clean ends."""

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from drivers.row_key import RowKey
from drivers.spec import Array, ArraySpec
from lab.bench_config import SchedulerConfig
from lab.errors import PassCancelled
from lab.measure import DeviceMeasure, Share
from lab.pat import Physics
from lab.pipeline import Pipeline
from lab.scheduling.scheduled_run import ScheduledRun
from lab.scheduling.scheduler import HardwareScheduler
from lab.systems.base import PhysicalSystem, SystemDescription
from small_networks import (
    Line,
    assert_same,
    gradients,
    simple_network,
    squares,
)

pytestmark = pytest.mark.usefixtures("no_parts_left")

LIMIT_S = 20.0  # no wait in these tests lasts so long unless something hangs


class GatedSystem(PhysicalSystem):
    """y = x * theta; a row waits until the test lets it pass; the rows' keys are kept in order."""

    def __init__(self) -> None:
        super().__init__(announce=lambda keys, coming: self.keys.extend(keys))
        value = ArraySpec("value", "V", (1,), 0.0, 1.0)
        self.description = SystemDescription("rig", value, value, value, 0.0)
        self.instruments = ()
        self.keys: list[RowKey] = []
        self._gate = threading.Semaphore(0)

    def open_gate(self, rows: int = 1) -> None:
        self._gate.release(rows)

    def _measure_row(self, x: Array, theta: Array) -> tuple[Array, bool]:
        assert self._gate.acquire(timeout=LIMIT_S), "the test never opened the gate"
        return x * theta, False


class Rig:
    """A gated system behind a real scheduler that measures one row at a time."""

    def __init__(self) -> None:
        self.system = GatedSystem()
        # slices of one row: the next pass is chosen after every row
        self.scheduler = HardwareScheduler({"rig": self.system}, SchedulerConfig(slice_s=1e-9))

    def open_device(self, client: str, stream: int) -> DeviceMeasure:
        run = ScheduledRun(self.scheduler, "rig", client=client)
        return DeviceMeasure(self.system.description, run, stream=stream)

    async def waits(self, rows: int, passes: int) -> None:
        """Wait until so many rows have begun, all but the last counted, with passes under way."""
        async with asyncio.timeout(LIMIT_S):
            while (len(self.system.keys), self._counted(), self._passes()) != (
                rows,
                rows - 1,
                passes,
            ):
                await asyncio.sleep(0)

    def _counted(self) -> int:
        return self.scheduler.status("rig").rows_done

    def _passes(self) -> int:
        return len(self.scheduler.queued("rig"))


@asynccontextmanager
async def open_rig() -> AsyncIterator[Rig]:
    rig = Rig()
    async with rig.scheduler:
        yield rig


def take_step(device: DeviceMeasure, network: nn.Module, samples: int, parts: int) -> None:
    twin = Line()

    def share(share: Share) -> Physics:
        return device.part(share), twin

    with Pipeline(network, share, parts, device.cancel) as pipeline:
        pipeline.step(torch.linspace(0.1, 0.9, samples), squares)


@pytest.mark.anyio
@pytest.mark.usefixtures("no_leaks")
async def test_the_deepest_layer_goes_first() -> None:
    async with open_rig() as rig:
        device = rig.open_device("job", 0)
        step = asyncio.create_task(
            asyncio.to_thread(take_step, device, simple_network(device, 3), 3, 3)
        )
        # parts that have not ended: each has a pass in the queue when the next row ends
        for row, alive in enumerate((3, 3, 3, 3, 3, 2, 1, 1, 1)):
            await rig.waits(row + 1, alive)
            rig.system.open_gate()
        await step
        # first come, first served would be 0 0 0 1 1 1 2 2 2
        assert [key.index // 3 for key in rig.system.keys] == [0, 0, 1, 1, 2, 2, 0, 1, 2]
        assert device.rows == 9


@pytest.mark.anyio
@pytest.mark.usefixtures("no_leaks")
async def test_an_error_ends_the_step_and_the_other_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hops = itertools.count()

    class Faulty(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if next(hops) == 0:
                raise ArithmeticError("the first hop")
            return x

    left: list[int] = []

    def take_it() -> None:
        with Pipeline(network, lambda s: (device.part(s), Line()), 3, device.cancel) as pipeline:
            try:
                pipeline.step(torch.linspace(0.1, 0.9, 6), squares)
            finally:
                left.append(len(run.pass_ids))

    async with open_rig() as rig:
        run = ScheduledRun(rig.scheduler, "rig")
        device = DeviceMeasure(rig.system.description, run, stream=0)
        first, second = simple_network(device, 2)
        network = nn.Sequential(first, Faulty(), second)
        cancelled = asyncio.Event()
        tell = partial(asyncio.get_running_loop().call_soon_threadsafe, cancelled.set)
        monkeypatch.setattr(device, "cancel", lambda cancel=device.cancel: (cancel(), tell()))
        step = asyncio.create_task(asyncio.to_thread(take_it))
        await rig.waits(1, 3)
        rig.system.open_gate(2)  # the first part's two rows
        async with asyncio.timeout(LIMIT_S):
            await cancelled.wait()
        assert len(rig.scheduler.queued("rig")) <= 1
        rig.system.open_gate()  # the row in flight, if the next part came so far; no other
        with pytest.raises(ArithmeticError, match="the first hop"):
            await step
        assert rig.scheduler.queued("rig") == []
        assert left == [0]  # the error comes when all parts have ended
        assert rig.scheduler.status("rig").rows_done <= 3
        assert not any(p.grad is not None for p in network.parameters())


def test_the_other_parts_hear_that_one_has_failed() -> None:
    heard = threading.Event()

    def share(share: Share) -> Physics:
        def measure(x: Tensor, theta: Tensor) -> Tensor:
            if share.first == 0:
                raise ArithmeticError("the first part")
            end_s = time.monotonic() + LIMIT_S
            while not share.stopped():
                assert time.monotonic() < end_s
            heard.set()
            raise PassCancelled("the second part")

        return measure, Line()

    with Pipeline(simple_network(Line(), 1), share, 2) as pipeline:
        with pytest.raises(ArithmeticError, match="the first part"):
            pipeline.step(torch.rand(4), squares)
        assert heard.is_set()


@pytest.mark.anyio
@pytest.mark.usefixtures("no_leaks")
async def test_two_jobs_on_one_bench_take_turns() -> None:
    async with open_rig() as rig:
        devices = [rig.open_device(f"job {i}", i) for i in range(2)]
        networks = [simple_network(device, 2) for device in devices]
        steps = [
            asyncio.create_task(asyncio.to_thread(take_step, device, network, 4, 2))
            for device, network in zip(devices, networks, strict=True)
        ]
        await rig.waits(1, 4)
        rig.system.open_gate(16)
        await asyncio.gather(*steps)
        streams = [key.stream for key in rig.system.keys]
        # after its first row a job has had more of the hardware than the other
        assert streams[0] != streams[1]
        assert sorted(streams) == [0] * 8 + [1] * 8
        assert_same(gradients(networks[0]), gradients(networks[1]))
