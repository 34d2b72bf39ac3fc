"""The sliding window of busy time."""

import numpy as np
import pytest

from lab.scheduling.duty_cycle import BusyTime


def test_nothing_was_busy_before_anything_ran() -> None:
    busy = BusyTime(opened_s=100.25)
    assert busy.share(100.25) == 0.0
    assert busy.share(110.0) == 0.0


def test_a_young_window_reaches_back_to_the_opening() -> None:
    busy = BusyTime(opened_s=100.0)
    busy.add(100.5, 101.5)
    assert busy.total_s == 1.0
    assert busy.share(102.0) == pytest.approx(0.5)


def test_an_interval_that_goes_on_counts_up_to_now() -> None:
    busy = BusyTime(opened_s=0.0, window_s=10)
    assert busy.share(20.0, busy_since_s=15.0) == pytest.approx(0.5)
    assert busy.share(200.0, busy_since_s=15.0) == 1.0


def test_what_is_older_than_the_window_is_forgotten() -> None:
    busy = BusyTime(opened_s=0.0, window_s=10)
    busy.add(0.0, 1000.0)
    assert busy.share(1000.0) == pytest.approx(1.0)
    assert busy.share(1005.0) == pytest.approx(0.5)
    assert busy.share(1011.0) == 0.0
    assert busy.total_s == 1000.0


def test_the_share_matches_direct_counting_and_memory_stays_flat() -> None:
    rng = np.random.default_rng(0)
    busy, window = BusyTime(opened_s=50.0, window_s=20), 20
    ends = 50.0 + np.cumsum(rng.exponential(0.05, size=(5000, 2)).ravel())
    intervals = ends.reshape(-1, 2)
    for start, end in intervals:
        busy.add(start, end)
    now = float(ends[-1])
    clipped = np.clip(intervals, now - window, None)
    expected = float((clipped[:, 1] - clipped[:, 0]).sum()) / window
    # the oldest of 20 seconds counts in proportion: at most 1/20 of the window is uncertain
    assert busy.share(now) == pytest.approx(expected, abs=0.05)
    assert len(busy._seconds) <= window + 1
