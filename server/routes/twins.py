"""The digital twins: fit one (a job), list them, read how good they are."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Response

from lab.jobs.records import FitConfig, JobRecord, TwinRecord
from server.routes.access import JobOrder, Lab, problems
from server.routes.submitting import ANSWERS, Dry, submitted

router = APIRouter(prefix="/twins", tags=["twins"])


@router.post(
    "",
    status_code=202,
    response_model=JobRecord,
    responses=ANSWERS | problems(404, 409, 413, 422, 503, 504),
)
async def fit_twin(
    lab: Lab, config: FitConfig, order: JobOrder, dry_run: Dry = False
) -> JobRecord | Response:
    """Start a job that measures random rows and fits a twin; its result names the twin."""
    return await submitted(lab, config, order, dry_run)


@router.get("")
async def list_twins(
    lab: Lab, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> list[TwinRecord]:
    """List the newest twins, newest first."""
    return await asyncio.to_thread(lab.store.twins, limit)


@router.get("/{twin_id}", responses=problems(404))
async def read_twin(lab: Lab, twin_id: str) -> TwinRecord:
    """Return a twin with its report: errors on held-out random rows and on a task's inputs."""
    return await asyncio.to_thread(lab.store.twin, twin_id)
