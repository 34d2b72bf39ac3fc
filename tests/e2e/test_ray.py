"""`pnnlab serve` and `pnnlab worker` with --ray, as a user starts them."""

import importlib.util
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

import cluster
from cluster import Cluster
from lab.client import Client

BENCH = Path(__file__).parents[2] / "bench.toml"
LIMIT_S = 120.0  # no wait in these tests lasts so long unless something hangs


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_a_strange_address_is_one_line(tmp_path: Path, command: str) -> None:
    options = ["--bench", str(BENCH), "--port", "0"] if command == "serve" else []
    found = subprocess.run(
        [sys.executable, "-m", "server", command, "--ray", "somewhere", *options],
        capture_output=True,
        cwd=tmp_path,
        env={**os.environ, "PNNLAB_DATABASE_URL": "postgresql://127.0.0.1:9/nowhere"},
        text=True,
        timeout=LIMIT_S,
    )
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr == "pnnlab: ray: 'somewhere' is neither auto, nor local, nor HOST:PORT\n"


@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="needs the extra ray: Ray is not installed"
)
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux")
def test_a_worker_on_a_cluster_works_for_a_bench_and_leaves_nothing(
    postgres_url: str, tmp_path: Path
) -> None:
    with closing(Cluster(postgres_url, tmp_path)) as hosts:
        url = hosts.bench()
        hosts.workers("wide", options=("--ray", "local", "--workers", "2"))
        with Client(url, secret=cluster.SECRET) as lab:
            job = lab.fit_twin(system="optics", rows=20, kind="neural")
            ended = list(lab.watch(job["id"]))[-1].data
            assert (ended["state"], ended["error"]) == ("succeeded", "")
            assert lab.job(job["id"])["host"] == "wide"
        process = hosts.processes["wide"]
        watched = {pid: os.pidfd_open(pid) for pid in descendants(process.pid)}
        assert len(watched) > 3  # the connection, and the cluster's own
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0
        until_s = time.monotonic() + LIMIT_S
        for pid, fd in watched.items():
            left_s = max(0.0, until_s - time.monotonic())
            assert select.select([fd], [], [], left_s)[0] == [fd], pid
            os.close(fd)
        assert hosts.log("wide") == ""


def descendants(pid: int) -> list[int]:
    """Return the processes that a process and its descendants have started."""
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    found = [int(child) for thread in threads for child in thread.read_text().split()]
    return [*found, *(below for child in found for below in descendants(child))]
