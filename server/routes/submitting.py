"""What every route that starts a job shares: submit it, or only say what it would cost."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Query, Response
from fastapi.responses import JSONResponse

from lab.jobs.dry_run import DryRun
from lab.jobs.kinds import JobConfig
from lab.jobs.records import JobRecord, Order
from server.lifespan import RunningLab

Dry = Annotated[
    bool, Query(description="check and estimate only: nothing is started, the answer is 200")
]
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": DryRun, "description": "What the job would cost (dry_run)"}
}


async def submitted(
    lab: RunningLab, config: JobConfig, order: Order, dry_run: bool
) -> JobRecord | Response:
    """Start a job, or answer what it would cost."""
    if not dry_run:
        return await lab.jobs.submit(config, order)
    return JSONResponse(asdict(await lab.jobs.dry_run(config)))
