"""A job's metrics as a table of comma-separated values."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

from lab.jobs.records import MetricRecord

_FIRST = ("number", "kind")

Page = Callable[[int], list[MetricRecord]]


def csv_lines(page: Page, kind: str | None = None) -> Iterator[str]:
    """Yield the header and a line for each metric, of one kind if given.

    page(since) returns the next metrics after a number, in order, and none after the last. Columns:
    the metric's number (its step in the job's record), its kind, and every key that one of them
    has; empty where it is null or not there. Numbers are written so that they read back exactly.
    """
    names: dict[str, None] = dict.fromkeys(_FIRST)
    last = 0
    for number, cells in _rows(page, kind):
        names |= dict.fromkeys(cells)
        last = number
    line = io.StringIO()
    writer = csv.DictWriter(line, list(names))
    writer.writeheader()
    yield line.getvalue()
    for number, cells in _rows(page, kind):
        if number > last:  # it has come since, perhaps with keys of its own
            return
        line.seek(0)
        line.truncate()
        writer.writerow(cells)
        yield line.getvalue()


def _rows(page: Page, kind: str | None) -> Iterator[tuple[int, dict[str, Any]]]:
    since = 0
    while found := page(since):
        for record in found:
            if kind in (None, record.metric["kind"]):
                cells = {name: _cell(value) for name, value in record.metric.items()}
                yield record.step, {"number": record.step, **cells}
        since = found[-1].step


def _cell(value: Any) -> Any:
    if isinstance(value, bool | list | dict):
        return json.dumps(value)
    return value
