"""POST /stop: the whole bench into its safe state, at once."""

import asyncio

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
    reason = f"stopped by {client}"
    # also a job that only computes: it would drive again once somebody has recovered the system
    systems, _ = await asyncio.gather(lab.scheduler.stop(reason), lab.jobs.cancel_all(reason))
    return StopView.of(systems)
