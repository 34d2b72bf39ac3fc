"""The schedules of a service."""

from collections.abc import Mapping, Sequence
from typing import Any

from lab.calls import Calls
from lab.client.submissions import set_fields
from lab.jobs.kinds import JobConfig
from lab.jobs.records import JobKind
from lab.jobs.schedules.records import Missed, Overlap


class ScheduleCalls:
    """Keep schedules; a part of `lab.client.Client`."""

    _calls: Calls

    def add_schedule(
        self,
        name: str,
        cron: str,
        kind: JobKind = "train",
        config: Mapping[str, Any] | JobConfig | None = None,
        *,
        time_zone: str | None = None,
        missed: Missed = "once",
        overlap: Overlap = "skip",
        tags: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Start a job at every tick of a cron expression, and return the schedule.

        Options as in `lab.jobs.schedules.records.ScheduleConfig`. Raises ConfigError, UnknownName,
        Conflict if there is a schedule of this name.
        """
        plain = set_fields(config)
        body = {"name": name, "cron": cron, "time_zone": time_zone, "kind": kind, "config": plain}
        options = {"missed": missed, "overlap": overlap, "tags": list(tags)}
        return self._calls.answer("POST", "/schedules", json=body | options)

    def schedules(self) -> list[dict[str, Any]]:
        """List the schedules, by name."""
        return self._calls.listed("/schedules")

    def schedule(self, name: str) -> dict[str, Any]:
        """Return a schedule with its next ticks and newest jobs; raise UnknownName."""
        return self._calls.answer("GET", f"/schedules/{name}")

    def pause_schedule(self, name: str) -> dict[str, Any]:
        """Let no more ticks of a schedule run and return it; raise UnknownName."""
        return self._calls.answer("POST", f"/schedules/{name}/pause")

    def continue_schedule(self, name: str) -> dict[str, Any]:
        """Let a paused schedule's ticks run from now on and return it; raise UnknownName."""
        return self._calls.answer("POST", f"/schedules/{name}/continue")

    def run_schedule(self, name: str) -> dict[str, Any]:
        """Start a schedule's job now and return the job; raise what submitting it raises."""
        return self._calls.answer("POST", f"/schedules/{name}/run")

    def remove_schedule(self, name: str) -> None:
        """Forget a schedule; its jobs stay and go on. Raises UnknownName."""
        self._calls.call("DELETE", f"/schedules/{name}")
