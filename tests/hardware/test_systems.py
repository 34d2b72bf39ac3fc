"""Each system: one row, how well rows repeat, what a row takes, and that it goes dark."""

import time

import numpy as np
import pytest

ROWS = 20
MIDDLE = {"channels": (0.25, 0.75), "series": (0.4, 0.6)}
"""Normalised; two series are added, and their middle is silence."""
MOST_SPREAD = 0.3  # of a row's rms: more is no measurement


def drives(bench, system, rows):
    """Return `rows` equal rows of x and theta, from the middle of their ranges."""
    d = bench.system(system).description
    low, high = MIDDLE[d.drives]
    rng = np.random.default_rng(1)
    x, theta = (s.to_physical(rng.uniform(low, high, (1, *s.shape))) for s in (d.x, d.theta))
    return np.repeat(x, rows, axis=0), np.repeat(theta, rows, axis=0)


def test_one_row_is_a_measurement(bench, system, tell):
    rows = bench.system(system).transform(*drives(bench, system, 1))
    unit = bench.system(system).description.y.unit
    tell(f"{system}: one row, y from {rows.y.min():.4g} to {rows.y.max():.4g} {unit}")
    assert np.isfinite(rows.y).all()
    assert np.ptp(rows.y) > 0, "every value is the same: is the light, or the sound, on?"
    assert not rows.saturated.any(), "saturated in the middle of the range"
    assert rows.out_of_sync is None or not rows.out_of_sync.any()


def test_rows_repeat(bench, system, tell):
    rows = bench.system(system).transform(*drives(bench, system, ROWS))
    rms = np.sqrt(np.mean(rows.y**2))
    spread = np.sqrt(np.mean(rows.y.var(axis=0, ddof=1))) / rms
    drift = np.sqrt(np.mean((rows.y[-1] - rows.y[0]) ** 2)) / rms
    tell(f"{system}: noise {spread:.3%} of a row's rms ({ROWS} rows), first to last {drift:.3%}")
    assert spread > 0, "rows are equal to the last digit: is that a measurement?"
    assert spread < MOST_SPREAD


def test_a_row_takes_what_the_bench_file_says(bench, system, tell):
    """At most twice as long, and a twentieth of a second for the wire."""
    declared = bench.system(system).description.row_time_s
    count = max(3, min(bench.system(system).batch_rows, 20))
    begin = time.monotonic()
    bench.system(system).transform(*drives(bench, system, count))
    took = (time.monotonic() - begin) / count
    tell(f"{system}: a row takes {took:.4g} s, row_time_s declares {declared:.4g} s")
    assert took <= 2 * declared + 0.05, "row_time_s of the instruments is too short"


def test_another_drive_gives_another_answer(bench, system):
    """By more than the noise: else the drive does not reach what is measured."""
    x, theta = drives(bench, system, ROWS)
    d = bench.system(system).description
    x[ROWS // 2 :] = d.x.to_physical(np.full(d.x.shape, MIDDLE[d.drives][0]))
    y = bench.system(system).transform(x, theta).y
    one, other = y[: ROWS // 2], y[ROWS // 2 :]
    noise = np.sqrt(np.mean(one.var(axis=0, ddof=1)))
    assert np.sqrt(np.mean((one.mean(axis=0) - other.mean(axis=0)) ** 2)) > noise


def test_a_blocked_shaper_leaves_no_light(bench, system, tell):
    opened = bench.system(system)
    if not (hasattr(opened, "shaper") and hasattr(opened, "spectrometer")):
        pytest.skip("no light")
    opened.transform(*drives(bench, system, 1))
    bright = opened.spectrometer.measure()
    opened.shaper.shutdown()
    dark = opened.spectrometer.measure()
    tell(f"{system}: dark {dark.mean():.3g} W, lit {bright.mean():.3g} W (means)")
    assert dark.mean() < 0.1 * bright.mean()
