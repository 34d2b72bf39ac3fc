"""How long until another worker goes on with what a dead one was doing.

A bench and two workers as processes on one PostgreSQL; the worker that has the job is killed, then
another is frozen. Printed: seconds until the job is taken over and until its next metric. Goal: 30.
Needs PNNLAB_TEST_DATABASE_URL and the vowels (PNNLAB_DATA).

    python tests/benchmarks/takeover.py [--rounds 2] [--json]
"""

import argparse
import json
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

import cluster  # noqa: E402
import postgres  # noqa: E402
from lab.client import Client  # noqa: E402
from lab.config import TrainConfig  # noqa: E402
from lab.jobs.queues import ANYWHERE  # noqa: E402
from lab.jobs.records import JobRecord, Order  # noqa: E402
from lab.jobs.store import Store  # noqa: E402
from lab.recipes import completed  # noqa: E402

GOAL_S = 30.0
WORKERS = ("w1", "w2")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2, help="of a kill and a freeze each")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    why = postgres.why_not()
    if why is not None:
        raise SystemExit(why)
    with postgres.open_database() as url, tempfile.TemporaryDirectory() as folder:
        found = measure(url, Path(folder), options.rounds)
    if options.json:
        print(json.dumps({"goal_s": GOAL_S, "rounds": found}))
        return
    print("how       taken over after, s   next metric after, s   (goal 30)")
    for row in found:
        print(f"{row['how']:8}  {row['taken_over_s']:20.1f}  {row['next_metric_s']:20.1f}")


def measure(url: str, folder: Path, rounds: int) -> list[dict[str, Any]]:
    found = []
    with (
        closing(cluster.Cluster(url, folder)) as hosts,
        Client(hosts.bench(), secret=cluster.SECRET) as lab,
        Store(folder, url) as store,
    ):
        hosts.workers(*WORKERS)
        config = _long_training(lab, store)
        for how in ("killed", "frozen") * rounds:
            found.append(_one(hosts, store, config, how))
            lab.cancel(store.jobs(limit=1)[0].id)
    return found


def _one(hosts: cluster.Cluster, store: Store, config: TrainConfig, how: str) -> dict[str, Any]:
    plain, job_id = config.model_dump(mode="json"), secrets.token_hex(6)
    store.add_job(job_id, "train", plain, Order(parent="c"), queue=ANYWHERE)
    first = _until(lambda: store.job(job_id), lambda j: j.host in WORKERS and j.last_step >= 3)
    died_s = time.monotonic()
    if how == "killed":
        hosts.kill(first.host)
    else:
        hosts.processes[first.host].send_signal(signal.SIGSTOP)
    _until(lambda: store.job(job_id), lambda j: j.run > first.run)
    taken_s = time.monotonic() - died_s
    second = _until(lambda: store.job(job_id), lambda j: j.host != first.host)
    told = store.job(job_id).last_step
    _until(lambda: store.job(job_id), lambda j: j.host == second.host and j.last_step > told)
    metric_s = time.monotonic() - died_s
    if how == "killed":
        hosts.workers(first.host)
    else:
        hosts.processes[first.host].send_signal(signal.SIGCONT)
    return {"how": how, "taken_over_s": taken_s, "next_metric_s": metric_s}


def _long_training(lab: Client, store: Store) -> TrainConfig:
    fit = lab.fit_twin(system="optics", rows=100)["id"]
    _until(lambda: store.job(fit), lambda job: job.ended)
    twin = {"id": lab.result(fit)["twin"]}
    small = {"task": "vowels", "method": "pat", "epochs": 2000, "checkpoint_s": 2.0, "twin": twin}
    return completed(TrainConfig.model_validate(small), "optics")


def _until(ask: Callable[[], JobRecord], right: Callable[[JobRecord], bool]) -> JobRecord:
    while not right(answer := ask()):
        time.sleep(0.05)
    return answer


if __name__ == "__main__":
    main()
