"""Where a job's numbers come from, as it is kept with the job and told of it.

What held when it first started is kept once; of every attempt at it, who made it and what had
changed by then. Times, result and twins are those of the job's row: nothing is written at its end.
"""

import time
from collections.abc import Mapping
from typing import Any

from lab.errors import Conflict, UnknownName
from lab.jobs.kinds import JobConfig, read_job_config
from lab.jobs.records import JobRecord
from lab.jobs.store import Store
from lab.provenance import config_changes, differences

_KEPT = 50  # attempts: the first and the newest
_UNKNOWN = "what it ran with is not known: it never started, or by a version that did not keep it"


def keep_attempt(store: Store, record: JobRecord, now: Mapping[str, Any]) -> None:
    """Keep that a process begins to work on a job it has claimed; now: with what.

    Raises Superseded if another process has claimed it since.
    """
    known = store.provenance(record.id) if record.attempt > 1 else None
    first = known or now
    attempt = {
        "attempt": record.attempt,
        "run": record.run,
        "host": record.host,
        "started_s": time.time(),
        "changed": _changes(first, now),
    }
    earlier = first.get("attempts", [])
    attempts = [*earlier[:1], *earlier[1:][2 - _KEPT :], attempt]
    store.keep_provenance(record.id, record.attempt, {**first, "attempts": attempts})


def told_provenance(store: Store, record: JobRecord) -> dict[str, Any]:
    """Return where a job's numbers come from; raise Conflict where nothing is kept of it.

    Keys as of `lab.provenance.provenance`, and `attempts`: number, run, host, start (seconds since
    the epoch) and what had changed since the first, of the first and the newest of them.
    """
    kept = store.provenance(record.id)
    if kept is None:
        raise Conflict(
            f"job {record.id} has no provenance: it {record.standing}, and it has not started "
            "yet, or was run by a version that kept none"
        )
    times = {"started_s": record.started_s, "finished_s": record.finished_s}
    return {**kept, **times, "twins": _twins(store, record)}


def changed_since(store: Store, record: JobRecord, now: Mapping[str, Any]) -> list[str]:
    """Return in words what a rerun of a job would have other than the job had, in order."""
    then = store.provenance(record.id)
    if then is None:
        return [_UNKNOWN]
    # of a job that was continued with other settings
    settings = [f"{text}, now from the start" for text in config_changes(then, now)]
    return [*differences(then, now), *settings]


def same_again(record: JobRecord) -> JobConfig:
    """Return the config of a job for a rerun: the same, without its deadline.

    Raises ConfigError where this version knows no such config any more.
    """
    return read_job_config(record.kind, {**record.config, "deadline_s": None})


def _changes(first: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [*differences(first, now), *config_changes(first, now)]


def _twins(store: Store, record: JobRecord) -> dict[str, str]:
    """Return the digests of the twins that a job has fitted or used, by id, as far as known."""
    trained = record.config["job"] if record.kind == "evaluate" else record.id
    try:
        result = store.result(trained) or {}
    except UnknownName:
        result = {}
    own = store.find_twin(job=record.id)
    found = {} if own is None else {own.id: str(own.report["digest"])}
    used = result.get("twin")
    if isinstance(used, str) and used not in found:
        try:
            found[used] = str(store.twin(used).report["digest"])
        except UnknownName:
            return found
    if "twin_digest" in result and result["twin_digest"] not in found.values():
        found[f"{used}, refitted"] = result["twin_digest"]
    return found
