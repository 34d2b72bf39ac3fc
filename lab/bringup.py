"""Bring-up of a bench: every instrument is known, and every system's numbers are what they should.

What is checked follows from what a system and its instruments offer (a dark and a reference row, a
loopback), not from what products they are. Nothing here knows how results are shown.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from drivers.errors import DriverError, LimitError, reason
from drivers.instrument import Instrument, LoopbackDelay, check_identity
from drivers.spec import Array
from lab.errors import LabError
from lab.permits import Permit
from lab.systems.base import PhysicalSystem, Rows

DARK_AT_MOST = 20.0
"""% of the reference: more is light that leaks, hum, or too large an offset."""
REFERENCE_AT_LEAST = 1.0
"""% of full scale: less is a lamp that is off, a cable that is loose."""
NOISE_AT_MOST = 10.0
"""% of the reference, standard deviation of one output: with more, single rows say little."""
DARK_NOISE_AT_MOST = 10.0
"""% of the reference, standard deviation of one output of a dark row."""
ROW_TIME_AT_MOST = 1.5
"""Times the declared time of a row: with more, estimates and schedules are wrong."""
FEWEST_ROWS = 16
_LONGEST_S = 2.0  # what a run of rows should take, where more than FEWEST_ROWS fit into a call


@dataclass(frozen=True)
class Check:
    """One thing tried: which check of what, whether it passed, what was seen.

    value, unit: what was measured, if a number; low, high: the limits it was judged by (None: no
    limit).
    instrument: empty for a check of a whole system.
    """

    check: str
    system: str
    instrument: str
    ok: bool
    detail: str
    value: float | None = None
    unit: str = ""
    low: float | None = None
    high: float | None = None


def bring_up(system: PhysicalSystem, expected: Mapping[str, str | None]) -> Iterator[Check]:
    """Yield what is found, one check after the other; failures are results, not exceptions.

    expected: by instrument, the regular expression that its identity must contain. A system is
    driven only if every instrument is the expected one; it ends in its safe state in any case.
    """
    name = system.description.name
    known = True
    for instrument in system.instruments:
        result = _identity(name, instrument, expected.get(instrument.name))
        known &= result.ok
        yield result
    if known:
        yield from _driven(system)
    yield _tried("safe-state", name, lambda: _safe(system))


def permitted(bench: str, permits: Sequence[Permit]) -> Iterator[Check]:
    """Yield whether the bench may be driven, by its interlock and guard; nothing if it has none."""

    def ask() -> str:
        for permit in permits:
            permit.check()
        return "the bench may be driven"

    if permits:
        yield _tried("permits", bench, ask)


def _identity(system: str, instrument: Instrument, expected: str | None) -> Check:
    def identify() -> str:
        identity = instrument.identify()
        check_identity(instrument.name, identity, expected)
        return f"{identity} ({f'expected /{expected}/' if expected else 'any is accepted'})"

    return _tried("identity", system, identify, instrument.name)


def _driven(system: PhysicalSystem) -> Iterator[Check]:
    """Yield the checks that drive the system, as far as they get."""
    name = system.description.name
    started = _tried("start", name, lambda: _start(system))
    yield started
    if not started.ok:
        return
    rows = _rows_at_once(system)
    try:
        row, share = strongest_row(system)
        reference, row_time_s = _repeat(system, row, rows)
    except (DriverError, LabError) as error:
        yield Check("reference", name, "", False, reason(error))
        return
    yield from _reference(system, reference, share)
    yield from _loopbacks(system)
    yield _row_time(system, row_time_s, rows)
    try:
        dark, _ = _repeat(system, system.dark_row(), rows)
    except (DriverError, LabError) as error:
        yield Check("dark", name, "", False, reason(error))
        return
    yield from _dark(system, dark, _level(reference.y))


def strongest_row(system: PhysicalSystem) -> tuple[tuple[Array, Array], float]:
    """Return the reference row, halved towards the dark one until the limits allow it; its share.

    Nothing is sent. Raises LimitError if even a hundredth is refused.
    """
    bright, dark = system.reference_row(), system.dark_row()
    share = 1.0
    while True:
        x, theta = (
            b if share == 1 else d + share * (b - d) for b, d in zip(bright, dark, strict=True)
        )
        try:
            system.check(x, theta)
        except LimitError:
            if share < 0.01:
                raise
            share /= 2
        else:
            return (x, theta), share


def _rows_at_once(system: PhysicalSystem) -> int:
    """Return how many rows to repeat: what fits into a call, but not for minutes."""
    row_s = system.description.row_time_s
    quick = system.batch_rows if row_s <= 0 else int(_LONGEST_S / row_s)
    return max(FEWEST_ROWS, min(system.batch_rows, quick))


def _repeat(system: PhysicalSystem, row: tuple[Array, Array], rows: int) -> tuple[Rows, float]:
    """Measure the same row again and again; return all of it and the time of one, s."""
    x, theta = (np.repeat(part, rows, axis=0) for part in row)
    began = time.perf_counter()
    measured = system.transform(x, theta)
    return measured, (time.perf_counter() - began) / rows


def _reference(system: PhysicalSystem, rows: Rows, share: float) -> Iterator[Check]:
    """Yield how strong the reference is, how noisy, and how many of its rows are flagged."""
    halved = "" if share == 1 else f", {share:.3g} of the drive: the limits allow no more"
    name, y = system.description.name, system.description.y
    level, noise = _level(rows.y), _noise(rows.y)
    peak = float(np.abs(rows.y.mean(axis=0)).max())
    yield _judged(
        *("reference", name, 100 * peak / y.high, "% of full scale"),
        low=REFERENCE_AT_LEAST,
        high=100.0,
        detail=f"peak {peak:.3g} {y.unit}, {level:.3g} {y.unit} rms{halved}",
    )
    yield _judged(
        *("noise", name, _percent(noise, level), "% of the reference"),
        high=NOISE_AT_MOST,
        detail=f"{noise:.3g} {y.unit}, one row measured {len(rows.y)} times",
    )
    of = f"of {len(rows.y)}"
    yield _judged("saturated", name, int(rows.saturated.sum()), "rows", high=0, detail=of)
    if rows.out_of_sync is not None:
        count = int(rows.out_of_sync.sum())
        yield _judged("out-of-sync", name, count, "rows", high=0, detail=of)


def _dark(system: PhysicalSystem, rows: Rows, reference: float) -> Iterator[Check]:
    """Yield level and noise of the dark rows."""
    name, unit = system.description.name, system.description.y.unit
    level, noise = _level(rows.y), _noise(rows.y)
    yield _judged(
        *("dark", name, _percent(level, reference), "% of the reference"),
        high=DARK_AT_MOST,
        detail=f"{level:.3g} {unit} rms",
    )
    yield _judged(
        *("dark-noise", name, _percent(noise, reference), "% of the reference"),
        high=DARK_NOISE_AT_MOST,
        detail=f"{noise:.3g} {unit}",
    )


def _percent(part: float, whole: float) -> float:
    """Return a share in %; not a number where there is no whole."""
    return 100 * part / whole if whole > 0 else math.nan


def _level(y: Array) -> float:
    """Return the root mean square of the mean row."""
    return float(np.sqrt((y.mean(axis=0) ** 2).mean()))


def _noise(y: Array) -> float:
    """Return the standard deviation between rows, root mean square over the outputs."""
    return float(np.sqrt(y.var(axis=0, ddof=1).mean()))


def _loopbacks(system: PhysicalSystem) -> Iterator[Check]:
    for instrument in system.instruments:
        if isinstance(instrument, LoopbackDelay):
            frames = instrument.loopback_delay_frames
            yield _judged(
                *("loopback", system.description.name, frames, "frames"),
                low=0,
                high=instrument.longest_latency_frames,
                detail=f"{1e3 * frames / instrument.frame_rate_hz:.3g} ms from output to input",
                instrument=instrument.name,
            )


def _row_time(system: PhysicalSystem, measured_s: float, rows: int) -> Check:
    declared_s = system.description.row_time_s
    limit = 1e3 * ROW_TIME_AT_MOST * declared_s if declared_s > 0 else None
    detail = f"mean of {rows} rows; declared {1e3 * declared_s:g} ms"
    name = system.description.name
    return _judged("row-time", name, 1e3 * measured_s, "ms", high=limit, detail=detail)


def _judged(
    check: str,
    system: str,
    value: float,
    unit: str,
    *,
    low: float | None = None,
    high: float | None = None,
    detail: str,
    instrument: str = "",
) -> Check:
    """Return a check that passes if `value` is within the limits; not a number never is."""
    if not math.isfinite(value):
        detail = f"cannot be told; {detail}"
        return Check(check, system, instrument, False, detail, None, unit, low, high)
    ok = (low is None or value >= low) and (high is None or value <= high)
    return Check(check, system, instrument, ok, detail, float(value), unit, low, high)


def _tried(check: str, system: str, call: Callable[[], str], instrument: str = "") -> Check:
    try:
        return Check(check, system, instrument, True, call())
    except (DriverError, LabError, ExceptionGroup) as error:
        return Check(check, system, instrument, False, reason(error))


def _start(system: PhysicalSystem) -> str:
    system.start()
    return "settings applied, in the safe state"


def _safe(system: PhysicalSystem) -> str:
    system.shutdown()
    return "confirmed by every instrument"
