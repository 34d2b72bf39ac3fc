"""Exclusive use of a system: reserve it, let the reservation live, release it."""

from fastapi import APIRouter

from lab.scheduling.reservations import Reservation
from server.routes.access import UNNAMED, ClientName, Lab, problems
from server.views import ReservationRequest

router = APIRouter(prefix="/systems/{name}/reservation", tags=["reservations"])


@router.post("", status_code=201, responses=problems(404, 409, 503))
async def reserve_system(
    lab: Lab, name: str, wanted: ReservationRequest, client: ClientName = UNNAMED
) -> Reservation:
    """Reserve a system; the answer comes when the instrument call in flight has ended.

    From then on only passes that name the reservation's number run. It ends by release, or when
    no heartbeat came for ttl_s; choose ttl_s longer than one instrument call. 409 while another
    has it.
    """
    return await lab.scheduler.reserve(name, wanted.owner or client, wanted.ttl_s)


@router.post("/{number}/heartbeat", responses=problems(404, 409))
async def keep_reservation(lab: Lab, name: str, number: int) -> Reservation:
    """Let a reservation live for its ttl_s from now; 409 if it has ended."""
    return lab.scheduler.heartbeat(name, number)


@router.delete("/{number}", status_code=204, responses=problems(404, 409))
async def release_system(lab: Lab, name: str, number: int) -> None:
    """End a reservation and the passes under it; 409 if it has ended before."""
    lab.scheduler.release(name, number)
