"""Services on several hosts, one PostgreSQL: who works on what, takeover, the one that wakes."""

import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

import cluster
import postgres
from cluster import Cluster
from lab.client import Client
from lab.config import TrainConfig
from lab.jobs.files import Files
from lab.jobs.queues import ANYWHERE
from lab.jobs.records import JobRecord, Order
from lab.jobs.state_files import checkpoint_file, load_state
from lab.jobs.store import Store
from lab.recipes import completed

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

LIMIT_S = 150.0  # nothing here lasts so long unless it hangs
WORKERS = ("w1", "w2")


@pytest.fixture(scope="module")
def shared_database() -> Iterator[str]:
    why = postgres.why_not()
    if why is not None:
        pytest.skip(why)
    with postgres.open_database() as url:
        yield url


@pytest.fixture(scope="module")
def hosts(shared_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with closing(Cluster(shared_database, tmp_path_factory.mktemp("hosts"))) as found:
        yield found


@pytest.fixture(scope="module")
def bench_url(hosts: Cluster, data_folder: Path) -> str:
    return hosts.bench()


@pytest.fixture(scope="module")
def lab(bench_url: str) -> Iterator[Client]:
    with Client(bench_url, secret=cluster.SECRET) as client:
        yield client


@pytest.fixture(scope="module")
def workers(hosts: Cluster, bench_url: str) -> None:
    hosts.workers(*WORKERS)


@pytest.fixture(scope="module")
def store(
    shared_database: str, bench_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    with Store(tmp_path_factory.mktemp("store"), shared_database) as store:
        yield store


@pytest.fixture(scope="module")
def config(lab: Client, workers: None) -> TrainConfig:
    """Return a training of some seconds on a twin that is fitted already."""
    fit = lab.fit_twin(system="optics", rows=100)
    ended = until(lambda: lab.job(fit["id"]), lambda job: job["finished_s"] is not None)
    assert (ended["state"], ended["queue"]) == ("succeeded", ANYWHERE)
    twin = lab.result(fit["id"])["twin"]
    small = {"task": "vowels", "method": "pat", "epochs": 12, "checkpoint_s": 0.5}
    plain = {**small, "network": {"layers": 2}, "twin": {"id": twin}}
    return completed(TrainConfig.model_validate(plain), "optics")


@pytest.fixture(scope="module")
def expected(lab: Client, store: Store, config: TrainConfig) -> dict[str, Any]:
    """Return what the training leaves beside its instruments."""
    job = lab.submit(config.model_dump(mode="json"))
    record = finished(store, job["id"])
    assert record.host == "bench"
    return outcome(store, record.id)


def until(ask: Callable[[], Any], right: Callable[[Any], bool]) -> Any:
    """Ask until the answer is right."""
    limit_s = time.monotonic() + LIMIT_S
    while not right(answer := ask()):
        assert time.monotonic() < limit_s, answer
        time.sleep(0.05)
    return answer


def part(store: Store, config: TrainConfig) -> str:
    """Submit a training that any host may work on, as a comparison's parts are."""
    job_id, plain = secrets.token_hex(6), config.model_dump(mode="json")
    return store.add_job(job_id, "train", plain, Order(parent="c"), queue=ANYWHERE)


def working(store: Store, job_id: str, hosts: tuple[str, ...] = WORKERS) -> JobRecord:
    """Wait until one of these hosts has told a few metrics of a job."""
    return until(lambda: store.job(job_id), lambda job: job.host in hosts and job.last_step >= 3)


def finished(store: Store, job_id: str) -> JobRecord:
    record: JobRecord = until(lambda: store.job(job_id), lambda job: job.ended)
    assert (record.state, record.error) == ("succeeded", "")
    return record


def outcome(store: Store, job_id: str) -> dict[str, Any]:
    """Return all that a training leaves, but for times."""
    result = store.result(job_id) or {}
    told = store.metrics(job_id)
    files: Files = store.files
    kept = load_state(files, checkpoint_file(job_id))
    curve = [point | {"seconds": 0} for point in result["curve"]]
    return {
        "result": result | {"seconds": 0, "curve": curve},
        "steps": [m.step for m in told],
        "metrics": [m.metric | {"seconds": 0} for m in told],
        **{name: _plain(kept[name]) for name in ("network", "twin")},
    }


def _plain(state: dict[str, torch.Tensor]) -> dict[str, list[Any]]:
    return {name: value.tolist() for name, value in state.items()}


def test_a_second_service_of_a_name_does_not_start(hosts: Cluster, bench_url: str) -> None:
    second = hosts.launch("bench", "serve", "--port", "0", "--data", str(hosts.folder / "second"))
    output, _ = second.communicate(timeout=LIMIT_S)
    assert (second.returncode, output) == (1, "")
    assert "host name 'bench': another service of this name is using" in hosts.log("bench")


def test_a_service_without_a_bench_takes_jobs_for_those_that_have_one(
    hosts: Cluster, store: Store, config: TrainConfig
) -> None:
    with Client(hosts.front(), secret=cluster.SECRET) as front:
        job = front.submit(config.model_dump(mode="json") | {"epochs": 1})
        assert [event.kind for event in front.watch(job["id"])][-1] == "end"
        found = front.job(job["id"])
    assert (found["state"], found["host"]) == ("succeeded", "bench")
    hosts.kill("front")


def test_what_a_killed_worker_was_doing_is_taken_over(
    hosts: Cluster, store: Store, config: TrainConfig, expected: dict[str, Any]
) -> None:
    job_id = part(store, config)
    first = working(store, job_id).host
    hosts.kill(first)
    record = finished(store, job_id)
    assert record.host != first
    assert record.run > 1
    assert outcome(store, job_id) == expected
    hosts.workers(first)


def test_a_frozen_worker_that_wakes_measures_nothing_more(
    hosts: Cluster, store: Store, config: TrainConfig, expected: dict[str, Any]
) -> None:
    job_id = part(store, config)
    first = working(store, job_id)
    frozen = hosts.processes[first.host]
    frozen.send_signal(signal.SIGSTOP)
    others = (*WORKERS, "bench")
    until(lambda: store.job(job_id), lambda job: job.host != first.host and job.host in others)
    frozen.send_signal(signal.SIGCONT)
    assert finished(store, job_id).host != first.host
    assert outcome(store, job_id) == expected
    # it has found out, and works on: on what comes next
    until(
        lambda: hosts.log(first.host), lambda text: "does not count" in text or "taken it" in text
    )


def test_workers_of_two_hosts_take_the_most_urgent_job_first(
    hosts: Cluster, store: Store, config: TrainConfig
) -> None:
    for name in WORKERS:
        hosts.kill(name)
    short = config.model_copy(update={"epochs": 1})
    urgent = {p: part(store, short.model_copy(update={"priority": p})) for p in range(6)}
    hosts.workers(*WORKERS, options=("--workers", "1"))
    ended = {priority: finished(store, job_id) for priority, job_id in urgent.items()}
    order = sorted(ended, key=lambda priority: ended[priority].started_s or 0.0)
    # two start at the same moment, in either order
    assert all(order[i] > order[i + 2] for i in range(4)), order
    assert {job.host for job in ended.values()} == set(WORKERS)
