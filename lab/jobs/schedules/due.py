"""Which tick of a timetable is to run now.

- A tick that was missed, because no service was there or the machine slept, runs once, late: of
  however many only the newest. With `missed="skip"` it is dropped once it is GRACE late.
- Every tick up to `handled` is done with: a clock that is set back runs none of them again.
- One that is set far forward runs one tick, and `handled` is then in the future. When it is back,
  and `handled` is more than DAY ahead, ticks run again from the present moment on.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from lab.jobs.schedules.records import Missed
from lab.jobs.schedules.timetable import Timetable

GRACE = timedelta(seconds=60)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Due:
    """What is to be done now: `run` a tick, or `drop` one; up to `handled` all is done then."""

    handled: datetime
    run: datetime | None = None
    drop: datetime | None = None


def due(timetable: Timetable, handled: datetime, now: datetime, missed: Missed) -> Due:
    """Return what is to be done at `now` if all ticks up to `handled` are done with."""
    if handled - now > DAY:
        return Due(now)
    tick = timetable.newest(handled, now)
    if tick is None:
        return Due(handled)
    if missed == "skip" and now - tick > GRACE:
        return Due(tick, drop=tick)
    return Due(tick, run=tick)
