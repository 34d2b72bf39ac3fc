"""POST rows to a system and get the measurement."""

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, HTTPException, Query, Request, Response
from starlette.requests import ClientDisconnect

from drivers.errors import LimitError
from lab.measurement import ForwardPass, Measurement
from server.arrays import (
    JSON,
    JSON_LIMIT,
    NPZ,
    measurement_to_json,
    measurement_to_npz,
    pass_from_json,
    pass_from_npz,
)
from server.errors import InvalidRequest
from server.routes.access import UNNAMED, ClientName, Lab, problems
from server.views import MeasurementView, PassOptions, PassRequest

T = TypeVar("T")

router = APIRouter(prefix="/systems", tags=["passes"])

_ARRAYS = "arrays x (rows, ...), theta (rows, ...); key_stream, key_index, key_time_s (rows,)"
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {"schema": PassRequest.model_json_schema()},
            NPZ: {**_BINARY, "description": _ARRAYS},
        },
    }
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": MeasurementView, "content": {NPZ: _BINARY}},
    **problems(404, 409, 413, 415, 422, 429, 502, 503, 504),
}


@router.post("/{name}/passes", responses=_ANSWERS, openapi_extra=_BODY, response_class=Response)
async def measure_rows(
    lab: Lab,
    request: Request,
    name: str,
    options: Annotated[PassOptions, Query(description="of an npz body; JSON carries its own")],
    client: ClientName = UNNAMED,
) -> Response:
    """Measure rows in physical units; the answer is npz if the Accept header says so, else JSON.

    A client that goes away cancels its pass. A full queue answers 429 with Retry-After.
    """
    lab.bench.system(name)
    forward_pass = await _read(request, name, options, client)
    if await request.is_disconnected():  # while it was read: no row may start for nobody
        raise _gone_away()
    measurement = await _while_connected(request, _submit(lab, forward_pass))
    if NPZ in request.headers.get("accept", ""):
        return Response(await asyncio.to_thread(measurement_to_npz, measurement), media_type=NPZ)
    return Response(await asyncio.to_thread(measurement_to_json, measurement), media_type=JSON)


async def _read(request: Request, name: str, options: PassOptions, client: str) -> ForwardPass:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        body = await request.body()
    except ClientDisconnect:
        raise _gone_away() from None
    if kind == NPZ:
        limit = request.app.state.max_body_bytes
        return await asyncio.to_thread(pass_from_npz, name, body, options, client, limit)
    if kind != JSON:
        raise HTTPException(415, f"the body must be {JSON} or {NPZ}, not '{kind}'")
    if len(body) > JSON_LIMIT:
        raise HTTPException(413, f"JSON bodies have at most {JSON_LIMIT} bytes; send {NPZ}")
    if options.model_fields_set:
        raise _misplaced(options)
    return await asyncio.to_thread(pass_from_json, name, body, client)


def _misplaced(options: PassOptions) -> InvalidRequest:
    """Refuse query parameters that a JSON body would silently win over."""
    reason = "belongs into the JSON body"
    names = sorted(options.model_fields_set)
    errors = [{"detail": reason, "parameter": name} for name in names]
    return InvalidRequest(f"{', '.join(names)}: {reason}", errors)


async def _submit(lab: Lab, forward_pass: ForwardPass) -> Measurement:
    try:
        return await lab.fence.measure(forward_pass)
    except LimitError:
        raise
    except ValueError as error:  # arrays that do not belong together
        raise InvalidRequest(str(error)) from error


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns; cancel it when the client goes away."""
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
    try:
        return await task
    except asyncio.CancelledError:
        raise _gone_away() from None


def _gone_away() -> HTTPException:
    return HTTPException(499, "the client went away")


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
