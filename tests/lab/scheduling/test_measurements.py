"""What a measurement tells besides its rows, and what a status tells of the system."""

import asyncio
import itertools

import numpy as np
import pytest

from lab.errors import LabError
from lab.measurement import ForwardPass
from virtual_lab import open_lab
from virtual_rig import ROW_S, VirtualRig
from virtual_time import EPOCH_S

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("virtual_time", "no_leaks")]


async def test_shots_are_contiguous_and_go_on_from_the_given_start() -> None:
    async with open_lab(first_shot={"rig": 100}) as lab:
        sent = [await lab.send(rows, client=f"{rows}") for rows in (3, 5, 0, 4)]
        shots = [(await each).shots for each in sent]
        assert sorted(np.concatenate(shots).tolist()) == list(range(100, 112))
        assert lab.scheduler.status("rig").next_shot == 112


async def test_it_carries_the_calibration_in_force_when_it_ended() -> None:
    async with open_lab() as lab:
        assert (await (await lab.send(1))).calibration == ""
        lab.scheduler.set_calibration("rig", "2024-05-01 a")
        assert (await (await lab.send(1))).calibration == "2024-05-01 a"
        assert (await (await lab.send(0))).calibration == "2024-05-01 a"
        assert lab.scheduler.status("rig").calibration == "2024-05-01 a"


async def test_it_tells_when_it_was_submitted_started_and_finished() -> None:
    async with open_lab() as lab:
        await lab.run(4, priority=1)
        await lab.at(0.5)
        m = await (await lab.send(2))
    assert m.submitted_s == EPOCH_S + 0.5
    assert m.started_s == EPOCH_S + 1.0
    assert m.finished_s == EPOCH_S + 1.5
    assert m.row_s.tolist() == [EPOCH_S + 1.0, EPOCH_S + 1.25]


async def test_a_pass_of_no_rows_ends_at_once_and_touches_nothing() -> None:
    async with open_lab() as lab:
        await lab.run(4)
        m = await (await lab.send(0))
        assert m.y.shape == (0, 2)
        assert lab.clock.time() == 0.0


async def test_a_pass_of_no_rows_takes_no_time_by_a_clock_that_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of such a pass all rows were known: that it took no time is how a training sees it."""
    async with open_lab() as lab:
        queue, ticks = lab.scheduler._queue("rig"), itertools.count()
        monkeypatch.setattr(queue, "now", lambda: lab.clock.time() + 1e-3 * next(ticks))
        m = await (await lab.send(0))
        assert m.finished_s == m.started_s


async def test_the_status_counts_rows_time_and_passes() -> None:
    async with open_lab() as lab:
        running = await lab.run(4, "running", priority=1)
        await lab.send(7)
        await lab.send(2)
        await lab.at(2.5 * ROW_S)
        status = lab.scheduler.status("rig")
        assert (status.running, status.waiting, status.waiting_rows) == (["running"], 2, 9)
        assert status.row_time_s == pytest.approx(ROW_S)
        assert status.rows_done == 2
        assert status.busy_s == pytest.approx(2.5 * ROW_S)
        assert status.duty_cycle == pytest.approx(1.0)
        await running


async def test_half_of_the_time_busy_is_a_duty_cycle_of_a_half() -> None:
    async with open_lab() as lab:
        for i in range(300):
            await lab.at(i * 2 * ROW_S)
            await (await lab.send(1))
        await lab.at(600 * ROW_S)
        assert lab.scheduler.status("rig").duty_cycle == pytest.approx(0.5, abs=0.01)


async def test_blocking_callers_get_their_own_rows_beside_others() -> None:
    async with open_lab() as lab:
        others = [await lab.send(5, client=f"{i}") for i in range(3)]
        requests = [lab.request(5, name=f"blocking {i}") for i in range(3)]
        results = await asyncio.gather(
            *(asyncio.to_thread(lab.scheduler.measure_blocking, r) for r in requests)
        )
        for request, m in zip(requests, results, strict=True):
            np.testing.assert_array_equal(m.y[:, :1], request.x)
        for each in others:
            await each


@pytest.mark.parametrize("x", [1.0, [1.0], [[-1.0]], [[1.0, 2.0]], [[float("nan")]]])
async def test_bad_arrays_are_refused_whether_others_wait_or_not(x: object) -> None:
    async with open_lab() as lab:
        for _ in range(2):
            bad = ForwardPass("rig", np.array(x), np.ones((1, 1)))
            with pytest.raises(ValueError, match=r"rig"):
                await lab.scheduler.submit(bad)
            await lab.run(1)
            await lab.send(1)


async def test_the_drivers_saturation_flag_is_kept_row_by_row() -> None:
    async with open_lab(VirtualRig(batch_rows=3)) as lab:
        x = np.array([[1.0], [6e8], [2.0], [7e8]])
        try:
            m = await lab.scheduler.submit(ForwardPass("rig", x, np.ones_like(x)))
        except LabError as error:  # pragma: no cover
            raise AssertionError from error
    assert m.saturated.tolist() == [False, True, False, True]
    assert not m.retried.any()
    assert not m.out_of_sync.any()
