"""When the ticks of a schedule are: a cron expression in a time zone.

The rules are those of Debian's cron. An expression whose minute and hour both name times (`0 6`,
`30 2,14`) is of fixed times: each comes once on every day that has the date, also where the clocks
change. A time that the clocks skip comes right after the gap; one that comes twice counts the first
time. An expression whose minute or hour begins with `*` follows the time that passes: it ticks
whenever the clock on the wall fits it, so that `*/5 * * * *` ticks every five minutes on such a day
too.
"""

from bisect import bisect_left
from datetime import UTC, datetime, timedelta

from cronsim import CronSim, CronSimError

from lab.errors import ConfigError
from lab.jobs.schedules.zones import find_zone

_RANGES = (
    "minute 0 to 59, hour 0 to 23, day of the month 1 to 31 and of its month, month 1 to 12 or jan "
    "to dec, day of the week 0 to 7 or sun to sat"
)
_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)
_SOME_TIME = datetime(2000, 1, 1)
# Only the newest tick is looked for: each window has few ticks, or some shorter one had one.
_WINDOWS = (_DAY / 24, _DAY, 32 * _DAY, 366 * _DAY)


class Timetable:
    """A cron expression of five fields in the time zone of an IANA name.

    Moments are datetimes with a time zone, ticks are in UTC. Raises ConfigError.
    """

    def __init__(self, cron: str, time_zone: str) -> None:
        """Read the expression; raise ConfigError for one that cannot be read or never ticks."""
        self.zone = find_zone(time_zone)
        self._cron = cron
        fields = cron.split()
        if len(fields) != 5:
            raise ConfigError(
                f"cron: '{cron}' has {len(fields)} fields, not five: minute, hour, day of the "
                "month, month, day of the week"
            )
        self._fixed = not any(field.startswith("*") for field in fields[:2])
        try:
            ticks = CronSim(cron, _SOME_TIME)
        except CronSimError as error:
            raise ConfigError(f"cron: '{cron}' cannot be read ({error}): {_RANGES}") from error
        self._first(ticks)

    def next_after(self, moment: datetime) -> datetime:
        """Return the first tick after a moment."""
        if self._fixed:
            return self._next_fixed(moment.astimezone(UTC))
        return self._next_passing(moment.astimezone(UTC))

    def newest(self, after: datetime, until: datetime) -> datetime | None:
        """Return the last tick that is later than `after` and not later than `until`, or None."""
        for window in (*_WINDOWS, until - after):
            tick = self._last_within(max(after, until - window), until)
            if tick is not None or until - window <= after:
                return tick
        return None

    def upcoming(self, moment: datetime, count: int) -> list[datetime]:
        """Return the next ticks after a moment, in the timetable's own zone."""
        ticks: list[datetime] = []
        for _ in range(count):
            moment = self.next_after(moment)
            ticks.append(moment.astimezone(self.zone))
        return ticks

    def _last_within(self, after: datetime, until: datetime) -> datetime | None:
        last, tick = None, self.next_after(after)
        while tick <= until:
            last, tick = tick, self.next_after(tick)
        return last

    def _next_fixed(self, moment: datetime) -> datetime:
        ticks = CronSim(self._cron, moment.astimezone(self.zone))
        # in the second of two equal hours the first ticks are of the first: they are over
        while (tick := self._first(ticks).astimezone(UTC)) <= moment:
            pass
        return tick

    def _next_passing(self, moment: datetime) -> datetime:
        """Look for the tick in the local time that holds now, up to the next change of clocks.

        Given a zone, the library steps by whole hours, and passes over ticks where the clocks
        change by half an hour.
        """
        start = moment.replace(microsecond=0) + _SECOND
        while True:
            offset = self._offset(start)
            local = (start + offset).replace(tzinfo=None)
            # the library starts one second after what it is given
            tick = self._first(CronSim(self._cron, local - _SECOND)).replace(tzinfo=UTC) - offset
            change = self._change(start, tick)
            if change is None:
                return tick
            start = change

    def _change(self, start: datetime, end: datetime) -> datetime | None:
        """Return the first moment after `start`, up to `end`, at which the clocks have changed."""
        offset = self._offset(start)
        while start < end:
            day = min(start + _DAY, end)
            if self._offset(day) != offset:
                seconds = range(int((day - start) / _SECOND) + 1)
                changed = bisect_left(
                    seconds, True, key=lambda s: self._offset(start + s * _SECOND) != offset
                )
                return start + changed * _SECOND
            start = day
        return None

    def _offset(self, moment: datetime) -> timedelta:
        offset = moment.astimezone(self.zone).utcoffset()
        return timedelta() if offset is None else offset

    def _first(self, ticks: CronSim) -> datetime:
        tick = next(ticks, None)
        if tick is None:
            raise ConfigError(f"cron: no time of the next 50 years fits '{self._cron}'")
        return tick
