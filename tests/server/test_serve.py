"""Socket, signals and the safe end; `tests/e2e` does the same to a process of its own."""

import errno
import functools
import os
import signal
import socket
import sqlite3
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

import lab.jobs.database
import lab.jobs.engine
from drivers.errors import ConnectionLost
from lab.errors import ConfigError
from lab.jobs.data_folder import hold_folder
from lab.jobs.patience import Patience
from lab.systems.optics import OpticsSystem
from server.app import create_app
from server.cli import app as command
from server.serve import listen, serve

BENCH = Path(__file__).parents[2] / "bench.toml"


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """Return what was done to the system as a whole, in order."""
    done: list[str] = []
    for name in ("start", "shutdown"):
        method = getattr(OpticsSystem, name)
        monkeypatch.setattr(
            OpticsSystem, name, lambda s, name=name, method=method: (done.append(name), method(s))
        )
    return done


@pytest.mark.parametrize(
    "number", [n for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]
)
def test_a_signal_ends_the_service_in_the_safe_state(bench, tmp_path, calls, number):
    ready: list[str] = []
    before = signal.getsignal(signal.Signals[number])

    def when_ready(url: str) -> None:
        ready.append(url)
        assert calls == ["start"]
        signal.raise_signal(signal.Signals[number])

    serve(create_app(bench, data_dir=tmp_path), "127.0.0.1", 0, when_ready)
    assert calls == ["start", "shutdown"]
    assert signal.getsignal(signal.Signals[number]) == before
    with pytest.raises(httpx.ConnectError):
        httpx.get(ready[0])


ADVERTISED = "http://bench.lab.example:8000"


@pytest.mark.parametrize(
    ("host", "advertise", "url"),
    [
        ("127.0.0.1", None, "http://127.0.0.1:PORT"),
        ("127.0.0.1", ADVERTISED, "http://127.0.0.1:PORT"),
        ("0.0.0.0", None, f"http://{socket.gethostname()}:PORT"),
        ("0.0.0.0", ADVERTISED, ADVERTISED),
    ],
)
def test_who_listens_everywhere_says_where_others_reach_it(
    bench, tmp_path, monkeypatch, host, advertise, url
):
    ports: list[int] = []
    ready: list[str] = []

    def listening(*where):
        listener = listen(*where)
        ports.append(listener.getsockname()[1])
        return listener

    def when_ready(told: str) -> None:
        ready.append(told)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("server.serve.listen", listening)
    serve(create_app(bench, data_dir=tmp_path), host, 0, when_ready, advertise)
    assert ready == [url.replace("PORT", str(ports[0]))]


def test_a_second_signal_does_not_skip_the_safe_state(bench, tmp_path, calls):
    def twice(url: str) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    serve(create_app(bench, data_dir=tmp_path), "127.0.0.1", 0, twice)
    assert calls == ["start", "shutdown"]


def test_an_ignored_signal_stays_ignored(bench, tmp_path, calls):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    seen = []

    def when_ready(url: str) -> None:
        signal.raise_signal(signal.SIGHUP)
        seen.append(httpx.URL(url).host)
        signal.raise_signal(signal.SIGTERM)

    try:
        serve(create_app(bench, data_dir=tmp_path), "127.0.0.1", 0, when_ready)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert seen == ["127.0.0.1"]


def test_an_end_that_fails_closes_the_rest(bench, tmp_path, monkeypatch):
    def fail(system) -> None:
        raise ConnectionLost("shaper", "gone")

    monkeypatch.setattr(OpticsSystem, "shutdown", fail)
    app = create_app(bench, data_dir=tmp_path)
    serve(app, "127.0.0.1", 0, lambda url: signal.raise_signal(signal.SIGTERM))
    assert "gone" in app.state.lab.scheduler.status("optics").reason
    with hold_folder(tmp_path):
        pass


def test_a_system_that_does_not_start_is_faulted_and_the_service_is_there(
    bench, tmp_path, monkeypatch, serve_in_thread
):
    def fail(system) -> None:
        raise ConnectionLost("shaper", "nobody answers")

    monkeypatch.setattr(OpticsSystem, "start", fail)
    with serve_in_thread(create_app(bench, data_dir=tmp_path)) as url:
        health = httpx.get(f"{url}/healthz").json()
        status = httpx.get(f"{url}/api/v1/systems/optics").json()["status"]
    assert health["status"] == "degraded"
    assert status["reason"] == "shaper: nobody answers"


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(command, ["serve", *arguments])
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    return result.stderr


def test_an_address_in_use_is_one_line_and_no_instrument_is_touched(tmp_path, calls):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = refused("--bench", str(BENCH), "--data", str(tmp_path), "--port", port)
    assert line.startswith(f"pnnlab: cannot listen on 127.0.0.1, port {port}: ")
    assert calls == []


def test_a_data_folder_in_use_is_one_line_and_no_instrument_is_touched(tmp_path, calls):
    with hold_folder(tmp_path):
        line = refused("--bench", str(BENCH), "--data", str(tmp_path), "--port", "0")
    assert line == f"pnnlab: data folder {tmp_path}: another service is using it\n"
    assert calls == []


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_a_data_folder_that_cannot_be_written_is_one_line(tmp_path, calls, monkeypatch, code):
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "mkdir", fail)
    line = refused("--bench", str(BENCH), "--data", str(tmp_path), "--port", "0")
    assert line == f"pnnlab: data folder {tmp_path}: cannot be used ({os.strerror(code)})\n"
    assert calls == []


def test_a_database_for_which_there_is_no_room_is_one_line(tmp_path, calls, monkeypatch):
    monkeypatch.setattr(lab.jobs.database, "_SQLITE", ("max_page_count=1",))
    monkeypatch.setattr(lab.jobs.database, "Patience", functools.partial(Patience, limit_s=0.0))
    line = refused("--bench", str(BENCH), "--data", str(tmp_path), "--port", "0")
    assert "the database is out of reach (database or disk is full)" in line
    assert calls == []


def test_an_engine_for_which_there_is_no_room_is_one_line(tmp_path, calls, monkeypatch):
    def fail(url: str) -> None:
        full = sqlite3.OperationalError("database or disk is full")
        raise sa.exc.OperationalError(None, None, full)

    monkeypatch.setattr(lab.jobs.engine, "run_dbos_database_migrations", fail)
    line = refused("--bench", str(BENCH), "--data", str(tmp_path), "--port", "0")
    assert "the database is out of reach (database or disk is full)" in line
    assert calls == ["start", "shutdown"]


def test_a_bench_that_cannot_be_opened_is_one_line(tmp_path):
    bad = tmp_path / "bench.toml"
    bad.write_text(BENCH.read_text().replace("points = 101", "points = 7"))
    line = refused("--bench", str(bad), "--data", str(tmp_path), "--port", "0")
    assert line.startswith(f"pnnlab: {bad}: instruments.spectrometer: ")


def test_answers_do_not_wait_for_acknowledgements():
    """An answer in two pieces would take 40 ms more: Nagle's algorithm and delayed ACKs."""
    with (
        listen("127.0.0.1", 0) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_host_that_is_not_here_is_refused(bench, tmp_path):
    app = create_app(bench, data_dir=tmp_path)
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1, port 0"):
        serve(app, "192.0.2.1", 0, print)
