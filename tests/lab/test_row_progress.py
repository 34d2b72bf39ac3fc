"""What a job says of its rows, with a clock that the test moves."""

import pytest

from lab.jobs.records import JobEstimate
from lab.jobs.row_progress import RowProgress


@pytest.fixture
def clock() -> list[float]:
    return [100.0]


@pytest.fixture
def rows(clock) -> RowProgress:
    return RowProgress(lambda: clock[0], lambda: clock[0] + 7.0)


def test_nothing_is_said_of_what_is_not_known(rows):
    assert rows.estimate(None) == JobEstimate(0, None, None, None)
    rows.plan(1000)
    rows.plan(200)
    rows.count(200)
    assert rows.estimate(90.0) == JobEstimate(200, 1200, 90.0, None)


def test_the_pace_is_that_since_training_began(rows, clock):
    rows.plan(1200)
    rows.count(200)
    clock[0] = 500.0
    rows.start_pace()
    assert rows.estimate(90.0).finish_s is None
    rows.count(100)
    clock[0] = 550.0
    assert rows.estimate(90.0) == JobEstimate(300, 1200, 90.0, 550.0 + 900 * 0.5)


def test_more_rows_than_planned_are_no_time_in_the_past(rows, clock):
    rows.plan(10)
    rows.start_pace()
    rows.count(20)
    clock[0] = 110.0
    assert rows.estimate(None).finish_s == 110.0


def test_the_pace_does_not_depend_on_how_the_clock_is_set(clock):
    steady = [0.0]
    rows = RowProgress(lambda: clock[0], lambda: steady[0])
    rows.plan(100)
    rows.start_pace()
    rows.count(10)
    steady[0], clock[0] = 20.0, 100.0 - 3600.0
    assert rows.estimate(None).finish_s == clock[0] + 90 * 2.0


def test_it_starts_anew(rows):
    rows.plan(10)
    rows.start_pace()
    rows.count(5)
    rows.reset()
    assert rows.estimate(None) == JobEstimate(0, None, None, None)
