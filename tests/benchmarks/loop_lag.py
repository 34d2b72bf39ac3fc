"""Measure how late the service's event loop is while jobs train, beside an idle loop.

    python tests/benchmarks/loop_lag.py [--json] [--seconds S] [--jobs N]

The lag is how much later than asked a sleep of 5 ms ends, in ms: what a request waits at worst
before the service looks at it. Phases: `idle` (an event loop alone), `service` (the service, with
nothing to do), `fit` (jobs measure rows and fit a twin), `train` (jobs train with `pat-refit` on
the digits, each row through drivers and wire).
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import httpx

from lab.bench_config import load_bench
from server.app import create_app
from server.serve import SWITCH_INTERVAL_S

BENCH = Path(__file__).resolve().parents[2] / "bench.toml"
TICK_S = 0.005
TARGET_P99_MS = 20.0

Figures = dict[str, float]


async def lags_ms(seconds: float) -> list[float]:
    """Sleep again and again; return by how much each sleep was too long, ms."""
    found = []
    end = time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        await asyncio.sleep(TICK_S)
        found.append(1e3 * (time.perf_counter() - begin - TICK_S))
    return found


def summary(lags: list[float]) -> Figures:
    """Return median, 99th percentile and maximum, ms."""
    return {
        "p50_ms": statistics.median(lags),
        "p99_ms": statistics.quantiles(lags, n=100)[98],
        "max_ms": max(lags),
    }


async def lags_until(watched: asyncio.Task[None]) -> list[float]:
    """Collect lags until a task ends."""
    found: list[float] = []
    while not watched.done():
        found += await lags_ms(0.1)
    await watched
    return found


async def first_epoch(http: httpx.AsyncClient, job_id: str) -> None:
    """Return when a job has fitted its twin and trained for an epoch."""
    while True:
        page = await http.get(f"/jobs/{job_id}/metrics", params={"limit": 1000})
        if any(m["metric"]["kind"] == "epoch" for m in page.json()):
            return
        job = (await http.get(f"/jobs/{job_id}")).json()
        if job["finished_s"] is not None:
            raise RuntimeError(f"the job ended before its first epoch: {job['error']}")
        await asyncio.sleep(0.5)


async def measure(seconds: float, jobs: int) -> dict[str, Figures]:
    """Return the figures of each phase."""
    figures = {"idle": summary(await lags_ms(seconds))}
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(load_bench(BENCH), data_dir=folder, workers=jobs)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://lab/api/v1") as http,
        ):
            figures["service"] = summary(await lags_ms(seconds))
            config = {
                "task": "digits",
                "method": "pat-refit",
                "epochs": 1000,
            }
            ids = [
                (await http.post("/jobs", json={**config, "seed": seed})).json()["id"]
                for seed in range(jobs)
            ]
            fitting = asyncio.create_task(first_epoch(http, ids[0]))
            figures["fit"] = summary(await lags_until(fitting))
            figures["train"] = summary(await lags_ms(3 * seconds))
    return figures


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="Measure the event loop's lag.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a phase")
    parser.add_argument("--jobs", type=int, default=1, help="jobs that train at once")
    arguments = parser.parse_args()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    figures = asyncio.run(measure(arguments.seconds, arguments.jobs))
    if arguments.json:
        rounded = {k: {n: round(v, 3) for n, v in f.items()} for k, f in figures.items()}
        print(json.dumps({**rounded, "target_p99_ms": TARGET_P99_MS}))
        return
    for phase, f in figures.items():
        bound = f"  (p99 at most {TARGET_P99_MS})" if phase == "train" else ""
        print(f"{phase:8} " + "  ".join(f"{n} {v:7.2f}" for n, v in f.items()) + bound)


if __name__ == "__main__":
    main()
