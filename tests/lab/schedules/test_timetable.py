"""When ticks are, compared with what a look at the clock on the wall says, minute by minute."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import ConfigError
from lab.jobs.schedules.timetable import Timetable
from lab.jobs.schedules.zones import machine_zone

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
PARIS = "Europe/Paris"
LORD_HOWE = "Australia/Lord_Howe"
# clocks that change by an hour, by half an hour, at midnight, in winter, at odd offsets, over a
# whole day, twice within weeks, and never
ZONES = (
    PARIS,
    LORD_HOWE,
    "Africa/Cairo",
    "Europe/Dublin",
    "America/St_Johns",
    "Pacific/Apia",
    "Africa/Casablanca",
    "Asia/Kathmandu",
    "UTC",
)


def offset(moment: datetime, zone: str) -> timedelta:
    return moment.astimezone(ZoneInfo(zone)).utcoffset()


def days_of_change(zone: str) -> list[datetime]:
    days = [datetime(2005, 1, 1, tzinfo=UTC) + DAY * n for n in range(30 * 365)]
    return [day for day in days if offset(day, zone) != offset(day + DAY, zone)]


CHANGES = {zone: days_of_change(zone) for zone in ZONES}


@st.composite
def moments(draw: st.DrawFn) -> tuple[str, datetime]:
    """Draw a zone and a moment, mostly of a day on which its clocks change."""
    zone = draw(st.sampled_from(ZONES))
    day = st.datetimes(datetime(2005, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC))
    if CHANGES[zone]:
        day |= st.sampled_from(CHANGES[zone])
    return zone, draw(day) + timedelta(seconds=draw(st.integers(-86400, 86400)))


@st.composite
def fields(draw: st.DrawFn, high: int) -> tuple[str, frozenset[int]]:
    """Draw a field of a cron expression and the numbers that it stands for."""
    some = st.integers(0, high - 1)
    match draw(st.sampled_from("*/-,")):
        case "*":
            return "*", frozenset(range(high))
        case "/":
            step = draw(st.integers(2, high // 2))
            return f"*/{step}", frozenset(range(0, high, step))
        case "-":
            low, top = sorted((draw(some), draw(some)))
            return f"{low}-{top}", frozenset(range(low, top + 1))
    chosen = draw(st.sets(some, min_size=1, max_size=3))
    return ",".join(map(str, sorted(chosen))), frozenset(chosen)


@st.composite
def expressions(draw: st.DrawFn) -> tuple[str, frozenset[int], frozenset[int], frozenset[int]]:
    """Draw an expression with its minutes, hours and ISO weekdays."""
    minute, minutes = draw(fields(60))
    hour, hours = draw(fields(24))
    day = draw(st.none() | st.integers(1, 7))
    days = frozenset(range(1, 8)) if day is None else frozenset({day})
    return f"{minute} {hour} * * {'*' if day is None else day % 7}", minutes, hours, days


def ticks_by_the_wall(expression, zone: str, start: datetime, end: datetime) -> list[datetime]:
    """Return the ticks after `start` up to `end`, by the rules of the documentation."""
    cron, minutes, hours, days = expression
    here = ZoneInfo(zone)

    def fits(local: datetime) -> bool:
        return local.minute in minutes and local.hour in hours and local.isoweekday() in days

    if any(field.startswith("*") for field in cron.split()[:2]):
        shown = minutes_between(start, end)
        return [moment for moment in shown if fits(moment.astimezone(here))]
    locals_ = minutes_between(start.replace(tzinfo=None) - 2 * DAY, end.replace(tzinfo=None) + DAY)
    found = {first_or_after_gap(local, here) for local in locals_ if fits(local)}
    return sorted(tick for tick in found if start < tick <= end)


def minutes_between(start: datetime, end: datetime) -> list[datetime]:
    first = start.replace(second=0, microsecond=0) + MINUTE
    return [first + n * MINUTE for n in range((end - first) // MINUTE + 1)]


def first_or_after_gap(local: datetime, zone: ZoneInfo) -> datetime:
    moment = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
    while moment.astimezone(zone).replace(tzinfo=None) != local:
        local += MINUTE
        moment = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
    return moment


@settings(max_examples=200, deadline=None)
@given(moments(), expressions(), st.integers(1, 40))
def test_ticks_are_what_the_clock_on_the_wall_says(where, expression, hours):
    zone, start = where
    end = start + hours * HOUR
    expected = ticks_by_the_wall(expression, zone, start, end)
    timetable = Timetable(expression[0], zone)
    found, tick = [], timetable.next_after(start)
    while tick <= end:
        found.append(tick)
        tick = timetable.next_after(tick)
    assert found == expected
    assert timetable.newest(start, end) == (expected[-1] if expected else None)


@pytest.mark.parametrize(
    ("zone", "cron", "start", "expected"),
    [
        (PARIS, "30 2 * * *", "2026-10-25T00+02", "25T02:30+02:00 26T02:30+01:00"),
        (PARIS, "30 2 * * *", "2026-03-29T00+01", "29T03:00+02:00 30T02:30+02:00"),
        (PARIS, "0 * * * *", "2026-10-24T23:30Z", "25T02:00+02:00 25T02:00+01:00 25T03:00+01:00"),
        (PARIS, "0 * * * *", "2026-03-28T23:30Z", "29T01:00+01:00 29T03:00+02:00"),
        (PARIS, "*/30 * * * *", "2026-03-29T00Z", "29T01:30+01:00 29T03:00+02:00 29T03:30+02:00"),
        (PARIS, "0,30 2,3 * * *", "2026-03-29T00Z", "29T03:00+02:00 29T03:30+02:00 30T02:00+02:00"),
        (LORD_HOWE, "45 1 * * *", "2026-04-05T00+11", "05T01:45+11:00 06T01:45+10:30"),
        (LORD_HOWE, "0 */2 * * *", "2026-04-05T00+11", "05T02:00+10:30 05T04:00+10:30"),
        (LORD_HOWE, "15 2 * * *", "2026-10-04T00+1030", "04T02:30+11:00 05T02:15+11:00"),
        (PARIS, "0 6 * * sun", "2026-11-22T06+01", "29T06:00+01:00 06T06:00+01:00"),
    ],
)
def test_days_on_which_the_clocks_change(zone, cron, start, expected):
    ticks = Timetable(cron, zone).upcoming(datetime.fromisoformat(start), len(expected.split()))
    assert " ".join(tick.isoformat(timespec="minutes")[8:] for tick in ticks) == expected


@pytest.mark.parametrize("years", [1, 20])
@pytest.mark.parametrize("cron", ["* * * * *", "0 6 * * *", "0 6 1 1 *", "* * 29 2 *"])
def test_the_newest_of_years_of_ticks_is_found(cron, years):
    now = datetime(2026, 11, 22, 12, 0, 30, tzinfo=UTC)
    timetable = Timetable(cron, "Europe/Paris")
    newest = timetable.newest(now - years * 365 * DAY, now)
    if newest is None:
        assert timetable.next_after(now - years * 365 * DAY) > now
    else:
        assert newest <= now < timetable.next_after(newest)


@pytest.mark.parametrize(
    ("cron", "reason"),
    [
        ("61 * * * *", "cannot be read .*minute.*: minute 0 to 59, hour 0 to 23"),
        ("0 6 * *", "has 4 fields, not five"),
        ("0 0 6 * * *", "has 6 fields, not five"),
        ("@daily", "has 1 fields"),
        ("0 0 31 2 *", "cannot be read"),
        ("", "has 0 fields"),
    ],
)
def test_an_expression_that_cannot_be_used_says_why(cron, reason):
    with pytest.raises(ConfigError, match=reason):
        Timetable(cron, "UTC")


@pytest.mark.parametrize("name", ["Europe/Zurch", "Europe", "../../etc/passwd", "", "/UTC"])
def test_a_zone_that_is_none_is_refused(name):
    with pytest.raises(ConfigError, match="time_zone"):
        Timetable("0 6 * * *", name)


def test_a_misspelt_zone_is_told_its_name():
    with pytest.raises(ConfigError, match="did you mean Europe/Zurich"):
        Timetable("0 6 * * *", "Europe/Zurch")


def test_the_machines_zone(monkeypatch, tmp_path):
    monkeypatch.setenv("TZ", ":Europe/Zurich")
    assert machine_zone() == "Europe/Zurich"
    monkeypatch.delenv("TZ")
    link = tmp_path / "localtime"
    link.symlink_to("/usr/share/zoneinfo/Asia/Kathmandu")
    assert machine_zone(link) == "Asia/Kathmandu"
    with pytest.raises(ConfigError, match="give one"):
        machine_zone(tmp_path / "nothing")
