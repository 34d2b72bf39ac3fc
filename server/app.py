"""The FastAPI app."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata
from pathlib import Path

from fastapi import FastAPI

from lab.bench_config import BenchConfig
from lab.recording.recorder import BUDGET_GB
from server.doorkeeper import Doorkeeper
from server.errors import add_error_handlers
from server.lifespan import open_lab
from server.routes import (
    calibrations,
    comparisons,
    datasets,
    evaluations,
    health,
    jobs,
    passes,
    reservations,
    schedules,
    stop,
    systems,
    twins,
)
from server.routes.access import problems
from server.shared_secret import SharedSecret

PREFIX = "/api/v1"
MAX_BODY_BYTES = 16 * 2**20


def create_app(
    bench: BenchConfig | Path,
    *,
    data_dir: Path | str,
    database_url: str | None = None,
    host_name: str | None = None,
    own_only: bool = False,
    workers: int = 2,
    rows_budget_gb: float = BUDGET_GB,
    max_body_bytes: int = MAX_BODY_BYTES,
    local_only: bool = False,
    secret: str | None = None,
    ray: str | None = None,
) -> FastAPI:
    """Return the app that serves a bench; its lifespan opens and closes everything.

    bench: the bench, or its file. data_dir: database, uploads, checkpoints, twins and rows; one
    service at a time. database_url: where the database is, if not there. host_name: the lasting
    name of this service among those that share it. own_only: leave to others what any may work on.
    workers: jobs that run at once. rows_budget_gb: disk for the jobs' measured rows, 0: record
    none. max_body_bytes: of a pass; larger ones get 413. local_only: answer under the loopback's
    names and addresses only. secret: what every request but for `/healthz` and `/readyz` has to
    show, if there is one. ray: address of the cluster on which jobs compute, if not here.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        folder = Path(data_dir)
        async with open_lab(
            bench,
            folder,
            database_url=database_url,
            host_name=host_name,
            own_only=own_only,
            workers=workers,
            rows_budget_gb=rows_budget_gb,
            ray=ray,
        ) as lab:
            app.state.lab = lab
            yield

    app = FastAPI(
        title="pnnlab",
        summary="Train deep physical neural networks on real and simulated instruments",
        version=metadata.version("pnnlab"),
        lifespan=lifespan,
        openapi_url=f"{PREFIX}/openapi.json",
        # these pages load scripts from elsewhere, which a lab network need not reach
        docs_url=None,
        redoc_url=None,
    )
    app.state.max_body_bytes = max_body_bytes
    app.add_middleware(SharedSecret, secret=secret)
    app.add_middleware(Doorkeeper, local_only=local_only, max_body_bytes=max_body_bytes)
    add_error_handlers(app)
    lab_parts = (systems, stop, reservations, passes, datasets)
    job_parts = (twins, calibrations, evaluations, comparisons, jobs, schedules)
    for part in (*lab_parts, *job_parts):
        app.include_router(part.router, prefix=PREFIX, responses=problems(422))
    app.include_router(health.router)
    return app
