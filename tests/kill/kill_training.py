"""Kill the service at random moments of training jobs, and compare with runs that nobody killed.

    python tests/kill/kill_training.py [--kills N] [--seed S] [--task TASK]

One service runs the jobs in peace. Another, with a data folder of its own, is sent SIGKILL (now and
then SIGTERM) in the midst of the same jobs and started again, until each job has ended. Parameters,
twin, metrics, ledger, result and recorded rows must be equal bit for bit, but for seconds; each job
must end once, and shot numbers must only rise. Exit code 1 on any difference.
"""

import argparse
import hashlib
import itertools
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from lab.client import Client
from lab.recording.reading import open_rows

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 120.0  # nothing takes so long unless it hangs
UNFINISHED = ("pending", "running")
_EACH = 4  # kills of a job, at most
_STARTING = 0.15  # of the kills, while the service starts
# The first one fits the twin of all; a checkpoint every 0.1 s.
SMALL: dict[str, Any] = {
    "network": {"layers": 1},
    "twin": {"rows": 20, "kind": "neural"},
    "checkpoint_s": 0.1,
    "audit": True,
}
JOBS: dict[str, dict[str, Any]] = {
    "pat": {"method": "pat", "epochs": 60},
    "pat-refit, checks": {"method": "pat-refit", "epochs": 10, "checks": 3},
    "pat, 2 parts": {"method": "pat", "epochs": 12, "micro_batches": 2, "network": {"layers": 2}},
    "dfa": {"method": "dfa", "epochs": 8, "network": {"layers": 2}},
    "spsa": {"method": "spsa", "epochs": 2},
    "pepg": {"method": "pepg", "epochs": 2},
    "in-silico": {"method": "in-silico", "epochs": 300},
}


@dataclass
class Tally:
    """One job; moments: where it was when it was killed; wrong: what differs."""

    name: str
    moments: list[str] = field(default_factory=list)
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


