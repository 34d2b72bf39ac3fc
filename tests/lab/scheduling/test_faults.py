"""What a fault does to the pass that it hits, and to those that wait."""

import numpy as np
import pytest

from drivers.errors import DriverError, InstrumentTimeout, ProtocolError
from lab.errors import SystemFaulted
from lab.systems.base import Rows
from virtual_lab import open_lab
from virtual_rig import ROW_S, Moment, VirtualRig

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("virtual_time", "no_leaks")]

FAILED_AT = {"before": ROW_S, "during": 1.5 * ROW_S, "after": 2 * ROW_S}


@pytest.mark.parametrize("moment", list(FAILED_AT))
async def test_the_rows_in_flight_are_measured_once_more_and_flagged(moment: Moment) -> None:
    async with open_lab(slice_s=10.0) as lab:
        hit = await lab.run(4)
        lab.rig.fail(hit.values[1], moment)
        m = await hit
        assert m.retried.tolist() == [False, True, False, False]
        assert m.shots.tolist() == [0, 2, 3, 4]  # the failed row had a number too
        assert lab.clock.time() == FAILED_AT[moment] + 3 * ROW_S  # recovered at once
        status = lab.scheduler.status("rig")
        assert (status.state, status.rows_done, status.next_shot) == ("ok", 4, 5)
    assert lab.rig.times("start") == [0.0, FAILED_AT[moment]]


async def test_rows_are_repeated_only_once() -> None:
    async with open_lab() as lab:
        hit = await lab.run(4)
        lab.rig.fail(hit.values[1], "during", times=2)
        assert isinstance(await hit.error(), InstrumentTimeout)
        await (await lab.send(1))


async def test_a_pass_is_repeated_only_once_even_if_other_rows_fail() -> None:
    async with open_lab() as lab:
        hit = await lab.run(4)
        lab.rig.fail(hit.values[1])
        lab.rig.fail(hit.values[3])
        assert isinstance(await hit.error(), InstrumentTimeout)
        assert lab.rig.rows == [hit.values[i] for i in (0, 1, 1, 2, 3)]


async def test_a_pass_of_a_job_goes_on_as_long_as_it_gets_further() -> None:
    async with open_lab() as lab:
        hit = await lab.run(4, persistent=True)
        for row, times in ((1, 3), (2, 1), (3, 2)):
            lab.rig.fail(hit.values[row], times=times)
        assert (await hit).retried.tolist() == [False, True, True, True]
        assert lab.rig.rows == [hit.values[i] for i in (0, 1, 1, 1, 1, 2, 2, 3, 3, 3)]


async def test_it_fails_when_the_same_row_meets_a_fault_again_and_again() -> None:
    async with open_lab() as lab:
        hit = await lab.run(4, persistent=True)
        lab.rig.fail(hit.values[1], times=4)
        assert isinstance(await hit.error(), InstrumentTimeout)
        assert lab.rig.rows == [hit.values[i] for i in (0, 1, 1, 1, 1)]


async def test_a_pass_that_must_not_be_repeated_fails_with_the_drivers_error() -> None:
    async with open_lab() as lab:
        hit, waits = await lab.run(4, repeatable=False), await lab.send(1)
        lab.rig.fail(hit.values[1])
        assert isinstance(await hit.error(), InstrumentTimeout)
        await waits
    assert lab.rig.rows == [*hit.values[:2], *waits.values]


@pytest.mark.parametrize("error", [ValueError("a bug"), ZeroDivisionError(), OSError("disk")])
async def test_a_programs_error_is_a_fault_but_not_repeated(error: Exception) -> None:
    async with open_lab() as lab:
        hit, waits = await lab.run(4), await lab.send(1)
        lab.rig.fail(hit.values[1], "during", error)
        assert await hit.error() is error
        await waits
    assert len(lab.rig.times("start")) == 2


