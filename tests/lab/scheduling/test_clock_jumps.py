"""The wall clock is set while passes wait and run: deadlines follow it, durations do not."""

import time
from collections.abc import Callable

import numpy as np
import pytest

from lab.deadlines import LOOK_EVERY_S
from lab.errors import DeadlineMissed
from virtual_lab import open_lab
from virtual_rig import ROW_S
from virtual_time import EPOCH_S, VirtualTimeLoop

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("virtual_time", "no_leaks")]

HOUR_S = 3600.0


@pytest.fixture
def set_clock(
    monkeypatch: pytest.MonkeyPatch, virtual_time: VirtualTimeLoop
) -> Callable[[float], None]:
    """Return what sets the wall clock by so many seconds, back if they are negative."""

    def set_by(seconds: float) -> None:
        wall = time.time
        monkeypatch.setattr(time, "time", lambda: wall() + seconds)

    return set_by


async def test_a_deadline_is_not_missed_early_when_the_clock_is_set_back(
    set_clock: Callable[[float], None],
) -> None:
    async with open_lab() as lab:
        await lab.run(80, "bulk", priority=1)  # until 20 s
        waiting = await lab.send(1, "waits", deadline_s=EPOCH_S + 10.0)
        set_clock(-HOUR_S)
        await waiting
        assert lab.clock.time() > 20.0


async def test_a_deadline_comes_when_the_clock_does(set_clock: Callable[[float], None]) -> None:
    async with open_lab() as lab:
        await lab.run(80, "bulk", priority=1)
        waiting = await lab.send(1, "waits", deadline_s=EPOCH_S + 15.0)
        set_clock(-2.0)
        assert isinstance(await waiting.error(), DeadlineMissed)
        assert lab.clock.time() == pytest.approx(17.0, abs=1e-6)


async def test_a_deadline_that_the_clock_jumps_over_is_missed_soon(
    set_clock: Callable[[float], None],
) -> None:
    async with open_lab() as lab:
        await lab.run(80, "bulk", priority=1)
        waiting = await lab.send(1, "waits", deadline_s=EPOCH_S + HOUR_S)
        set_clock(HOUR_S)
        assert isinstance(await waiting.error(), DeadlineMissed)
        assert lab.clock.time() <= 1.0 + LOOK_EVERY_S


@pytest.mark.parametrize("seconds", [-HOUR_S, HOUR_S])
async def test_the_times_of_a_pass_belong_together(
    set_clock: Callable[[float], None], seconds: float
) -> None:
    async with open_lab() as lab:
        running = await lab.run(20)
        await lab.at(2.0)
        set_clock(seconds)
        m = await running
        assert m.finished_s - m.started_s == pytest.approx(20 * ROW_S, abs=1e-6)
        assert np.allclose(np.diff(m.row_s), ROW_S, atol=1e-6)
