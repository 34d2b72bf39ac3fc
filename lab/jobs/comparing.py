"""A comparison at work: it has its parts done as jobs of their own, and sums up what they found.

It computes and measures nothing, so it waits in a thread of its own and takes no job's place.
Whatever it does can be done again: after a crash it finds its parts by their keys.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lab.comparison.plan import Outcome, fit_name
from lab.comparison.summary import summarise, tables
from lab.config import TrainConfig
from lab.errors import PartsFailed
from lab.jobs.configs import CompareConfig
from lab.jobs.kinds import JobConfig
from lab.jobs.live_job import LiveJob
from lab.jobs.parts import fit_config, part_key, part_name, run_configs, with_comparison
from lab.jobs.records import JobRecord, Order
from lab.jobs.runner import JobRunner
from lab.jobs.store import Store
from lab.recipes import is_possible
from lab.rigs import gap

_LOOK_EVERY_S = 0.5
_NAMED = 5  # parts in an error
_ALL = 10**6  # metrics: one for each part that has ended


@dataclass(frozen=True)
class Hands:
    """What a comparison has done by the service that it runs in; blocking.

    keep: begins a job of a complete and checked config, or returns the one that has the order's
    key. go_on: lets a part that was paused or cancelled go on, and returns it.
    """

    keep: Callable[[Store, JobConfig, Order], JobRecord]
    go_on: Callable[[Store, JobRecord], JobRecord]


class Comparing:
    """One comparison from its claim to its result; for one thread, `run` once."""

    def __init__(
        self, job: LiveJob, config: CompareConfig, runner: JobRunner, hands: Hands
    ) -> None:
        """Have the parts of `job`, which was submitted with `config`, done by `hands`."""
        self._job, self._config = job, config
        self._runner, self._hands = runner, hands
        self._ids: dict[str, str] = {}  # of the parts that have begun, by name
        self._runs: dict[int | None, list[str]] = {}  # names of the trainings, by their twin's rows
        self._planned = 0
        self._told: set[tuple[str, int]] = set()

    def run(self) -> dict[str, Any]:
        """Return the comparison's result, as plain data.

        Raises PartsFailed when all that could be done has been, and Stopped.
        """
        self._go_on_telling()
        for rows in self._config.twin_rows:
            self._planned += 1 + len(self._possible(self._config.twin_fields(rows)))
            self._begin(fit_name(rows), fit_config(self._config, rows))
        while True:
            parts = self._look()
            begun = [self._begin_runs(rows, parts) for rows in self._config.twin_rows]
            if not any(begun) and all(part.ended for part in parts.values()):
                return self._result(parts)
            self._job.pause(_LOOK_EVERY_S)

    def _go_on_telling(self) -> None:
        """Go on after the last metric that an earlier attempt told."""
        known = self._job.store.metrics(self._job.id, limit=_ALL)
        self._told = {(m.metric["job"], m.metric["run"]) for m in known}
        self._job.go_on_after(len(known), 0)

    def _begin(self, name: str, config: JobConfig) -> None:
        """Begin a part, or find it."""
        job = self._job
        job.check()
        key = part_key(job.id, name)
        record = job.store.keyed_job(key)
        if record is None:
            config = self._runner.completed(config)
            self._runner.check(config)
            tags, origin = job.store.job(job.id).tags, f"part of {job.id}"
            record = self._hands.keep(
                job.store, config, Order(job.client, key, tags, origin, job.id)
            )
        self._ids[name] = record.id

    def _begin_runs(self, rows: int | None, parts: Mapping[str, JobRecord]) -> bool:
        """Begin the trainings on a twin once it is fitted; say whether that was now."""
        fit = parts[fit_name(rows)]
        if rows in self._runs or fit.state != "succeeded":
            return False
        runs = self._possible({"id": self._found(fit.id)["twin"]})
        for run in runs:
            self._begin(part_name(run, rows), run)
        self._runs[rows] = [part_name(run, rows) for run in runs]
        return True

    def _possible(self, twin: Mapping[str, Any]) -> list[TrainConfig]:
        """Return the trainings on a twin, without controls that the network leaves no room for."""
        runs = run_configs(self._config, twin)
        complete = map(self._runner.completed, runs)
        return [
            run
            for run, config in zip(runs, complete, strict=True)
            if isinstance(config, TrainConfig) and is_possible(config)
        ]

    def _look(self) -> dict[str, JobRecord]:
        """Return the parts by name as they are now, and tell of those that have ended since."""
        job = self._job
        most = self._config.runs + len(self._config.twin_rows)
        found = {part.id: part for part in job.store.jobs(parent=job.id, limit=most)}
        parts = {name: self._brought_along(found[i]) for name, i in self._ids.items()}
        ended = {name: part for name, part in parts.items() if part.ended}
        new = {name: p for name, p in ended.items() if (p.id, p.run) not in self._told}
        for done, (name, part) in enumerate(new.items(), len(ended) - len(new) + 1):
            self._tell(name, part, done)
        return parts

    def _brought_along(self, part: JobRecord) -> JobRecord:
        """Return a part; it goes on if it stopped only because this comparison had."""
        self._job.check()
        followed = (with_comparison(state, self._job.id) for state in ("paused", "cancelled"))
        if part.state in ("paused", "cancelled") and part.error in followed:
            return self._hands.go_on(self._job.store, part)
        return part

    def _tell(self, name: str, part: JobRecord, done: int) -> None:
        self._told.add((part.id, part.run))
        about = {"part": name, "job": part.id, "run": part.run, "state": part.state}
        self._job.metric({"kind": "compared", **about, "done": done, "of": self._planned})

    def _result(self, parts: Mapping[str, JobRecord]) -> dict[str, Any]:
        failed = {name: part for name, part in parts.items() if part.state != "succeeded"}
        if failed:
            raise PartsFailed(_told_failures(failed, self._planned))
        outcomes = [self._outcome(rows, parts) for rows in self._config.twin_rows]
        summary = tables([summarise(self._config, outcome) for outcome in outcomes])
        return {**summary, "parts": {name: part.id for name, part in parts.items()}}

    def _outcome(self, rows: int | None, parts: Mapping[str, JobRecord]) -> Outcome:
        fit, runs = parts[fit_name(rows)], [parts[name] for name in self._runs[rows]]
        return Outcome(
            self._found(fit.id)["report"],
            [self._found(run.id) for run in runs],
            runs[0].config,
            self._gap(),
        )

    def _gap(self) -> float | None:
        """Return the gap of a simulated system on this service's bench, else None."""
        system = self._config.system
        if not self._runner.directory.is_here(system):
            return None
        return gap(self._runner.bench.config, system)

    def _found(self, part_id: str) -> dict[str, Any]:
        result = self._job.store.result(part_id)
        if result is None:
            raise PartsFailed(f"job {part_id} has succeeded without a result")
        return result


def _told_failures(failed: Mapping[str, JobRecord], planned: int) -> str:
    told = [f"{name} (job {p.id}) {p.state}: {p.error}" for name, p in failed.items()]
    more = [f"and {len(told) - _NAMED} more"] if len(told) > _NAMED else []
    return (
        f"{len(failed)} of {planned} parts did not succeed; what the others found is kept, and "
        f"continuing does the rest: {'; '.join([*told[:_NAMED], *more])}"
    )
