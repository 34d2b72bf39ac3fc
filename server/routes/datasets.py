"""The tasks that a job may name: those that are built in, and data sets that users uploaded."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request

from lab.datasets.own import UPLOADS, DatasetInfo, keep_upload, list_uploads
from lab.datasets.tasks import PUBLISHED
from lab.errors import DataError
from server.errors import InvalidRequest
from server.routes.access import Lab, problems

router = APIRouter(prefix="/datasets", tags=["datasets"])

_OCTETS = "application/octet-stream"
_CSV = "text/csv"
_NAME_LENGTH = 200
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            _OCTETS: {**_BINARY, "description": "npz with features, labels, groups, test; or CSV"},
            _CSV: {"schema": {"type": "string"}},
        },
    }
}
Name = Annotated[
    str, Query(min_length=1, max_length=_NAME_LENGTH, description="shown in listings and results")
]


@router.post("", status_code=201, responses=problems(413, 415), openapi_extra=_BODY)
async def upload_dataset(lab: Lab, request: Request, name: Name = "upload") -> DatasetInfo:
    """Check an npz archive or a CSV table and keep it; a config's task may name it from then on.

    The same content is kept once.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (_OCTETS, _CSV):
        raise HTTPException(415, f"the body must be {_OCTETS} or {_CSV}, not '{kind}'")
    body = await request.body()
    uploads = lab.store.files.under(UPLOADS)
    try:
        return await asyncio.to_thread(keep_upload, uploads, body, name)
    except DataError as error:  # of the client's, not of the service's own files
        raise InvalidRequest(str(error)) from error


@router.get("")
async def list_datasets(lab: Lab) -> list[DatasetInfo]:
    """List the tasks: those that are built in, then the uploads by name."""
    files = lab.store.files.under(UPLOADS)
    return [*PUBLISHED, *await asyncio.to_thread(list_uploads, files)]
