"""Keep new jobs, and let those that have stopped go on."""

import secrets
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from lab.continuing import CHANGEABLE
from lab.errors import ConfigError
from lab.jobs.directory import Directory
from lab.jobs.kinds import KINDS, JobConfig, kind_of
from lab.jobs.news import NewsBoard
from lab.jobs.queues import queue_for
from lab.jobs.records import JobRecord, Order
from lab.jobs.store import Store

SHARED = {"priority", "deadline_s"}  # fields of every kind that another run may change
_PARTS = 100_000  # more than a comparison can have
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Intake:
    """Put jobs where the sweep finds them; blocking, thread-safe.

    hurry: has the sweep done at once.
    """

    def __init__(self, directory: Directory, board: NewsBoard, hurry: Callable[[], object]) -> None:
        """Queue jobs by the systems of `directory`, and tell of their states on `board`."""
        self._directory, self._board, self._hurry = directory, board, hurry

    def knows(self, store: Store, order: Order) -> bool:
        """Say whether there is a job with the order's key."""
        return order.key is not None and store.keyed_job(order.key) is not None

    def keep(self, store: Store, config: JobConfig, order: Order) -> tuple[JobRecord, bool]:
        """Return a new job of a checked config, or the one with the order's key; and which."""
        plain, new_id = config.model_dump(mode="json"), secrets.token_hex(6)
        known = self._directory.system(config.system)
        queue = queue_for(config, order, known, shared=self._directory.book is not None)
        job_id = store.add_job(new_id, kind_of(config), plain, order, queue=queue)
        return store.job(job_id), job_id == new_id

    def keep_part(self, store: Store, config: JobConfig, order: Order) -> JobRecord:
        """Return a part of a comparison, which is queued soon."""
        record, _ = self.keep(store, config, order)
        self._hurry()
        return record

    def let_go_on(
        self, store: Store, job: JobRecord, changes: Mapping[str, Any] = _NOTHING
    ) -> JobRecord:
        """Let a job go on that has stopped without success; return it as it is now."""
        if store.continue_job(job.id, {**job.config, **changes}) is not None:
            self._hurry()
            self._board.tell(job.id)
        return store.job(job.id)

    def let_parts_go_on(self, store: Store, comparison: str, changes: Mapping[str, Any]) -> None:
        """Let the parts of a comparison go on that have stopped without success."""
        for part in store.jobs(parent=comparison, limit=_PARTS):
            self.let_go_on(store, part, changes)


def changed_config(record: JobRecord, changes: Mapping[str, Any]) -> JobConfig:
    """Return a job's config with some of its fields changed; raise ConfigError."""
    possible = SHARED | (CHANGEABLE if record.kind == "train" else set())
    other = sorted(set(changes) - possible)
    if other:
        raise ConfigError(
            f"{', '.join(other)}: a {record.kind} job cannot be continued with another value; "
            f"what can change is {', '.join(sorted(possible))}"
        )
    try:
        return KINDS[record.kind].model_validate({**record.config, **changes})
    except ValueError as error:
        raise ConfigError(str(error)) from error
