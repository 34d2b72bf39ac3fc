"""A scheduler with one gated system, and quiet logs."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator

import pytest

from gated_system import BY_HAND, LIMIT_S, Bench, GatedSystem
from lab.scheduling.scheduler import HardwareScheduler


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    rig = GatedSystem()
    async with asyncio.timeout(3 * LIMIT_S), HardwareScheduler({"rig": rig}, BY_HAND) as scheduler:
        yield Bench(scheduler, rig)
        rig.open_for_good()


@pytest.fixture(autouse=True)
def quiet_logs(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Keep the expected fault reports out of the test output."""
    with caplog.at_level(logging.ERROR):
        yield