@contextmanager
def service(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Start `pnnlab serve` on a free port; kill it in any case."""
    command = [sys.executable, "-m", "server", "serve", "--port", "0"]
    command += ["--bench", str(ROOT / "bench.toml"), "--data", str(folder)]
    with (
        (folder / "errors.log").open("a") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def client_of(process: subprocess.Popen[str]) -> Client:
    """Wait until a service is ready and return a client."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if "ready at" not in line:
        raise RuntimeError(f"the service did not start: {line!r}")
    return Client(line.split()[-1])


def whole_run(client: Client, folder: Path, config: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """Run a job in peace; return what it leaves, and how long it took, s."""
    began = time.monotonic()
    job = client.submit(config)["id"]
    watch(client, job, None)
    return outcome(client, folder, job), time.monotonic() - began


def killed_run(
    folder: Path, config: dict[str, Any], kills: int, run_s: float, rng: random.Random
) -> tuple[dict[str, Any], list[str]]:
    """Run a job with at most so many kills; return what it leaves, and where the kills hit."""
    job, shot, moments = None, -1, []
    while True:
        with service(folder) as process:
            if job is not None and len(moments) < kills and rng.random() < _STARTING:
                time.sleep(rng.uniform(0, 3))
                moments.append("starting")
                continue
            with client_of(process) as client:
                job = job or client.submit(config)["id"]
                first = client.system("optics")["status"]["next_shot"]
                if first < shot:
                    raise AssertionError(f"shot number {first} comes after {shot}")
                until = time.monotonic() + rng.uniform(0, run_s / 2)
                last = watch(client, job, None if len(moments) >= kills else until)
                if last["state"] not in UNFINISHED:
                    return outcome(client, folder, job), moments
                shot = client.system("optics")["status"]["next_shot"]
                how = rng.choice([signal.SIGKILL] * 4 + [signal.SIGTERM])
                moments.append(moment(client, job) + (" (TERM)" if how == signal.SIGTERM else ""))
                process.send_signal(how)
                process.wait(LIMIT_S)


def watch(client: Client, job: str, until: float | None) -> dict[str, Any]:
    """Look at a job until it has ended or the moment has come; return it."""
    limit = time.monotonic() + LIMIT_S
    while True:
        found = client.job(job)
        if found["state"] not in UNFINISHED:
            return found
        if until is not None and time.monotonic() >= until:
            return found
        if time.monotonic() > limit:
            raise AssertionError(f"job {job} does not end: {found}")
        time.sleep(0.01)


def moment(client: Client, job: str) -> str:
    """Say where a job is."""
    metrics = client.metrics(job, since=max(0, client.job(job)["last_step"] - 1))
    if not metrics:
        return "before its first metric"
    last = metrics[-1]["metric"]
    return "fit" if last["kind"] == "fit" else f"step {last['step']}"


def outcome(client: Client, folder: Path, job: str) -> dict[str, Any]:
    """Return all that a job leaves, but for times and random names."""
    record = client.job(job)
    if record["state"] != "succeeded":
        return {"state": record["state"], "error": record["error"]}
    kept = torch.load(client.checkpoint(job, folder / "network.pt"), weights_only=True)
    metrics = client.metrics(job)
    result = client.result(job)
    curve = [point | {"seconds": 0} for point in result.pop("curve")]
    return {
        "state": "succeeded",
        "jobs": len(client.jobs()),
        "twins": len(client.twins()),
        "numbers of the metrics": [m["step"] for m in metrics],
        "metrics": [m["metric"] | {"seconds": 0} for m in metrics],
        "curve": curve,
        "result": result | {"seconds": 0, "twin": ""},
        "parameters": {name: value.tolist() for name, value in kept["network"].items()},
        "parameters of the twin": {name: value.tolist() for name, value in kept["twin"].items()},
        "measured rows": rows(client, folder, job),
    }


def rows(client: Client, folder: Path, job: str) -> tuple[int, str]:
    """Return how many rows of a job are recorded, and a digest of them in the order of keys."""
    with TemporaryDirectory(dir=folder) as parent:
        measured = open_rows(client.rows(job, Path(parent, "rows.zarr"))).load()
    order = np.lexsort((measured["index"].values, measured["stream"].values))
    digest = hashlib.sha256()
    for name in ("stream", "index", "time_s", "x", "theta", "y", "saturated"):
        digest.update(measured[name].values[order].tobytes())
    return len(order), digest.hexdigest()


def kill_jobs(kills: int, seed: int, task: str, names: Sequence[str] = ()) -> Iterator[Tally]:
    """Yield the tallies of jobs (default: all) that are killed four times each at most."""
    rng = random.Random(seed)
    names = names or list(JOBS)
    with TemporaryDirectory(prefix="pnnlab-kill-") as parent:
        whole, killed = Path(parent, "whole"), Path(parent, "killed")
        whole.mkdir()
        killed.mkdir()
        with service(whole) as process, client_of(process) as client:
            for number in itertools.count():
                name = names[number % len(names)]
                twin = {**SMALL["twin"], "seed": number // len(names)}
                config = {**SMALL, **JOBS[name], "task": task, "twin": twin}
                began = time.monotonic()
                expected, run_s = whole_run(client, whole, config)
                found, moments = killed_run(killed, config, min(kills, _EACH), run_s, rng)
                yield Tally(name, moments, time.monotonic() - began, differences(expected, found))
                kills -= len(moments)
                if kills <= 0:
                    return


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Return what is not equal, and what is wrong with the run in peace."""
    wrong = [key for key in {**expected, **found} if expected.get(key) != found.get(key)]
    if expected["state"] != "succeeded":
        wrong.append(f"the run in peace is {expected['state']}: {expected['error']}")
    return wrong


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Kill the service in the midst of trainings.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    parser.add_argument("--task", default="digits")
    options = parser.parse_args()
    print(f"SIGKILL of the service, SQLite, task {options.task}, --seed {options.seed}")
    print(f"{'job':18} {'kills':>5} {'s':>5}  outcome, killed at")
    tallies = []
    for tally in kill_jobs(options.kills, options.seed, options.task):
        tallies.append(tally)
        said = "differs in " + ", ".join(tally.wrong) if tally.wrong else "equal"
        moments = ", ".join(tally.moments)
        print(f"{tally.name:18} {len(tally.moments):5} {tally.seconds:5.0f}  {said}; {moments}")
        sys.stdout.flush()
    wrong = sum(bool(tally.wrong) for tally in tallies)
    kills = sum(len(tally.moments) for tally in tallies)
    gently = sum("TERM" in moment for tally in tallies for moment in tally.moments)
    print(f"{len(tallies)} jobs, {kills} kills ({gently} by SIGTERM), {wrong} jobs differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
