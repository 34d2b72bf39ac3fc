"""Start a test of a trained network on its device as it is now."""

from fastapi import APIRouter, Response

from lab.jobs.configs import EvaluateConfig
from lab.jobs.records import JobRecord
from server.routes.access import JobOrder, Lab, problems
from server.routes.submitting import ANSWERS, Dry, submitted

router = APIRouter(prefix="/evaluations", tags=["evaluations"])
_RESPONSES = ANSWERS | problems(404, 409, 413, 422, 503, 504)


@router.post("", status_code=202, response_model=JobRecord, responses=_RESPONSES)
async def evaluate(
    lab: Lab, config: EvaluateConfig, order: JobOrder, dry_run: Dry = False
) -> JobRecord | Response:
    """Start a job that tests a training's network again; 409 where the training has left none."""
    return await submitted(lab, config, order, dry_run)
