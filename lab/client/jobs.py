"""The jobs of a service and their twins: how far they are, what they found, and their ends."""

from collections.abc import Iterator
from typing import Any

from lab.calls import Calls, ServiceError
from lab.errors import DatabaseAway, SystemClosed
from lab.events import Event
from lab.tries import Tries


class JobCalls:
    """List, watch, pause and end jobs; a part of `lab.client.Client`."""

    _calls: Calls

    def jobs(
        self,
        state: str | None = None,
        limit: int = 100,
        tag: str | None = None,
        parent: str | None = None,
    ) -> list[dict[str, Any]]:
        """List the newest jobs, newest first; if given of one state, tag or comparison."""
        wanted = {"state": state, "tag": tag, "parent": parent}
        chosen = {name: value for name, value in wanted.items() if value is not None}
        return self._calls.listed("/jobs", limit=limit, **chosen)

    def job(self, job_id: str) -> dict[str, Any]:
        """Return a job; raise UnknownName."""
        return self._calls.answer("GET", f"/jobs/{job_id}")

    def metrics(self, job_id: str, since: int = 0) -> list[dict[str, Any]]:
        """Return all metrics after step `since`: [{"step": 1, "metric": {...}}, ...]."""
        found: list[dict[str, Any]] = []
        while True:
            since = found[-1]["step"] if found else since
            page = self._calls.listed(f"/jobs/{job_id}/metrics", since=since)
            found += page
            if not page:
                return found

    def watch(self, job_id: str, since: int = 0, *, patience_s: float = 60.0) -> Iterator[Event]:
        """Yield what happens to a job until its end; see `Event`.

        Reconnects where the connection is lost, and goes on after the last metric seen. patience_s:
        for so long a service that does not answer is asked again: it may be starting anew. Raises
        UnknownName, or what the last try raised (ServiceError, DatabaseAway, SystemClosed).
        """
        tries = Tries(patience_s)
        while True:
            try:
                for event in self._calls.events(job_id, since):
                    tries.start_over()
                    since = event.step or since
                    yield event
                    if event.kind == "end":
                        return
                raise ServiceError("the service ended the stream before the job's end")
            except (ServiceError, DatabaseAway, SystemClosed) as error:
                refused = isinstance(error, ServiceError) and error.status
                if refused or not tries.wait():
                    raise

    def pause(self, job_id: str) -> dict[str, Any]:
        """Pause a job and return it as it is now; raise UnknownName, Conflict if it has ended."""
        return self._calls.answer("POST", f"/jobs/{job_id}/pause")

    def go_on(self, job_id: str, **changes: Any) -> dict[str, Any]:
        """Continue a job that is paused, failed, cancelled or unknown, from its last checkpoint.

        changes: epochs, rows, rate_theta, rate_digital, priority, deadline_s; what is left out
        stays. Raises UnknownName, ConfigError, Conflict (it is in another state).
        """
        return self._calls.answer("POST", f"/jobs/{job_id}/continue", json=changes)

    def cancel(self, job_id: str, *, at_once: bool = False) -> dict[str, Any]:
        """Cancel a job and return it as it is now; raise UnknownName, Conflict if it has ended.

        at_once: what it computes is broken off, without a checkpoint of where it stopped.
        """
        params = {"at_once": "true"} if at_once else {}
        return self._calls.answer("POST", f"/jobs/{job_id}/cancel", params=params)

    def provenance(self, job_id: str) -> dict[str, Any]:
        """Return where a job's numbers come from; raise UnknownName, Conflict before its start."""
        return self._calls.answer("GET", f"/jobs/{job_id}/provenance")

    def result(self, job_id: str) -> dict[str, Any]:
        """Return a job's result; raise UnknownName, Conflict while there is none."""
        return self._calls.answer("GET", f"/jobs/{job_id}/result")

    def twins(self, limit: int = 100) -> list[dict[str, Any]]:
        """List the newest twins, newest first."""
        return self._calls.listed("/twins", limit=limit)

    def twin(self, twin_id: str) -> dict[str, Any]:
        """Return a twin with its report; raise UnknownName."""
        return self._calls.answer("GET", f"/twins/{twin_id}")
