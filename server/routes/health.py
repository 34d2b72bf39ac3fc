"""GET /healthz: is the service there; GET /readyz: can it do all that it is there for."""

import asyncio
from datetime import UTC, datetime
from importlib import metadata

from fastapi import APIRouter, Response

from server.lifespan import RunningLab
from server.routes.access import Lab
from server.views import Health, Readiness

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def read_health(lab: Lab) -> Health:
    """Say that the service answers; degraded means that a system is faulted or closed."""
    states = {status.name: status.state for status in lab.scheduler.statuses()}
    return Health(
        status="ok" if all(state == "ok" for state in states.values()) else "degraded",
        version=metadata.version("pnnlab"),
        systems=dict(states),
    )


@router.get("/readyz", responses={503: {"model": Readiness, "description": "It is not ready"}})
async def read_readiness(lab: Lab, response: Response) -> Readiness:
    """Say whether every system, the database and the jobs' engine can be used."""
    reasons = await _reasons(lab)
    response.status_code = 503 if reasons else 200
    return Readiness(ready=not reasons, reasons=reasons)


async def _reasons(lab: RunningLab) -> list[str]:
    # who asks needs no secret: the details are in the log and in the systems' status
    found = [f"system {s.name}: {s.state}" for s in lab.scheduler.statuses() if s.state != "ok"]
    outage = await asyncio.to_thread(lab.store.look)
    if outage is not None:
        since = datetime.fromtimestamp(outage.since_s, UTC).isoformat(timespec="seconds")
        found.append(f"database: cannot be used since {since}")
    trouble = lab.jobs.trouble()
    return found if trouble is None else [*found, f"jobs: {trouble}"]
