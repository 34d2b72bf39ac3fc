"""The app on the simulated bench, in memory or on the loopback; a tiny task; quick fits."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

import server.lifespan
import tiny_jobs
from drivers.errors import InstrumentTimeout
from drivers.spectrometers.yokogawa import YokogawaAQ6370
from lab.bench_config import BenchConfig, load_bench
from lab.client import Client
from lab.jobs.nursery import Nursery
from server.app import create_app
from server.serve import LabServer, listen, run
from tiny_jobs import have_done

LIMIT_S = 60.0


@pytest.fixture(scope="session")
def bench() -> BenchConfig:
    return load_bench(Path(__file__).parents[2] / "bench.toml")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, nursery: Nursery | None) -> None:
    """Let jobs train on 24 made-up samples and fit their twins in three steps, in processes."""
    have_done(monkeypatch, tiny_jobs.tiny)
    monkeypatch.setattr(server.lifespan, "jobs_compute_in", lambda: nullcontext(nursery))


@pytest.fixture
def job_body() -> dict[str, Any]:
    """Return a training config that takes a moment."""
    twin = {"rows": 20, "kind": "neural"}
    small = {"task": "vowels", "method": "pat", "epochs": 2, "network": {"layers": 1}}
    return {**small, "twin": twin}


@pytest.fixture
async def app(bench: BenchConfig, tmp_path: Path) -> AsyncIterator[FastAPI]:
    """Return the running app, in this test's event loop."""
    app = create_app(bench, data_dir=tmp_path, max_body_bytes=2_000_000)
    async with app.router.lifespan_context(app):
        yield app


def calling(app: FastAPI) -> httpx.AsyncClient:
    """Return a client of a running app under /api/v1, in memory."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://lab/api/v1")


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of the app under /api/v1, in memory."""
    async with calling(app) as http:
        yield http


def scheduled(bench: BenchConfig, **scheduler: Any) -> BenchConfig:
    """Return the bench with other keys in its table [scheduler]."""
    changed = bench.scheduler.model_copy(update=scheduler)
    return bench.model_copy(update={"scheduler": changed})


@pytest.fixture
def open_http(bench: BenchConfig, tmp_path: Path) -> Callable[..., Any]:
    """Return the context manager that opens an app and gives its client; keys of [scheduler]."""

    @asynccontextmanager
    async def opened(**scheduler: Any) -> AsyncIterator[httpx.AsyncClient]:
        app = create_app(scheduled(bench, **scheduler), data_dir=tmp_path)
        async with app.router.lifespan_context(app), calling(app) as http:
            yield http

    return opened


@dataclass
class Gate:
    """Hold every row at the spectrometer: `measuring` tells that one has come, `go_on` lets go."""

    measuring: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def close(self) -> None:
        """Hold the rows that come from now on."""
        self.measuring.clear()
        self.go_on.clear()

    async def reached(self) -> None:
        """Wait until a row is in flight."""
        assert await asyncio.to_thread(self.measuring.wait, LIMIT_S)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Return a closed gate in front of every row; it opens at the end of the test."""
    gate, measure = Gate(), YokogawaAQ6370.measure

    def gated(spectrometer: YokogawaAQ6370) -> Any:
        gate.measuring.set()
        gate.go_on.wait(LIMIT_S)
        return measure(spectrometer)

    monkeypatch.setattr(YokogawaAQ6370, "measure", gated)
    yield gate
    gate.go_on.set()


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
def faulty() -> Callable[[], AbstractContextManager[None]]:
    """Return the context in which the spectrometer does not answer."""

    def time_out(spectrometer: YokogawaAQ6370) -> None:
        raise InstrumentTimeout(spectrometer.name, "no answer in 5 s")

    @contextmanager
    def silent() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(YokogawaAQ6370, "measure", time_out)
            yield

    return silent


@pytest.fixture
def reconfigured(bench: BenchConfig) -> Callable[..., BenchConfig]:
    """Return what makes a bench with other keys in its table [scheduler]."""
    return lambda **scheduler: scheduled(bench, **scheduler)


@pytest.fixture
def client(bench: BenchConfig, tmp_path: Path) -> Iterator[Client]:
    """Return a client of a service on the loopback."""
    with serving(create_app(bench, data_dir=tmp_path)) as url, Client(url, name="tests") as client:
        yield client
