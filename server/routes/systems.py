"""The physical systems: what they take and give, how they are, and who waits for them."""

from typing import Annotated

from fastapi import APIRouter, Query

from lab.errors import Conflict, ReservationLost
from lab.scheduling.status import SystemStatus
from server.routes.access import Lab, problems
from server.views import CalibrationRequest, QueueView, SystemView

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
    """Restart a faulted or stopped system; nothing happens to one that is ok."""
    await lab.scheduler.recover(name)
    return lab.scheduler.status(name)


@router.get("/{name}/queue", responses=problems(404))
async def read_queue(
    lab: Lab, name: str, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> QueueView:
    """List the passes that run or wait, the next to finish first, with estimated times."""
    return QueueView.of(lab.scheduler.status(name), lab.scheduler.queued(name, limit))


@router.put("/{name}/calibration", responses=problems(404, 409))
async def set_calibration(lab: Lab, name: str, calibration: CalibrationRequest) -> SystemStatus:
    """Name the calibration in force; while the system is reserved, only under the reservation."""
    _check_reservation(lab.scheduler.status(name), calibration.reservation)
    lab.scheduler.set_calibration(name, calibration.name)
    return lab.scheduler.status(name)


def _check_reservation(status: SystemStatus, number: int | None) -> None:
    held = status.reservation
    if number is not None and (held is None or held.number != number):
        raise ReservationLost(f"reservation {number} of {status.name} has ended")
    if number is None and held is not None:
        raise Conflict(f"{status.name} is reserved by {held.owner}")


def _view(lab: Lab, name: str) -> SystemView:
    description = lab.bench.system(name).description
    return SystemView.of(
        description,
        lab.scheduler.status(name),
        family=lab.bench.config.systems[name].system,
        bench=lab.bench.digest,
        simulated=lab.bench.plant(name) is not None,
    )
