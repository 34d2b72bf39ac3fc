"""One instrument at the far end of a real wire for all tests of a file."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from far_end import LIMIT_S, FarEnd, open_far_end


@pytest.fixture(scope="module")
def far_end() -> Iterator[FarEnd]:
    with open_far_end() as far:
        yield far


@pytest.fixture
def report(until: Callable[[Callable[[], object]], None]) -> Callable[[Path], str]:
    """Return what waits for a guard's log to be written, and reads it."""

    def read(log: Path) -> str:
        until(lambda: log.exists() and log.read_text().endswith("\n"))
        return log.read_text()

    return read


@pytest.fixture
def until() -> Callable[[Callable[[], object]], None]:
    """Return what waits for a condition that another thread or process brings about."""

    def wait(condition: Callable[[], object]) -> None:
        ends_s = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < ends_s, "it never came about"
            time.sleep(0.01)

    return wait
