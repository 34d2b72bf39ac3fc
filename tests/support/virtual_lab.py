"""An open scheduler over virtual rigs, whose passes are followed from submission to end."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Generator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from lab.bench_config import SchedulerConfig
from lab.measurement import ForwardPass, Measurement
from lab.protection import UNPROTECTED, Protection
from lab.scheduling.scheduler import HardwareScheduler
from virtual_rig import VirtualRig
from virtual_time import VirtualTimeLoop, running_loop


class Sent:
    """A submitted pass: its rows' values, the task that waits for it, and when that ended."""

    def __init__(self, request: ForwardPass, task: "asyncio.Task[Measurement]") -> None:
        self.request, self.task = request, task
        self.values: list[float] = request.x[:, 0].tolist()
        self.ended_s: float | None = None
        clock = running_loop()
        task.add_done_callback(lambda _: setattr(self, "ended_s", clock.time()))

    @property
    def name(self) -> str:
        return self.request.pass_id

    def __await__(self) -> Generator[Any, None, Measurement]:
        return self.task.__await__()

    async def error(self) -> BaseException | None:
        """Wait for the end; return what was raised, if anything."""
        await asyncio.wait([self.task])
        return self.task.exception()


class Lab:
    """A scheduler, its rigs by name, and every pass that was sent."""

    def __init__(self, scheduler: HardwareScheduler, rigs: Mapping[str, VirtualRig]) -> None:
        self.scheduler, self.rigs = scheduler, rigs
        self.rig = next(iter(rigs.values()))
        self.clock: VirtualTimeLoop = running_loop()
        self.sent: list[Sent] = []
        self._values = itertools.count(1)

    async def send(self, rows: int = 1, name: str = "", **options: Any) -> Sent:
        """Submit a pass of new values; return once it is queued (or refused)."""
        request = self.request(rows, name, **options)
        sent = Sent(request, asyncio.create_task(self.scheduler.submit(request)))
        self.sent.append(sent)
        await asyncio.sleep(0)  # a small pass queues in its task's first step
        return sent

    async def run(self, rows: int = 1, name: str = "", **options: Any) -> Sent:
        """Submit a pass, and return when its first row is on the hardware of an idle rig."""
        sent = await self.send(rows, name, **options)
        await self.clock.at_rest()
        return sent

    def request(self, rows: int = 1, name: str = "", **options: Any) -> ForwardPass:
        """Return a pass whose rows have values that no other pass has."""
        x = np.array([float(next(self._values)) for _ in range(rows)]).reshape(-1, 1)
        name = name or f"pass {len(self.sent)}"
        options.setdefault("system", self.rig.description.name)
        return ForwardPass(x=x, theta=x / 2, pass_id=name, **options)

    async def refusal(self, rows: int = 1, **options: Any) -> BaseException:
        """Submit a pass that is refused at once; return the error."""
        sent = await self.send(rows, **options)
        assert sent.task.done(), "the pass was queued"
        error = sent.task.exception()
        assert error is not None
        return error

    async def at(self, time_s: float) -> None:
        """Let virtual time pass until `time_s`."""
        assert time_s >= self.clock.time(), "that is in the past"
        await asyncio.sleep(time_s - self.clock.time())

    def order(self, rig: VirtualRig | None = None) -> list[str]:
        """Return the names of the passes of all rows on the hardware, row by row."""
        owners = self._owners()
        return [owners[value].name for value in (rig or self.rig).rows]

    def stretches(self, rig: VirtualRig | None = None) -> list[tuple[str, int]]:
        """Return (pass, rows) of each uninterrupted stretch on the hardware."""
        return [(name, len(list(rows))) for name, rows in itertools.groupby(self.order(rig))]

    def clients(self, rig: VirtualRig | None = None) -> list[str]:
        """Return the clients of all rows on the hardware, row by row."""
        owners = self._owners()
        return [owners[value].request.client for value in (rig or self.rig).rows]

    def _owners(self) -> dict[float, Sent]:
        return {value: sent for sent in self.sent for value in sent.values}

    def check(self) -> None:
        """Assert what holds in every closed lab, whatever was done in it."""
        owners = self._owners()
        for rig in self.rigs.values():
            assert not rig.misuse
            assert not rig.started, "not left in its safe state"
            for call in rig.calls:
                for sent in (owners[value] for value in call.values if value in owners):
                    assert sent.ended_s is not None, f"{sent.name} never ended"
        for sent in self.sent:
            if not sent.task.cancelled() and sent.task.exception() is None:
                _check_rows(sent)
        self._check_shots()

    def _check_shots(self) -> None:
        for name in self.rigs:
            shots = [
                shot
                for sent in self.sent
                if sent.request.system == name and not sent.task.cancelled()
                if sent.task.exception() is None
                for shot in sent.task.result().shots.tolist()
            ]
            assert len(shots) == len(set(shots)), "a shot number was used twice"


def _check_rows(sent: Sent) -> None:
    """Assert that a pass has its own rows in its own order."""
    m = sent.task.result()
    np.testing.assert_array_equal(m.y[:, 0], sent.values)
    np.testing.assert_array_equal(m.y[:, 1], np.array(sent.values) / 2)
    assert np.all(np.diff(m.shots) > 0)
    assert np.all(np.diff(m.row_s) >= 0)


@asynccontextmanager
async def open_lab(
    *rigs: VirtualRig,
    first_shot: Mapping[str, int] | None = None,
    shot_period_s: Mapping[str, float] | None = None,
    protection: Protection = UNPROTECTED,
    **config: Any,
) -> AsyncIterator[Lab]:
    """Open a scheduler over the rigs (default: one); at the end close it and `Lab.check`."""
    named = {rig.description.name: rig for rig in rigs or (VirtualRig(),)}
    clock = running_loop()
    scheduler = HardwareScheduler(
        named,
        SchedulerConfig(**config),
        first_shot=first_shot,
        shot_period_s=shot_period_s,
        wait=lambda _, seconds: clock.sleep(seconds),
        protection=protection,
    )
    lab = Lab(scheduler, named)
    async with scheduler:
        yield lab
    await asyncio.gather(*(sent.task for sent in lab.sent), return_exceptions=True)
    lab.check()
