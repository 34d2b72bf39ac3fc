"""Check a bench: does each instrument answer, and does each system measure a row?"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from drivers.errors import DriverError
from lab.bench import open_bench
from lab.errors import LabError
from lab.systems.base import PhysicalSystem


@dataclass(frozen=True)
class Check:
    """One thing tried: what, whether it worked, and what was seen or what went wrong."""

    what: str
    ok: bool
    detail: str


def check_bench(path: Path) -> list[Check]:
    """Identify every instrument and measure one row of every system; failures are results.

    The instruments end in their safe state. Raises ConfigError for a bench file that cannot be
    used.
    """
    results: list[Check] = []
    try:
        with open_bench(path, start=False) as bench:
            for system in bench.systems.values():
                results += _check_system(system)
    except (
        DriverError,
        ExceptionGroup,
    ) as error:  # on the way to the safe state, or while connecting
        results.append(Check("bench", False, _reason(error)))
    return results


def _check_system(system: PhysicalSystem) -> Iterator[Check]:
    name = system.description.name
    answers = [_try(f"{name}: {i.name} identifies itself", i.identify) for i in system.instruments]
    yield from answers
    if not all(answer.ok for answer in answers):
        return
    yield _try(f"{name}: one row", lambda: _one_row(system))
    yield _try(f"{name}: safe state", lambda: _safe(system))


def _try(what: str, call: Callable[[], str]) -> Check:
    try:
        return Check(what, True, call())
    except (DriverError, LabError, ExceptionGroup) as error:
        return Check(what, False, _reason(error))


def _reason(error: Exception) -> str:
    """Return what went wrong on one line; of a group, what went wrong in each of its parts."""
    if isinstance(error, ExceptionGroup):
        return f"{error.message}: {'; '.join(_reason(part) for part in error.exceptions)}"
    return " ".join(str(error).split()) or type(error).__name__


def _one_row(system: PhysicalSystem) -> str:
    """Measure with every value in the middle of its range."""
    d = system.description
    system.start()
    x, theta = (s.to_physical(np.full((1, *s.shape), 0.5)) for s in (d.x, d.theta))
    rows = system.transform(x, theta)
    saturated = ", saturated" if rows.saturated[0] else ""
    unit = d.y.unit
    return (
        f"y from {rows.y.min():.3g} to {rows.y.max():.3g} {unit}, {d.y.shape[0]} values{saturated}"
    )


def _safe(system: PhysicalSystem) -> str:
    system.shutdown()
    return "confirmed by every instrument"
