"""What every route uses: the running lab, and the documented errors."""

from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request

from lab.jobs.records import Order, Tag
from server.errors import MEDIA_TYPE
from server.lifespan import RunningLab
from server.views import CLIENT_LENGTH, Problem

UNNAMED = "http"  # clients that do not name themselves: together they have one share
_RETRY_AFTER = {
    "Retry-After": {"description": "seconds, rounded up", "schema": {"type": "integer"}}
}


def _running_lab(request: Request) -> RunningLab:
    lab: RunningLab = request.app.state.lab
    return lab


Lab = Annotated[RunningLab, Depends(_running_lab)]
ClientName = Annotated[
    str,
    Header(
        alias="Pnnlab-Client",
        max_length=CLIENT_LENGTH,
        description="who asks: whose share of the hardware is used; fairness, not security",
    ),
]


def _order(
    client: ClientName = UNNAMED,
    idempotency_key: Annotated[
        str | None,
        Header(min_length=1, max_length=200, description="the same key answers with the same job"),
    ] = None,
    tag: Annotated[list[Tag] | None, Query(max_length=16, description="to find it by")] = None,
) -> Order:
    return Order(client=client, key=idempotency_key, tags=tuple(tag or ()))


JobOrder = Annotated[Order, Depends(_order)]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route that answers with these statuses when it fails."""
    content = {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}
    answers: dict[int | str, dict[str, Any]] = {
        status: {"description": "Problem details", "content": content} for status in statuses
    }
    if 429 in answers:
        answers[429]["headers"] = _RETRY_AFTER
    return answers
