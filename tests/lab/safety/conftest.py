"""One instrument at the far end of a real wire for all tests of a file."""

from collections.abc import Iterator

import pytest

from far_end import FarEnd, open_far_end


@pytest.fixture(scope="module")
def far_end() -> Iterator[FarEnd]:
    with open_far_end() as far:
        yield far
