"""What a job would cost, as text."""

from collections.abc import Iterator, Mapping
from typing import Any

_MINUTE_S, _HOUR_S = 60.0, 3600.0


def dry_run_lines(dry_run: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a dry run, as REST answers it."""
    for purpose, rows in dry_run["rows"].items():
        yield f"{purpose:<20} {rows:>9} rows"
    at_most = ""
    if dry_run["rows_at_most"] > dry_run["rows_planned"]:
        at_most = f", at most {dry_run['rows_at_most']}"
    yield f"{'in all':<20} {dry_run['rows_planned']:>9} rows{at_most}"
    if dry_run["seconds"] is not None:
        row_ms = 1e3 * dry_run["row_time_s"]
        yield f"{'time of the rows':<20} {_span(dry_run['seconds'])}, {row_ms:g} ms each"
    if dry_run["twin"] is not None:
        yield f"{'twin':<20} {dry_run['twin']}, fitted already"
    ahead = dry_run["ahead"]
    if ahead is not None and ahead["jobs"]:
        unknown = f" and those of {ahead['unknown']} not known yet" if ahead["unknown"] else ""
        yield f"{'ahead':<20} {ahead['jobs']} jobs with {ahead['rows']} rows{unknown}"
    for note in dry_run["notes"]:
        yield f"{'note':<20} {note}"


def _span(seconds: float) -> str:
    if seconds < 2 * _MINUTE_S:
        return f"{seconds:.3g} s"
    if seconds < 2 * _HOUR_S:
        return f"{seconds / _MINUTE_S:.3g} min"
    return f"{seconds / _HOUR_S:.3g} h"
