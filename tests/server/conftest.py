"""The app on the simulated bench, in memory or on the loopback; a tiny task; quick fits."""

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

import lab.jobs.runner
from lab.client import Client
from lab.config import BenchConfig, load_bench
from lab.datasets import Dataset
from server.app import create_app
from server.serve import LabServer, listen, run
from twins.fitting import FitSettings

LIMIT_S = 60.0


@pytest.fixture(scope="session")
def bench() -> BenchConfig:
    return load_bench(Path(__file__).parents[2] / "bench.toml")


def tiny_dataset(task: str) -> Dataset:
    rng = np.random.default_rng(0)
    return Dataset(task, rng.random((24, 5)), np.arange(24) % 3, ("a", "b", "c"), None, "made up")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let jobs train on 24 made-up samples and fit their twins in three steps."""
    monkeypatch.setattr(lab.jobs.runner, "load", tiny_dataset)
    quick = functools.partial(lab.jobs.runner.fit_system_twin, settings=FitSettings(steps=3))
    monkeypatch.setattr(lab.jobs.runner, "fit_system_twin", quick)


@pytest.fixture
def job_body() -> dict[str, Any]:
    """Return a training config that takes a moment."""
    twin = {"rows": 20, "kind": "neural"}
    small = {"task": "digits", "method": "pat", "epochs": 2, "network": {"layers": 1}}
    return {**small, "twin": twin}


@pytest.fixture
async def app(bench: BenchConfig, tmp_path: Path) -> AsyncIterator[FastAPI]:
    """Return the running app, in this test's event loop."""
    app = create_app(bench, data_dir=tmp_path, max_body_bytes=2_000_000)
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of the app under /api/v1, in memory."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://lab/api/v1") as http:
        yield http


@pytest.fixture
def follow(http: httpx.AsyncClient) -> Callable[[str], Any]:
    """Return what waits for the end of a job and returns it as it ended."""

    async def follow(job_id: str) -> dict[str, Any]:
        async with asyncio.timeout(LIMIT_S):  # in memory, the events come when all are there
            await http.get(f"/jobs/{job_id}/events")
        job: dict[str, Any] = (await http.get(f"/jobs/{job_id}")).json()
        return job

    return follow


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """Serve an app on the loopback, in a thread; give its address."""
    ready = threading.Event()
    with listen("127.0.0.1", 0) as listener:
        server = LabServer(app, ready.set)
        thread = threading.Thread(target=lambda: asyncio.run(run(server, app, listener)))
        thread.start()
        try:
            if not ready.wait(LIMIT_S):
                raise TimeoutError("the service did not start")
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(LIMIT_S)
    if thread.is_alive():
        raise TimeoutError("the service did not stop")


@pytest.fixture
def serve_in_thread() -> Callable[[FastAPI], Any]:
    """Return the context manager that serves an app on the loopback."""
    return serving


@pytest.fixture
def client(bench: BenchConfig, tmp_path: Path) -> Iterator[Client]:
    """Return a client of a service on the loopback."""
    with serving(create_app(bench, data_dir=tmp_path)) as url, Client(url, name="tests") as client:
        yield client
