"""Fixtures of the scheduler's tests on a virtual clock."""

import time
from typing import Any

import pytest

from virtual_time import VirtualTimeLoop, running_loop


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Run tests that use `virtual_time` on a virtual clock, and the others as everywhere."""
    if "virtual_time" in request.fixturenames:
        return "asyncio", {"loop_factory": VirtualTimeLoop}
    return "asyncio"


@pytest.fixture
async def virtual_time(monkeypatch: pytest.MonkeyPatch) -> VirtualTimeLoop:
    """Let `time.time` follow the virtual clock too; return the clock."""
    clock = running_loop()
    monkeypatch.setattr(time, "time", clock.wall_time)
    return clock
