"""No driver, torch, database or file work runs on the event loop's thread.

Each kind of work has a watcher that knows in which thread it happened; the first tests show that
the watchers see, the last one uses the whole service and has them find nothing.
"""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import torch
from torch.overrides import TorchFunctionMode

from lab.systems.optics import OpticsSystem

pytestmark = pytest.mark.anyio


class Watch:
    """What was done on the watched thread, and the threads on which instruments were used."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.thread: int | None = threading.get_ident()
        self.found: list[str] = []
        self.instruments: set[int] = set()
        self.statements: set[int] = set()

    def note(self, what: str) -> None:
        if threading.get_ident() == self.thread:
            self.found.append(what)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """See every file that is opened, made, renamed or removed below the data folder."""
        if self.thread is None or threading.get_ident() != self.thread:
            return
        if event == "sqlite3.connect" or any(
            isinstance(a, str | Path) and str(a).startswith(self.folder) for a in arguments
        ):
            self.note(f"{event} {arguments[:1]}")


class SeeTorch(TorchFunctionMode):
    """See every torch function that the thread calls which entered this mode."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.watch.note(f"torch {func.__name__}")
        return func(*args, **(kwargs or {}))


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    watch = Watch(tmp_path)
    for name in ("start", "shutdown", "_measure_row"):
        monkeypatch.setattr(OpticsSystem, name, watched(getattr(OpticsSystem, name), watch))
    sys.addaudithook(watch.audit)  # there is no way to remove it: `thread = None` ends it
    with SeeTorch(watch):
        yield watch
    watch.thread = None


def watched(method, watch: Watch):
    def call(*args):
        watch.note(f"instrument {method.__name__}")
        watch.instruments.add(threading.get_ident())
        return method(*args)

    return call


def watch_statements(engine: sa.Engine, watch: Watch) -> None:
    def see(connection, cursor, statement, *rest) -> None:
        watch.note(f"sql {statement}")
        watch.statements.add(threading.get_ident())

    sa.event.listen(engine, "before_cursor_execute", see)


def test_the_watchers_see(watch, tmp_path):
    torch.zeros(2).add(1)
    assert any("add" in what for what in watch.found)
    watch.found.clear()
    (tmp_path / "file").write_text("a")
    assert any(what.startswith("open") for what in watch.found)
    watch.found.clear()
    (tmp_path / "file").rename(tmp_path / "other")
    assert any(what.startswith("os.rename") for what in watch.found)
    watch.found.clear()
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'a.sqlite'}")
    watch_statements(engine, watch)
    with engine.connect() as connection:
        connection.execute(sa.text("select 1"))
    engine.dispose()
    assert any(what.startswith("sqlite3.connect") for what in watch.found)
    assert any(what.startswith("sql select") for what in watch.found)


async def test_the_watchers_see_instruments(watch, app):
    app.state.lab.bench.systems["optics"].shutdown()
    assert "instrument shutdown" in watch.found


async def test_nothing_blocking_runs_on_the_loops_thread(watch, app, http, job_body, follow):
    watch_statements(app.state.lab.store.engine, watch)
    rows = {"x": [[0.5] * 50], "theta": [[0.5] * 50]}
    assert (await http.post("/systems/optics/passes", json=rows)).status_code == 200
    body = {"kind": "neural", "rows": 20, "seed": 1}
    fit = (await http.post("/twins", json=body)).json()
    job = (await http.post("/jobs", json={**job_body, "method": "pat-refit"})).json()
    assert (await follow(fit["id"]))["state"] == "succeeded"
    assert (await follow(job["id"]))["state"] == "succeeded"
    for path in ("result", "checkpoint", "metrics", "events"):
        assert (await http.get(f"/jobs/{job['id']}/{path}")).status_code == 200
    assert (await http.get("/twins")).status_code == 200
    assert (await http.get("/systems")).status_code == 200
    assert (await http.post("/systems/optics/recover")).status_code == 200
    long = (await http.post("/jobs", json={**job_body, "epochs": 10_000})).json()
    await http.post(f"/jobs/{long['id']}/cancel")
    await follow(long["id"])
    await app.state.lab.stop()
    assert watch.found == []
    assert watch.instruments  # the watchers were at work
    assert watch.statements
