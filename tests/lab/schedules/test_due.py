"""Which ticks run, whatever the clock does and however long nobody looked at it."""

from datetime import UTC, datetime, timedelta
from itertools import zip_longest

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.jobs.schedules.due import DAY, GRACE, Due, due
from lab.jobs.schedules.timetable import Timetable

STARTS = (  # shortly before the clocks change, and an ordinary day
    ("Europe/Paris", datetime(2026, 10, 24, 20, tzinfo=UTC)),
    ("Europe/Paris", datetime(2026, 3, 28, 20, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 4, 4, 10, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 10, 3, 10, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 7, 1, 12, tzinfo=UTC)),
)
CRONS = ("*/5 * * * *", "0 * * * *", "30 2 * * *", "15,45 1,2 * * *", "0 6 * * sun")
SECOND = timedelta(seconds=1)
# looks in a row, and outages of up to days
pauses = st.lists(st.integers(1, 5) | st.integers(60, 200_000), min_size=1, max_size=60)


def every_tick(timetable: Timetable, start: datetime, end: datetime) -> list[datetime]:
    ticks, tick = [], timetable.next_after(start)
    while tick <= end:
        ticks.append(tick)
        tick = timetable.next_after(tick)
    return ticks


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(STARTS), st.sampled_from(CRONS), pauses, st.sampled_from(["once", "skip"]))
def test_each_tick_that_somebody_saw_runs_once(where, cron, pauses, missed):
    zone, start = where
    timetable = Timetable(cron, zone)
    looks, handled, runs = [], start, []
    for pause in pauses:
        looks.append((looks[-1] if looks else start) + pause * SECOND)
        found = due(timetable, handled, looks[-1], missed)
        assert found.handled >= handled
        handled = found.handled
        if found.run is not None:
            runs.append((found.run, looks[-1]))
    ticks = every_tick(timetable, start, looks[-1])
    expected = []
    for tick, later in zip_longest(ticks, ticks[1:]):
        seen = next(look for look in looks if look >= tick)
        newest = later is None or seen < later
        if newest and (missed == "once" or seen - tick <= GRACE):
            expected.append((tick, seen))
    assert runs == expected


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(STARTS),
    st.sampled_from(CRONS),
    st.lists(st.integers(-20_000, 40_000), min_size=1, max_size=60),
)
def test_a_clock_that_is_set_back_runs_no_tick_again(where, cron, steps):
    zone, start = where
    timetable = Timetable(cron, zone)
    now = handled = start
    runs = []
    for step in steps:
        now = max(now + step * SECOND, handled - DAY)  # further back: it was wrong before
        found = due(timetable, handled, now, "once")
        handled = found.handled
        runs += [found.run] if found.run else []
    assert runs == sorted(set(runs))


@pytest.mark.parametrize("cron", CRONS)
def test_a_clock_that_was_years_ahead_runs_one_tick_and_then_goes_on(cron):
    timetable, now = Timetable(cron, "Europe/Paris"), datetime(2026, 11, 22, 12, tzinfo=UTC)
    ahead = now + timedelta(days=4000)
    wrong = due(timetable, now, ahead, "once")
    assert wrong.run == timetable.newest(now, ahead)
    assert due(timetable, wrong.handled, ahead, "once") == Due(wrong.handled)
    back = due(timetable, wrong.handled, now, "once")
    assert back == Due(now)
    tick = timetable.next_after(now)
    assert due(timetable, back.handled, tick, "once") == Due(tick, run=tick)


def test_a_dropped_tick_is_told():
    timetable = Timetable("0 6 * * *", "UTC")
    six = datetime(2026, 11, 22, 6, tzinfo=UTC)
    assert due(timetable, six - DAY, six + GRACE, "skip") == Due(six, run=six)
    assert due(timetable, six - DAY, six + GRACE + SECOND, "skip") == Due(six, drop=six)
