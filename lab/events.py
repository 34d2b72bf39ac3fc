"""Read server-sent events (WHATWG HTML, section 9.2.6) of a job."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """One thing that happened to a job.

    kind: "metric" (data: the metric, step: its number), "state" (data: the job, whose state has
    changed; step None) or "end" (data: the job in its final state; nothing comes after it).
    """

    kind: str
    step: int | None
    data: dict[str, Any]


def read_events(lines: Iterable[str]) -> Iterator[Event]:
    """Yield the events in a stream's lines; comments and an unfinished last one are dropped."""
    fields: dict[str, str] = {}
    for line in lines:
        if not line:
            if "data" in fields:
                yield _event(fields)
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            # an event's data may come on several lines
            fields[name] = f"{fields[name]}\n{value}" if name in fields else value


def _event(fields: dict[str, str]) -> Event:
    data = json.loads(fields["data"])
    if fields.get("event") == "metric":
        return Event("metric", data["step"], data["metric"])
    return Event(fields.get("event", "message"), None, data)
