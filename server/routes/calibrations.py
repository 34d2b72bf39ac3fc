"""Start a calibration of a system."""

from fastapi import APIRouter, Response

from lab.jobs.configs import CalibrateConfig
from lab.jobs.records import JobRecord
from server.routes.access import JobOrder, Lab, problems
from server.routes.submitting import ANSWERS, Dry, submitted

router = APIRouter(prefix="/calibrations", tags=["calibrations"])
_RESPONSES = ANSWERS | problems(404, 409, 413, 422, 503, 504)


@router.post("", status_code=202, response_model=JobRecord, responses=_RESPONSES)
async def calibrate(
    lab: Lab, config: CalibrateConfig, order: JobOrder, dry_run: Dry = False
) -> JobRecord | Response:
    """Start a job that measures levels, noise, response, lag and drift of a system."""
    return await submitted(lab, config, order, dry_run)