async def test_those_that_wait_stay_queued_or_fail_at_once_as_each_asks() -> None:
    async with open_lab() as lab:
        hit = await lab.run(4)
        waits = await lab.send(1)
        leaves = await lab.send(1, on_fault="fail")
        lab.rig.fail(hit.values[1], "after")
        lab.rig.fail_start = [InstrumentTimeout("osa", "still nothing")]
        error = await leaves.error()
        assert isinstance(error, SystemFaulted)
        assert isinstance(error.__cause__, InstrumentTimeout)
        assert lab.clock.time() == 2 * ROW_S
        assert not waits.task.done()
        assert isinstance(await lab.refusal(on_fault="fail"), SystemFaulted)
        comes_later = await lab.send(1)
        await waits
        await comes_later
    assert leaves.values[0] not in lab.rig.rows


async def test_others_in_the_same_slice_are_not_to_blame() -> None:
    async with open_lab(slice_s=10.0) as lab:
        await lab.run(1)
        hit, other = await lab.send(2), await lab.send(2, repeatable=False)
        leaves = await lab.send(2, on_fault="fail")
        lab.rig.fail(hit.values[1])
        assert isinstance(await leaves.error(), SystemFaulted)
        assert (await hit).retried.tolist() == [False, True]
        assert (await other).retried.tolist() == [False, False]


async def test_every_pass_of_a_failed_shared_call_is_repeated_or_told() -> None:
    async with open_lab(VirtualRig(batch_rows=4)) as lab:
        await lab.run(4)
        a, b = await lab.send(1), await lab.send(2, repeatable=False)
        c = await lab.send(3)
        lab.rig.fail(b.values[0])
        assert isinstance(await b.error(), InstrumentTimeout)
        assert (await a).retried.tolist() == [True]
        assert (await c).retried.tolist() == [True, False, False]
        assert lab.scheduler.status("rig").next_shot == 4 + 4 + 4


async def test_the_instruments_are_safe_before_anybody_hears_of_the_fault() -> None:
    async with open_lab(recovery_attempts=0) as lab:
        hit = await lab.run(4, repeatable=False)
        lab.rig.fail(hit.values[1], "before")
        await hit.error()
        assert not lab.rig.started
        assert lab.rig.times("shutdown") == [ROW_S]


async def test_the_log_tells_a_fault_and_its_end(caplog: pytest.LogCaptureFixture) -> None:
    async with open_lab(recovery_attempts=0) as lab:
        hit = await lab.run(4, repeatable=False)
        lab.rig.fail(hit.values[1], "before")
        error = await hit.error()
        await lab.scheduler.recover("rig")
    faulted, again = caplog.records
    assert faulted.message == f"rig is faulted: {error}"
    assert faulted.exc_info is None
    assert again.message == "rig is in use again"


async def test_a_safe_state_that_cannot_be_reached_is_told() -> None:
    async with open_lab(recovery_attempts=0) as lab:
        hit = await lab.run(4)
        lab.rig.fail(hit.values[1])
        lab.rig.fail_shutdown = [OSError("wire cut")]
        error = await hit.error()
        assert error is not None
        assert "safe state not confirmed: OSError: wire cut" in error.__notes__[0]
        assert "wire cut" in lab.scheduler.status("rig").reason


def wrong_rows(kind: str, rows: Rows) -> Rows:
    match kind:
        case "too few":
            return Rows(rows.y[:0], rows.saturated[:0])
        case "flags too few":
            return Rows(rows.y, rows.saturated[:0])
        case "y of another shape":
            return Rows(rows.y[:, :1].repeat(3, axis=1), rows.saturated)
        case "sync flags too many":
            return Rows(rows.y, rows.saturated, np.zeros(5, dtype=bool))
    raise ValueError(kind)


@pytest.mark.parametrize(
    "kind", ["too few", "flags too few", "y of another shape", "sync flags too many"]
)
async def test_a_system_that_returns_something_else_than_its_rows_is_faulted(kind: str) -> None:
    async with open_lab() as lab:
        hit = await lab.run(4)
        measure, wrong = lab.rig.measure, [True, True]

        def measure_wrong(*arguments: object) -> Rows:
            rows = measure(*arguments)  # type: ignore[arg-type]
            return wrong_rows(kind, rows) if wrong and wrong.pop() else rows

        lab.rig.measure = measure_wrong  # type: ignore[method-assign]
        error = await hit.error()
        assert isinstance(error, ProtocolError)
        assert isinstance(error, DriverError)
        m = await (await lab.send(2))
        assert m.shots.tolist() == [3, 4]  # rows 1 and, twice, 2 had numbers
