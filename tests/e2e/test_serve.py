"""The service as a user starts it: a process of its own, on the loopback, stopped by signals."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from lab.client import Client
from lab.errors import ReservationLost
from lab.events import Event
from lab.jobs.store_shots import SHOTS_AHEAD

BENCH = Path(__file__).parents[2] / "bench.toml"
LIMIT_S = 60.0

# 435 rows of hardware at most: the test samples of one layer, and the twin's
QUICK = {
    "task": "digits",
    "method": "in-silico",
    "epochs": 1,
    "network": {"layers": 1},
    "twin": {"rows": 20, "kind": "neural"},
}
LONG = {**QUICK, "method": "pat", "epochs": 10_000}


@contextmanager
def service(folder: Path) -> Iterator[tuple[subprocess.Popen[str], Client]]:
    """Start `pnnlab serve` on a free port, wait until it is ready; kill it if it is left over."""
    command = [sys.executable, "-m", "server", "serve", "--port", "0"]
    command += ["--bench", str(BENCH), "--data", str(folder)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("pnnlab: bench optics-simulated ready at http://127.0.0.1:"), (
                process.communicate()[1]
            )
            with Client(line.split()[-1]) as client:
                yield process, client
        finally:
            process.kill()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Client]]:
    """Return the folder and a client of a service that does no jobs."""
    folder = tmp_path_factory.mktemp("running")
    with service(folder) as (_, client):
        yield folder, client


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_train_watch_cancel_crash_and_start_again(tmp_path):
    with service(tmp_path) as (process, client):
        job = client.submit(QUICK)["id"]
        events = list(client.watch(job))
        assert events[-1].data["state"] == "succeeded", events[-1].data["error"]
        assert [e.data["epoch"] for e in events if e.data.get("kind") == "epoch"] == [1]
        result = client.result(job)
        assert 0 < result["test_accuracy"] <= 1
        assert result["baseline"] > 0.9
        path = client.checkpoint(job, tmp_path / "network.pt")
        assert torch.load(path, weights_only=True)["config"]["task"] == "digits"
        cancelled = client.submit(LONG, twin={"id": result["twin"]})["id"]
        for event in client.watch(cancelled):
            if event.data.get("kind") == "epoch":
                client.cancel(cancelled)
        assert client.job(cancelled)["state"] == "cancelled"
        crashed = client.submit(LONG, twin={"rows": 20, "kind": "neural", "seed": 1})["id"]
        watch_a_metric(client, crashed)
        process.kill()
        process.wait(LIMIT_S)

    with service(tmp_path) as (process, client):
        states = {record["id"]: record["state"] for record in client.jobs()}
        assert states == {job: "succeeded", cancelled: "cancelled", crashed: "running"}
        watch_a_metric(client, crashed)
        client.cancel(crashed)
        assert list(client.watch(crashed))[-1].data["state"] == "cancelled"
        assert client.result(job) == result
        assert SHOTS_AHEAD <= client.system("optics")["status"]["next_shot"] < 2 * SHOTS_AHEAD
        stopped = client.submit(LONG, twin={"rows": 20, "kind": "neural", "seed": 2})["id"]
        watch_a_metric(client, stopped)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0
        assert errors == ""
    with sqlite3.connect(tmp_path / "pnnlab.sqlite") as database:
        [(next_shot,)] = database.execute("select next_shot from shots").fetchall()
    database.close()
    assert SHOTS_AHEAD < next_shot < 2 * SHOTS_AHEAD


def test_a_second_service_on_the_same_data_refuses_and_the_first_goes_on(running):
    folder, client = running
    command = [sys.executable, "-m", "server", "serve", "--port", "0"]
    command += ["--bench", str(BENCH), "--data", str(folder)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    assert second.returncode == 1
    assert second.stdout == ""
    assert second.stderr == f"pnnlab: data folder {folder}: another service is using it\n"
    assert client.system("optics")["status"]["state"] == "ok"
    assert client.jobs() == []


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_reservation_ends_by_itself_or_with_who_holds_it(running):
    row = {"x": np.full((1, 50), 0.5), "theta": np.zeros((1, 50))}
    _, client = running
    forgotten = client.reserve("optics", ttl_s=1)  # without `with`: nobody sends heartbeats
    assert client.measure("optics", **row, reservation=forgotten.number)["shots"] == [0]
    assert client.measure("optics", **row)["shots"] == [1]  # waits until it has ended
    with pytest.raises(ReservationLost, match="has ended"):
        client.measure("optics", **row, reservation=forgotten.number)
    command = [sys.executable, "-m", "server", "reserve", "optics", "--hold", "--json"]
    with subprocess.Popen(
        [*command, "--url", client.url], stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            held = json.loads(holder.stdout.readline())
            shown = client.system("optics")["status"]["reservation"]
            assert shown["number"] == held["number"] > forgotten.granted["number"]
            holder.send_signal(signal.SIGINT)
            assert holder.wait(LIMIT_S) == 0
        finally:
            holder.kill()
    assert client.system("optics")["status"]["reservation"] is None


def watch_a_metric(client: Client, job_id: str) -> Iterator[Event]:
    """Return the rest of a job's events after its first metric."""
    watching = client.watch(job_id)
    while next(watching).kind != "metric":
        pass
    return watching
