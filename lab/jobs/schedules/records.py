"""What a client asks for, and what is kept of a schedule. Imports neither torch nor drivers."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lab.jobs.records import JobKind, Tag

Missed = Literal["once", "skip"]
Overlap = Literal["skip", "queue"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class ScheduleConfig(BaseModel):
    """One schedule; the body of `POST /api/v1/schedules`.

    cron: minute, hour, day of the month, month, day of the week. time_zone: an IANA name; None:
    the service's machine's. kind, config: of the jobs that it starts. missed: of ticks at which no
    service was there run the newest, late, or skip them all. overlap: while the schedule's last
    job has not ended, skip a tick, or queue its job behind it. tags: of the jobs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    cron: str = Field(max_length=200)
    time_zone: str | None = None
    kind: JobKind = "train"
    config: dict[str, Any] = {}
    missed: Missed = "once"
    overlap: Overlap = "skip"
    tags: Annotated[tuple[Tag, ...], Field(max_length=16)] = ()


@dataclass(frozen=True)
class ScheduleRecord:
    """One schedule as it is kept; times are seconds since the epoch.

    config: what the jobs' configs set; each job chooses the rest when it starts. client: who added
    it, whose rows its jobs measure. handled_s: up to when all ticks are done with. launching_s: the
    tick whose job is being submitted, and claimed_s: since when. note: why a tick was passed over;
    error: why one could not start its job; both empty once one has. jobs: ids of the newest jobs,
    newest first. next_ticks: ISO times in its own zone, none while it is paused; not stored.
    """

    name: str
    cron: str
    time_zone: str
    kind: JobKind
    config: dict[str, Any]
    missed: Missed
    overlap: Overlap
    client: str
    tags: tuple[str, ...]
    created_s: float
    handled_s: float
    paused: bool = False
    launching_s: float | None = None
    claimed_s: float | None = None
    note: str = ""
    error: str = ""
    jobs: tuple[str, ...] = ()
    next_ticks: tuple[str, ...] = ()
