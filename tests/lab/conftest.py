"""Fixtures of the lab's tests."""

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import opened_jobs
import tiny_jobs
from lab.jobs.nursery import Nursery
from lab.jobs.runner import JobRunner
from lab.jobs.service import JobService


@pytest.fixture
async def no_leaks() -> AsyncIterator[None]:
    """Fail a test that leaves an asyncio task or a hardware thread behind."""
    before = asyncio.all_tasks()
    yield
    new = [task for task in asyncio.all_tasks() - before if not task.done()]
    left = [
        task for task in new if "TestRunner" not in getattr(task.get_coro(), "__qualname__", "")
    ]
    threads = [t.name for t in threading.enumerate() if t.name.startswith("hardware-")]
    assert not left
    assert not threads


@pytest.fixture
def no_parts_left() -> Iterator[None]:
    """Fail a test that leaves a thread of a split training step behind."""
    yield
    assert not [t for t in threading.enumerate() if t.name.startswith("micro-batch")]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, nursery: Nursery | None) -> None:
    """Let jobs train on 24 made-up samples, in processes."""
    tiny_jobs.have_done(monkeypatch, tiny_jobs.tiny)
    runner = functools.partial(JobRunner, nursery=nursery)
    monkeypatch.setattr(opened_jobs, "JobRunner", runner)


@pytest.fixture
async def jobs(tmp_path: Path, tiny: None) -> AsyncIterator[JobService]:
    """Return a service of tiny jobs, of which two run at once."""
    async with opened_jobs.open_jobs(tmp_path, workers=2) as jobs:
        yield jobs
