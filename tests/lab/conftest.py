"""Fixtures of the lab's tests."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest


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
