"""The jobs: submit, list, follow, cancel; their results and checkpoints."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.responses import FileResponse, StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import TypeAdapter
from starlette.background import BackgroundTask

from lab.config import TrainConfig
from lab.errors import Conflict
from lab.jobs.records import JobRecord, JobState, MetricRecord, Tag
from lab.jobs.state_files import checkpoint_file
from lab.recording.metrics_csv import csv_lines
from lab.recording.recorder import RecordedRows
from server.arrays import JSON
from server.routes.access import JobOrder, Lab, problems
from server.routes.submitting import ANSWERS, Dry, submitted
from server.views import JobChanges, Rerun

_JOBS = TypeAdapter(list[JobRecord])
router = APIRouter(prefix="/jobs", tags=["jobs"])

_CHECKPOINT_TYPE = "application/octet-stream"
_CSV_TYPE = "text/csv"
_ZIP_TYPE = "application/zip"


async def _existing_job(lab: Lab, job_id: str) -> JobRecord:
    return await lab.jobs.get(job_id)


Job = Annotated[JobRecord, Depends(_existing_job)]
Since = Annotated[int, Query(ge=0, le=2**31 - 1, description="metrics after this step only")]


@router.post(
    "",
    status_code=202,
    response_model=JobRecord,
    responses=ANSWERS | problems(404, 409, 413, 422, 503, 504),
)
async def submit_job(
    lab: Lab, config: TrainConfig, order: JobOrder, dry_run: Dry = False
) -> JobRecord | Response:
    """Start a training job; the body is the training config.

    The same Idempotency-Key answers with the same job; with another config it is a conflict.
    """
    return await submitted(lab, config, order, dry_run)


@router.get("", response_model=list[JobRecord])
async def list_jobs(
    lab: Lab,
    state: JobState | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    parent: Annotated[str | None, Query(description="parts of this comparison only")] = None,
    tag: Annotated[Tag | None, Query(description="with this tag only")] = None,
) -> Response:
    """List the newest jobs, newest first."""
    found = await lab.jobs.newest(state, limit, parent=parent, tag=tag)
    # a long list takes long to write
    return Response(await asyncio.to_thread(_JOBS.dump_json, found), media_type=JSON)


@router.get("/{job_id}", responses=problems(404))
async def read_job(job: Job) -> JobRecord:
    """Return a job: config, state, times, why it failed."""
    return job


@router.get("/{job_id}/metrics", responses=problems(404))
async def list_metrics(
    lab: Lab,
    job: Job,
    since: Since = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
) -> list[MetricRecord]:
    """List a job's metrics after a step, in order."""
    return await lab.jobs.metrics(job.id, since, limit)


@router.get(
    "/{job_id}/metrics.csv",
    response_class=StreamingResponse,
    responses={200: {"content": {_CSV_TYPE: {}}}, **problems(404)},
)
async def download_metrics(lab: Lab, job: Job, kind: str | None = None) -> StreamingResponse:
    """Download a job's metrics so far, of one kind if given, as comma-separated values."""
    lines = csv_lines(lambda since: lab.store.metrics(job.id, since), kind)
    return StreamingResponse(lines, media_type=_CSV_TYPE)


@router.get("/{job_id}/recorded", responses=problems(404))
async def read_recorded(lab: Lab, job: Job) -> RecordedRows:
    """Say how many of a job's measured rows are recorded, and what is missing, and why."""
    if lab.recorder is None:
        return RecordedRows()
    await asyncio.to_thread(lab.recorder.flush)
    return await asyncio.to_thread(lab.recorder.recorded, job.id)


@router.get(
    "/{job_id}/rows",
    response_class=FileResponse,
    responses={200: {"content": {_ZIP_TYPE: {}}}, **problems(404, 409)},
)
async def download_rows(lab: Lab, job: Job) -> FileResponse:
    """Download a job's measured rows so far: a zipped Zarr group, for `xarray.open_zarr`."""
    if lab.recorder is None:
        raise Conflict(f"job {job.id} has no rows: this service records none")
    path = await asyncio.to_thread(lab.recorder.pack, job.id)
    return FileResponse(
        path,
        media_type=_ZIP_TYPE,
        filename=f"{job.id}.zarr.zip",
        background=BackgroundTask(shutil.rmtree, path.parent),
    )


