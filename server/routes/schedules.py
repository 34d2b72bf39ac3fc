"""The schedules: add, list, pause, start and remove those that start jobs by the clock."""

from typing import Annotated

from fastapi import APIRouter, Header

from lab.jobs.records import JobRecord
from lab.jobs.schedules.records import ScheduleConfig, ScheduleRecord
from server.routes.access import UNNAMED, ClientName, Lab, problems

router = APIRouter(prefix="/schedules", tags=["schedules"])

_KEY_LENGTH = 200
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=_KEY_LENGTH,
        description="the same key is answered with the same job",
    ),
]


@router.post("", status_code=201, responses=problems(404, 409, 413, 504))
async def add_schedule(
    lab: Lab, schedule: ScheduleConfig, client: ClientName = UNNAMED
) -> ScheduleRecord:
    """Start a job at every tick of a cron expression; 409 if there is one of this name."""
    return await lab.schedules.add(schedule, client)


@router.get("")
async def list_schedules(lab: Lab) -> list[ScheduleRecord]:
    """List the schedules, by name."""
    return await lab.schedules.all()


@router.get("/{name}", responses=problems(404))
async def read_schedule(lab: Lab, name: str) -> ScheduleRecord:
    """Return a schedule: its next ticks and newest jobs, why a tick started none."""
    return await lab.schedules.get(name)


@router.delete("/{name}", status_code=204, responses=problems(404))
async def remove_schedule(lab: Lab, name: str) -> None:
    """Forget a schedule; its jobs stay and go on."""
    await lab.schedules.remove(name)


@router.post("/{name}/pause", responses=problems(404))
async def pause_schedule(lab: Lab, name: str) -> ScheduleRecord:
    """Let no more ticks run."""
    return await lab.schedules.pause(name)


@router.post("/{name}/continue", responses=problems(404))
async def continue_schedule(lab: Lab, name: str) -> ScheduleRecord:
    """Let a paused schedule's ticks run from now on; those that came meanwhile do not."""
    return await lab.schedules.go_on(name)


@router.post("/{name}/run", status_code=202, responses=problems(404, 409, 503, 504))
async def run_schedule(lab: Lab, name: str, key: Key = None) -> JobRecord:
    """Start the schedule's job now, beside its ticks."""
    return await lab.schedules.run(name, key)
