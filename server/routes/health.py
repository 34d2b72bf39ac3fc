"""GET /healthz: is the service there, and are its systems well."""

from importlib import metadata

from fastapi import APIRouter

from server.routes.access import Lab
from server.views import Health

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
