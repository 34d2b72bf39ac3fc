"""What the service answers while its database is out of reach."""

import asyncio
import functools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

import lab.jobs.database
import lab.jobs.patience
from forwarder import Forwarder
from lab.bench_config import BenchConfig
from lab.client import Client
from lab.errors import DatabaseAway
from lab.jobs.patience import Patience
from server.app import create_app

pytestmark = pytest.mark.anyio


@pytest.fixture
def line(postgres_url: str) -> Any:
    """Return the line to the database."""
    with Forwarder("127.0.0.1", sa.make_url(postgres_url).port or 5432) as line:
        yield line


@pytest.fixture
def url(line: Forwarder, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the database's URL by that line; requests wait for it for a moment."""
    short = functools.partial(Patience, limit_s=0.2)
    monkeypatch.setattr(lab.jobs.database, "Patience", short)
    monkeypatch.setattr(lab.jobs.patience, "_NEXT_TRY_S", 0.0)
    url = sa.make_url(postgres_url).set(port=line.port)
    return url.render_as_string(hide_password=False)


@pytest.fixture
async def http(url: str, bench: BenchConfig, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(bench, data_dir=tmp_path, database_url=url)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://lab/api/v1") as http:
            yield http


async def test_requests_are_told_to_come_back(
    http: httpx.AsyncClient, line: Forwarder, job_body: dict[str, Any]
) -> None:
    await asyncio.to_thread(line.cut)
    answers = [
        await http.post("/jobs", json=job_body),
        await http.get("/jobs"),
        await http.get("/datasets"),
        await http.post(
            "/datasets",
            content=b"x,label\n0,a\n1,b\n0,a\n1,b\n",
            headers={"content-type": "text/csv"},
        ),
    ]
    for answer in answers:
        problem = answer.json()
        assert (answer.status_code, problem["type"]) == (503, "urn:pnnlab:problem:database-away")
        assert int(answer.headers["Retry-After"]) >= problem["retry_after_s"] > 0
        assert "refused" in problem["detail"]
    await asyncio.to_thread(line.mend)
    assert (await http.get("/jobs")).json() == []
    assert (await http.post("/jobs", json=job_body)).status_code == 202


async def test_it_is_not_ready_until_the_database_is_back(
    http: httpx.AsyncClient, line: Forwarder
) -> None:
    assert (await http.get("http://lab/readyz")).json() == {"ready": True, "reasons": []}
    await asyncio.to_thread(line.cut)
    assert (await http.get("/jobs")).status_code == 503
    answer = await http.get("http://lab/readyz")
    assert answer.status_code == 503
    assert [reason.split(" since ")[0] for reason in answer.json()["reasons"]] == [
        "database: cannot be used"
    ]
    assert (await http.get("http://lab/healthz")).status_code == 200
    await asyncio.to_thread(line.mend)
    assert (await http.get("http://lab/readyz")).status_code == 200


async def test_the_bench_is_stopped_and_measures_all_the_same(
    http: httpx.AsyncClient, line: Forwarder
) -> None:
    await asyncio.to_thread(line.cut)
    stopped = await http.post("/stop")
    assert (stopped.status_code, stopped.json()["confirmed"]) == (200, True)
    assert (await http.post("/systems/optics/recover")).status_code == 200


def test_a_client_hears_the_same_error(
    url: str, line: Forwarder, bench: BenchConfig, tmp_path: Path, serve_in_thread: Any
) -> None:
    app = create_app(bench, data_dir=tmp_path, database_url=url)
    with serve_in_thread(app) as address, Client(address) as client:
        line.cut()
        with pytest.raises(DatabaseAway, match="refused"):
            client.jobs()
