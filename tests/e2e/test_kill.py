"""A short version of `make kill`: a training survives SIGKILLs of its service."""

import os
from pathlib import Path

import pytest

from kill_training import kill_jobs


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_killed_service_loses_nothing(data_folder: Path) -> None:
    kills, seed = 0, int.from_bytes(os.urandom(4))
    for tally in kill_jobs(3, seed, "vowels", ["pat-refit, checks"]):
        assert tally.wrong == [], tally
        kills += len(tally.moments)
    assert kills >= 3
