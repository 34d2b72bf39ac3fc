"""What a list of jobs costs when there are 10,000 of them, on SQLite and on PostgreSQL.

The newest 1,000 wait; all others have a result and metrics. Prints the median time of GET /jobs, in
memory, with 100 and 1000 jobs in the answer, and of the store's part of it; and that of one look at
the jobs that wait (every 2 s in a service), but for the engine's part. Wanted: 100 ms for the list.
PostgreSQL is measured where PNNLAB_TEST_DATABASE_URL names a server.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import httpx
import sqlalchemy as sa
from fastapi import FastAPI

import postgres
from lab.config import TrainConfig
from lab.jobs.service import JobService
from lab.jobs.store import Store
from lab.jobs.tables import jobs, metrics
from server.routes import jobs as job_routes

JOBS, WAITING, METRICS = 10_000, 1_000, 30
QUEUE = "host local"  # of a `JobService` with no name of its own
LIMITS = (100, 1000)
ROUNDS = 15


def fill(store: Store, number: int) -> None:
    """Keep so many jobs, most of which have ended, each with its metrics."""
    config = TrainConfig().model_dump(mode="json")
    curve = [{"epoch": i, "loss": 0.1 * i, "accuracy": 0.9} for i in range(METRICS)]
    with store.engine.begin() as connection:
        for start in range(0, number, 1000):
            ids = [f"{i:012x}" for i in range(start, min(start + 1000, number))]
            rows = [
                {"id": i, "kind": "train", "state": "succeeded", "config": config, "client": "ann"}
                | {"error": "", "created_s": time.time(), "result": {"curve": curve}}
                for i in ids
            ]
            connection.execute(sa.insert(jobs), rows)
            told = [
                {"job_id": i, "step": step + 1, "metric": metric}
                for i in ids
                for step, metric in enumerate(curve)
            ]
            connection.execute(sa.insert(metrics), told)
    for i in range(WAITING):
        store.add_job(f"w{i:011x}", "train", config, queue=QUEUE)


def median_ms(call: Callable[[], object]) -> float:
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


async def answers_ms(store: Store, limit: int) -> float:
    """Return the median time of the request, ms."""
    app = FastAPI()
    runner: Any = SimpleNamespace(directory=SimpleNamespace(host="", book=None))  # runs nothing
    app.state.lab = SimpleNamespace(jobs=JobService(runner, store))
    app.include_router(job_routes.router)
    times = []
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://l") as http:
        for _ in range(ROUNDS):
            start = time.perf_counter()
            answer = await http.get("/jobs", params={"limit": limit})
            times.append(time.perf_counter() - start)
            if len(answer.json()) != limit:
                raise ValueError(f"{len(answer.json())} jobs, not {limit}: {answer.text[:200]}")
    return 1e3 * statistics.median(times)


def measure(url: str | None, number: int) -> dict[str, float]:
    """Return the times by what was asked, ms."""
    found = {}
    with TemporaryDirectory() as folder, Store(Path(folder), url) as store:
        fill(store, number)
        for limit in LIMITS:
            found[f"store, {limit}"] = median_ms(lambda limit=limit: store.jobs(limit=limit))  # type: ignore[misc]
            found[f"GET, {limit}"] = asyncio.run(answers_ms(store, limit))
        found["unfinished"] = median_ms(lambda: store.unfinished_jobs([QUEUE]))
        found["GET of one"] = median_ms(lambda: store.job("000000000001"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--jobs", type=int, default=JOBS)
    options = parser.parse_args()
    results = {"sqlite": measure(None, options.jobs)}
    reason = postgres.why_not()
    if reason is None:
        with postgres.open_database() as url:
            results["postgresql"] = measure(url, options.jobs)
    if options.json:
        print(json.dumps(results))
        return
    for name, found in results.items():
        print(f"{name}: " + "; ".join(f"{what} {ms:.1f} ms" for what, ms in found.items()))
    if reason is not None:
        print(f"postgresql: not measured ({reason})")


if __name__ == "__main__":
    main()
