"""What every route uses: the running lab, and the documented errors."""

from typing import Annotated, Any

from fastapi import Depends, Header, Request

from server.errors import MEDIA_TYPE
from server.lifespan import RunningLab
from server.views import Problem


def _running_lab(request: Request) -> RunningLab:
    lab: RunningLab = request.app.state.lab
    return lab


Lab = Annotated[RunningLab, Depends(_running_lab)]
ClientName = Annotated[
    str, Header(alias="Pnnlab-Client", max_length=200, description="who asks, for the listings")
]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route that answers with these statuses when it fails."""
    content = {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}
    return {status: {"description": "Problem details", "content": content} for status in statuses}
