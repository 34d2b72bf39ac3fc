"""What the examples of the documentation run on: a service with small jobs, a shell, Python."""

import asyncio
import re
import shlex
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from typer.testing import CliRunner

import server.lifespan
import tiny_jobs
from documentation import ADDRESS
from lab.bench_config import BenchConfig
from lab.jobs.nursery import Nursery
from server.app import create_app
from server.cli import app
from server.serve import LabServer, listen, run

LIMIT_S = 60.0


@contextmanager
def small_jobs(nursery: Nursery | None) -> Iterator[None]:
    """Let jobs train on few samples, and fit their twins in three steps, in processes."""
    with pytest.MonkeyPatch.context() as patch:
        tiny_jobs.have_done(patch, tiny_jobs.small)
        patch.setattr(server.lifespan, "jobs_compute_in", lambda: nullcontext(nursery))
        yield


@contextmanager
def serving(bench: BenchConfig, folder: Path) -> Iterator[str]:
    """Serve a bench on the loopback, in a thread; give its address.

    One at a time: a process runs the jobs of one service only.
    """
    changed, ready = threading.Event(), threading.Event()

    def when_ready() -> None:
        ready.set()
        changed.set()

    def work() -> None:
        try:
            asyncio.run(run(server, server.config.app, listener))
        finally:
            changed.set()

    with listen("127.0.0.1", 0) as listener:
        server = LabServer(create_app(bench, data_dir=folder), when_ready)
        thread = threading.Thread(target=work)
        thread.start()
        try:
            changed.wait(LIMIT_S)
            assert ready.is_set(), "the service did not start"
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(LIMIT_S)
    assert not thread.is_alive(), "the service did not stop"


def execute(code: str, url: str) -> None:
    assert ADDRESS in code
    exec(compile(code.replace(ADDRESS, url), "<docs>", "exec"), {})


def pnnlab(command: str, url: str, *more: str) -> str:
    words = [*shlex.split(command)[1:], *more]
    result = CliRunner().invoke(app, words, env={"PNNLAB_URL": url})
    assert result.exit_code == 0, result.output
    return result.stdout


def without_numbers(text: str) -> str:
    return re.sub(r"\d+(\.\d+)?(e-\d+)?", "#", text)


def labels(text: str) -> list[str]:
    """Return what each line of a result says, without its numbers and the job's id."""
    without_id = re.sub(r"\b[0-9a-f]{12}\b", "", text)
    return [re.sub(r"[ \d.,%]+", " ", line) for line in without_id.splitlines()]
