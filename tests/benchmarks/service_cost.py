"""What a service costs that does nothing, and how soon it takes and starts a job.

    python tests/benchmarks/service_cost.py [--json] [--jobs N] [--idle-s S]

On SQLite, and on PostgreSQL where PNNLAB_TEST_DATABASE_URL names a server; `pnnlab serve` in a
process of its own, asked over the loopback. ready_s: from its start to its first answer. idle: its
use of a core, with all its processes, while it has nothing to do. submit_ms: POST of a job to its
answer; start_ms: from then on the disk until it runs, as the job's own times tell; median and 95th
percentile. One job at a time, each cancelled as soon as it runs.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import postgres
from lab.client import Client

ROOT = Path(__file__).resolve().parents[2]
TARGETS = {"idle": 0.05, "submit_ms": 50.0, "start_ms": 1000.0}
JOB = {"task": "vowels", "method": "pat", "twin": {"rows": 1000, "kind": "neural"}}


@contextmanager
def service(folder: str, url: str | None) -> Iterator[tuple[int, str, float]]:
    """Serve; give the process's id, the address, and the time until it was ready, s."""
    command = [sys.executable, "-m", "server", "serve", "--port", "0", "--data", folder]
    command += ["--bench", str(ROOT / "bench.toml")]
    command += [] if url is None else ["--database", url]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if "ready at" not in line:
                raise RuntimeError(f"the service did not start: {line}")
            yield process.pid, line.split()[-1], time.perf_counter() - began
        finally:
            process.terminate()
            process.wait(30)


def processor_s(pid: int) -> float:
    """Return the processor time that a process and those it has started have used, s."""
    ticks = 0
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(") ")[2].split()
        except OSError:  # it has ended
            continue
        if int(folder.name) == pid or int(fields[1]) == pid:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def idle_share(pid: int, seconds: float) -> float:
    """Return the share of a core that is used in that time."""
    began_s, used_s = time.perf_counter(), processor_s(pid)
    time.sleep(seconds)
    return (processor_s(pid) - used_s) / (time.perf_counter() - began_s)


def one_job(client: Client, seed: int, until: str = "running") -> tuple[float, float]:
    """Submit a job, cancel it once it runs; return the times to its answer and to its start, ms.

    until: "metric": once it has told one, for which all that jobs need has been started.
    """
    began = time.perf_counter()
    job = client.submit({**JOB, "seed": seed})
    answered_ms = 1e3 * (time.perf_counter() - began)
    for event in client.watch(job["id"]):
        if until in (event.kind, event.data.get("state")):
            client.cancel(job["id"], at_once=True)
    record = client.job(job["id"])
    return answered_ms, 1e3 * (record["started_s"] - record["created_s"])


def percentiles(name: str, times: list[float]) -> dict[str, float]:
    """Return median and 95th percentile."""
    return {name: statistics.median(times), f"{name}_p95": statistics.quantiles(times, n=20)[-1]}


def measure(url: str | None, jobs: int, idle_s: float) -> dict[str, float]:
    """Return the figures of a service."""
    with (
        tempfile.TemporaryDirectory() as folder,
        service(folder, url) as (pid, address, ready_s),
        Client(address) as client,
    ):
        one_job(client, 0, until="metric")
        answers, starts = zip(*(one_job(client, seed) for seed in range(1, jobs + 1)), strict=True)
        idle = idle_share(pid, idle_s)
    figures = {"ready_s": ready_s, "idle": idle}
    figures |= percentiles("submit_ms", list(answers)) | percentiles("start_ms", list(starts))
    return {name: round(value, 3) for name, value in figures.items()}


def show(results: Mapping[str, Mapping[str, float]]) -> None:
    """Print the figures."""
    for database, figures in results.items():
        for name, value in figures.items():
            target = TARGETS.get(name.removesuffix("_p95"))
            wanted = "" if target is None else f"  (at most {target:g})"
            print(f"{database:10} {name:14} {value:9.3f}{wanted}")


def main() -> None:
    """Measure on every database there is."""
    parser = argparse.ArgumentParser(description="Measure what the service costs.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--jobs", type=int, default=20, help="number of jobs")
    parser.add_argument("--idle-s", type=float, default=10.0, help="length of doing nothing, s")
    options = parser.parse_args()
    results = {"sqlite": measure(None, options.jobs, options.idle_s)}
    reason = postgres.why_not()
    if reason is None:
        with postgres.open_database() as url:
            results["postgresql"] = measure(url, options.jobs, options.idle_s)
    if options.json:
        print(json.dumps(results | {"targets": TARGETS}))
        return
    show(results)
    if reason is not None:
        print(f"postgresql: not measured ({reason})")


if __name__ == "__main__":
    main()
