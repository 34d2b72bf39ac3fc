"""Start a comparison of training methods."""

from fastapi import APIRouter, Response

from lab.jobs.configs import CompareConfig
from lab.jobs.records import JobRecord
from server.routes.access import JobOrder, Lab, problems
from server.routes.submitting import ANSWERS, Dry, submitted

router = APIRouter(prefix="/comparisons", tags=["comparisons"])
_RESPONSES = ANSWERS | problems(404, 409, 413, 422, 503, 504)


@router.post("", status_code=202, response_model=JobRecord, responses=_RESPONSES)
async def compare_methods(
    lab: Lab, config: CompareConfig, order: JobOrder, dry_run: Dry = False
) -> JobRecord | Response:
    """Start a job whose parts are jobs of their own: fits of twins, and the trainings on them."""
    return await submitted(lab, config, order, dry_run)
