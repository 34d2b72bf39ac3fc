"""A short version of `make kill`: trainings survive whoever dies, on both databases."""

import itertools
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kill_training import TARGETS, Database, Plan, kill_jobs
from postgres import why_not

KILLS = 6


@pytest.mark.skipif(sys.platform != "linux", reason="signals of POSIX, and /proc")
def test_whoever_is_killed_nothing_is_lost(data_folder: Path) -> None:
    kills, seed = [0], int.from_bytes(os.urandom(4))
    for tally in kill_jobs(_plans(kills, random.Random(seed)), seed, "vowels"):
        assert tally.wrong == [], (seed, tally)
        kills[0] += len(tally.moments)


def _plans(kills: list[int], order: random.Random) -> Iterator[Plan]:
    """Yield jobs, all three targets in each, in any order, until there were enough kills."""
    there: Database = "sqlite" if why_not() else "postgres"
    jobs = itertools.cycle((("pat-refit, checks", "sqlite"), ("pat, 2 parts", there)))
    while kills[0] < KILLS:
        yield *next(jobs), order.sample(TARGETS, 3)
