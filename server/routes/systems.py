"""The physical systems: what they take and give, and how they are."""

from fastapi import APIRouter

from lab.scheduling.status import SystemStatus
from server.routes.access import Lab, problems
from server.views import SystemView

router = APIRouter(prefix="/systems", tags=["systems"])


@router.get("")
async def list_systems(lab: Lab) -> list[SystemView]:
    """List the systems of the bench."""
    return [_view(lab, name) for name in lab.bench.systems]


@router.get("/{name}", responses=problems(404))
async def read_system(lab: Lab, name: str) -> SystemView:
    """Describe one system: arrays with unit, range and shape; health and duty cycle."""
    return _view(lab, name)


@router.post("/{name}/recover", responses=problems(404, 502, 503, 504))
async def recover_system(lab: Lab, name: str) -> SystemStatus:
    """Restart a faulted system; nothing happens to one that is ok."""
    await lab.scheduler.recover(name)
    return lab.scheduler.status(name)


def _view(lab: Lab, name: str) -> SystemView:
    description = lab.bench.system(name).description
    simulated = lab.bench.plant(name) is not None
    return SystemView.of(description, lab.scheduler.status(name), simulated=simulated)