@router.get("/{job_id}/events", response_class=EventSourceResponse, responses=problems(404))
async def follow_job(
    lab: Lab,
    job: Job,
    since: Since = 0,
    last_event_id: Annotated[int | None, Header(ge=0, le=2**31 - 1)] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Send the job's past and coming metrics as they are written, then its end.

    Events: `state` (the job, when its state changes), `metric` (id: its step; a client that
    reconnects with it as Last-Event-ID misses none and gets none twice), `end` (the job in its
    final state, the last event).
    """
    start = since if last_event_id is None else last_event_id
    async for item in lab.jobs.watch(job.id, start):
        if isinstance(item, MetricRecord):
            yield ServerSentEvent(event="metric", id=str(item.step), data=asdict(item))
        else:
            yield ServerSentEvent(event="end" if item.ended else "state", data=asdict(item))


@router.post("/{job_id}/cancel", status_code=202, responses=problems(404, 409))
async def cancel_job(
    lab: Lab,
    job: Job,
    at_once: Annotated[bool, Query(description="break off what it computes")] = False,
) -> JobRecord:
    """Cancel a job: at once while it is pending or paused, else between rows and training steps.

    It keeps a checkpoint of where it stopped, unless it is broken off at once.
    """
    return await lab.jobs.cancel(job.id, at_once=at_once)


@router.post("/{job_id}/pause", status_code=202, responses=problems(404, 409))
async def pause_job(lab: Lab, job: Job) -> JobRecord:
    """Pause a job: at once while it is pending, else with a checkpoint between training steps."""
    return await lab.jobs.pause(job.id)


@router.post(
    "/{job_id}/continue", status_code=202, responses=problems(404, 409, 413, 422, 503, 504)
)
async def continue_job(lab: Lab, job: Job, changes: JobChanges | None = None) -> JobRecord:
    """Continue a job that is paused, failed, cancelled or unknown, from its last checkpoint.

    What the body names is changed; a training's other fields are as they were.
    """
    given = {} if changes is None else changes.model_dump(exclude_unset=True)
    return await lab.jobs.go_on(job.id, given)


@router.get("/{job_id}/provenance", response_model=dict[str, Any], responses=problems(404, 409))
async def read_provenance(lab: Lab, job: Job) -> dict[str, Any]:
    """Return where a job's numbers come from: code, packages, bench, seeds, attempts, ..."""
    return await lab.jobs.provenance(job.id)


@router.post("/{job_id}/rerun", status_code=202, responses=problems(404, 409, 413, 422, 503, 504))
async def rerun_job(lab: Lab, job: Job, order: JobOrder) -> Rerun:
    """Start the same job again: its config with all seeds, without its deadline.

    Its tags are the job's where none are given.
    """
    again, differences = await lab.jobs.rerun(job.id, order)
    return Rerun(job=again, differences=differences)


@router.get("/{job_id}/result", response_model=dict[str, Any], responses=problems(404, 409))
async def read_result(lab: Lab, job: Job) -> Response:
    """Return the result: accuracies, learning curve, confusion matrix; of a fit, its report."""
    result = await lab.jobs.result(job.id)
    # a long learning curve takes long to write
    return Response(await asyncio.to_thread(_dump, result), media_type=JSON)


def _dump(result: dict[str, Any]) -> bytes:
    return json.dumps(result, allow_nan=False).encode()


@router.get(
    "/{job_id}/checkpoint",
    response_class=Response,
    responses={200: {"content": {_CHECKPOINT_TYPE: {}}}, **problems(404, 409)},
)
async def download_checkpoint(lab: Lab, job: Job) -> Response:
    """Download the trained network: a `torch.load(..., weights_only=True)` file."""
    try:
        content = await asyncio.to_thread(lab.store.files.read, checkpoint_file(job.id))
    except FileNotFoundError:
        why = f"job {job.id} has no checkpoint: it is a {job.kind} job, {job.state}"
        raise Conflict(why) from None
    name = {"Content-Disposition": f'attachment; filename="{job.id}.pt"'}
    return Response(content, media_type=_CHECKPOINT_TYPE, headers=name)
