"""A connection that is lost, at whatever moment: no row is half used, and nothing is left lit."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from drivers.errors import ConnectionLost
from drivers.mock.faults import Fault
from far_end import FarEnd
from lab.bench import open_bench
from lab.measurement import ForwardPass

SCHEDULER = {"recovery_attempts": 20, "recovery_delay_s": 0.01}
ROWS = 20


def a_pass(rng: np.random.Generator, rows: int = ROWS, **options: bool) -> ForwardPass:
    """Return rows that all differ, with values that the instrument's text keeps exactly."""
    x, theta = (rng.choice(9999, (2, rows, 1), replace=False) + 1) / 10_000
    return ForwardPass("lamp", x, theta, **options)


@pytest.mark.parametrize("seed", range(2))
async def test_rows_at_random_drops_are_void_and_measured_again(
    far_end: FarEnd, tmp_path: Path, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    with open_bench(far_end.bench(scheduler=SCHEDULER), start=False) as bench:
        async with bench.scheduler() as scheduler:
            faults = 0
            for _ in range(6):
                wanted = a_pass(rng)
                measuring = asyncio.create_task(scheduler.submit(wanted))
                await asyncio.sleep(rng.uniform(0.0, 0.15))
                if rng.random() < 0.5:
                    await asyncio.to_thread(far_end.cut)
                else:
                    on = str(rng.choice(["", "loadprofile", "getprofile", "devinfo"]))
                    await asyncio.to_thread(far_end.inject, Fault.DROP, on)
                try:
                    measured = await measuring
                except ConnectionLost:  # two drops in one pass: it is void as a whole
                    faults += 1
                    continue
                np.testing.assert_array_equal(measured.y, np.hstack([wanted.x, wanted.theta]))
                assert np.all(np.diff(measured.shots) > 0)
                faults += int(measured.retried.sum())
            assert faults > 0
    assert far_end.state()["blocked"]


async def test_after_the_recovery_all_is_dark_until_somebody_drives_it(far_end: FarEnd) -> None:
    rng = np.random.default_rng(0)
    with open_bench(far_end.bench(scheduler=SCHEDULER), start=False) as bench:
        async with bench.scheduler() as scheduler:
            await scheduler.submit(a_pass(rng, 1))
            assert not far_end.state()["blocked"]
            far_end.inject(Fault.DROP, "getprofile")
            with pytest.raises(ConnectionLost, match=r"^shaper: getprofile"):
                await scheduler.submit(a_pass(rng, 1, repeatable=False))
            await scheduler.recover("lamp")
            assert scheduler.status("lamp").state == "ok"
            assert far_end.state()["blocked"]
            wanted = a_pass(rng, 1)
            measured = await scheduler.submit(wanted)
            np.testing.assert_array_equal(measured.y, np.hstack([wanted.x, wanted.theta]))
