"""The service as a user starts it: a process of its own, on the loopback, stopped by signals."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from lab.client import Client
from lab.store import SHOTS_AHEAD

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


def stop(process: subprocess.Popen[str], number: int) -> tuple[int, str]:
    process.send_signal(number)
    _, errors = process.communicate(timeout=LIMIT_S)
    return process.returncode, errors


def shots(folder: Path) -> int:
    with sqlite3.connect(folder / "pnnlab.sqlite") as database:
        [(number,)] = database.execute("select next_shot from shots").fetchall()
    database.close()
    return number


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_train_watch_cancel_stop_and_start_again(tmp_path):
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

        running = client.submit(LONG, twin={"id": result["twin"]})["id"]
        for event in client.watch(running):
            if event.data.get("kind") == "epoch":
                client.cancel(running)
        assert client.job(running)["state"] == "cancelled"
        measured = client.system("optics")["status"]["rows_done"]

        left = client.submit(LONG, twin={"id": result["twin"]})["id"]
        watching = client.watch(left)
        while next(watching).data.get("kind") != "epoch":
            pass
        code, errors = stop(process, signal.SIGTERM)
        assert (code, errors) == (0, "")
        assert [event.data["state"] for event in watching if event.kind == "end"] == ["cancelled"]
    assert measured < shots(tmp_path) < SHOTS_AHEAD

    with service(tmp_path) as (process, client):
        states = {job["id"]: job["state"] for job in client.jobs()}
        assert states == {job: "succeeded", running: "cancelled", left: "cancelled"}
        assert client.result(job) == result
        assert client.system("optics")["status"]["next_shot"] == shots_before(client)
        assert stop(process, signal.SIGINT) == (0, "")


def shots_before(client: Client) -> int:
    """Return the next shot number that a measurement really gets."""
    return client.measure("optics", [[0.0] * 50], [[0.0] * 50])["first_shot"]


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_after_a_crash_the_running_job_is_unknown(tmp_path):
    with service(tmp_path) as (process, client):
        job = client.submit(LONG)["id"]
        for event in client.watch(job):
            if event.data.get("kind") == "fit":
                break
        process.kill()
        process.wait(LIMIT_S)
    with service(tmp_path) as (process, client):
        record = client.job(job)
        assert record["state"] == "unknown"
        assert "without finishing" in record["error"]
        assert [event.kind for event in client.watch(job)][-1] == "end"
        assert client.metrics(job)
        assert client.system("optics")["status"]["next_shot"] == SHOTS_AHEAD
        code, errors = stop(process, signal.SIGHUP)
        assert code == 0
        assert f"job {job} is unknown" in errors


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "server", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)


def test_what_keeps_the_service_from_starting_is_one_line(tmp_path):
    bad = tmp_path / "bench.toml"
    bad.write_text(BENCH.read_text().replace("points = 101", 'points = "many"'))
    with service(tmp_path / "data") as (process, client):
        port = client.url.rsplit(":", 1)[1]
        taken = run("serve", "--bench", str(BENCH), "--port", port, "--data", str(tmp_path / "b"))
        owned = run("serve", "--bench", str(BENCH), "--port", "0", "--data", str(tmp_path / "data"))
        unusable = run("serve", "--bench", str(bad), "--port", "0", "--data", str(tmp_path / "c"))
        stop(process, signal.SIGTERM)
    for failed, says in [
        (taken, f"cannot listen on 127.0.0.1, port {port}"),
        (owned, "another service is using it"),
        (unusable, "instruments.spectrometer"),
    ]:
        assert failed.returncode == 1
        assert says in failed.stderr
        assert failed.stderr.count("\n") == 1
        assert failed.stdout == ""
