"""What tests of all packages share."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
import torch

import lab.jobs.engine
import postgres
from lab.jobs import database
from lab.jobs.nursery import CAN_FORK, Nursery

# the arithmetic here is small: more threads only fight over the cores
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _soon() -> Iterator[None]:
    """Let jobs of services in this process start soon after they were submitted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lab.jobs.engine, "_POLL_S", 0.05)
        yield


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests on asyncio, the only event loop that the service runs on."""
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def _no_power_cuts() -> Iterator[None]:
    """Let the tests of this process not wait for the disk: only a power cut would show it."""

    def let_go(connection: object, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous=OFF")

    hasty = [pragma.replace("=FULL", "=OFF") for pragma in database._SQLITE]
    assert "synchronous=OFF" in hasty
    sa.event.listen(sa.Engine, "connect", let_go)  # the engine of the jobs has a database too
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "_SQLITE", tuple(hasty))
        patch.setattr(os, "fsync", lambda handle: None)
        yield
    sa.event.remove(sa.Engine, "connect", let_go)


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery | None]:
    """Return where the trainer processes of all tests come from, which need import but once."""
    if not CAN_FORK:
        yield None
        return
    with closing(Nursery()) as nursery:
        yield nursery


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Return the folder of the real data files, or skip the test where there is none."""
    folder = os.environ.get("PNNLAB_DATA")
    if not folder:
        pytest.skip("needs the real data files: PNNLAB_DATA does not name their folder")
    if not Path(folder).is_dir():
        pytest.skip(f"needs the real data files: PNNLAB_DATA={folder} is no folder")
    return Path(folder)


@pytest.fixture(scope="session")
def _postgres() -> str | None:
    return postgres.why_not()


@pytest.fixture
def postgres_url(_postgres: str | None) -> Iterator[str]:
    """Return the URL of an empty PostgreSQL database, or skip the test where there is no server."""
    if _postgres is not None:
        pytest.skip(_postgres)
    with postgres.open_database() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str | None:
    """Run a test on both databases; return a URL for `Store`, None for its file of SQLite."""
    if request.param == "sqlite":
        return None
    url: str = request.getfixturevalue("postgres_url")
    return url
