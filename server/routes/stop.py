"""POST /stop: the whole bench into its safe state, at once."""

from fastapi import APIRouter

from server.routes.access import UNNAMED, ClientName, Lab
from server.views import StopView

router = APIRouter(tags=["systems"])


@router.post("/stop")
async def stop(lab: Lab, client: ClientName = UNNAMED) -> StopView:
    """Put every system into its safe state at once, whoever holds it, and out of use.

    Passes end with system-stopped and jobs as cancelled; the rows in flight are void. A system
    works again once somebody recovers it. A second stop asks the instruments again. The answer
    tells what each instrument confirmed, and 200 also where one did not.
    """
    return StopView.of(await lab.scheduler.stop(f"stopped by {client}"))
