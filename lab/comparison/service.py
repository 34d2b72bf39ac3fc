"""Run a comparison on a lab service, over REST: fit the twin, submit every run, watch them all."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from lab.client import Client, ServiceError
from lab.comparison.plan import Comparison, OnProgress, Outcome, Progress, fit_name, run_name
from lab.config import TrainConfig
from lab.errors import Conflict
from lab.recipes import is_possible

_WATCHED_AT_ONCE = 16

OpenClient = Callable[[], AbstractContextManager[Client]]


@dataclass(frozen=True)
class ServiceRuns:
    """Run a plan on the service that `open_client` talks to.

    on_progress is called from several threads. gap: of the service's bench, where it is known.
    """

    plan: Comparison
    open_client: OpenClient
    on_progress: OnProgress
    gap: float | None = None

    def __call__(self, twin_rows: int | None, gap: float | None = None) -> Outcome:
        """Fit one twin and run every method and seed with it; jobs are cancelled on the way out.

        gap: the service's bench has its own, so None.
        Raises ServiceError where the service does not answer or a job does not succeed, and what
        it refuses.
        """
        with self.open_client() as client:
            twin = self._fit(client, twin_rows)
            configs = self.plan.configs({"id": twin["twin"]})
            jobs: dict[str, str] = {}
            first: dict[str, Any] = {}
            try:
                for config in configs:
                    if first and not is_possible(_completed_like(first, config)):
                        continue
                    job = client.submit(config)
                    jobs[job["id"]] = run_name(config)
                    first = first or job["config"]
                results = self._watch_all(jobs)
            except BaseException:
                _cancel(client, list(jobs))
                raise
        return Outcome(twin["report"], results, first, self.gap)

    def _fit(self, client: Client, rows: int | None) -> dict[str, Any]:
        plan = self.plan
        job = client.fit_twin(system=plan.system, task=plan.task, **plan.twin_fields(rows))
        try:
            return self._watch(client, job["id"], fit_name(rows))
        except BaseException:
            _cancel(client, [job["id"]])
            raise

    def _watch_all(self, jobs: dict[str, str]) -> list[dict[str, Any]]:
        """Return every job's result, in the order of submission; raise the first failure."""
        with ThreadPoolExecutor(min(len(jobs), _WATCHED_AT_ONCE), "watch") as pool:
            futures = [pool.submit(self._watch_alone, job, run) for job, run in jobs.items()]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                # the watchers end with their jobs, so the jobs have to end first
                self._give_up(futures, list(jobs))
                raise
        return [future.result() for future in futures]

    def _give_up(self, futures: list[Future[dict[str, Any]]], jobs: list[str]) -> None:
        for future in futures:
            future.cancel()
        with self.open_client() as client:
            _cancel(client, jobs)

    def _watch_alone(self, job_id: str, run: str) -> dict[str, Any]:
        with self.open_client() as client:  # a client serves one thread
            return self._watch(client, job_id, run)

    def _watch(self, client: Client, job_id: str, run: str) -> dict[str, Any]:
        for event in client.watch(job_id):
            if event.kind == "metric" and event.data["kind"] in ("fit", "epoch"):
                self.on_progress(_progress(run, event.data))
            elif event.kind == "end" and event.data["state"] != "succeeded":
                state, error = event.data["state"], event.data["error"]
                raise ServiceError(f"{run} (job {job_id}): {state}: {error}")
        return client.result(job_id)


def _completed_like(first: Mapping[str, Any], config: TrainConfig) -> TrainConfig:
    """Return the control's config, its network as the service completed it for the first run."""
    return TrainConfig.model_validate({**first, "control": config.control})


def _progress(run: str, metric: dict[str, Any]) -> Progress:
    if metric["kind"] == "fit":
        return Progress("fit", run, metric["done"], metric["of"])
    return Progress("train", run, metric["step"], metric["of"], metric["accuracy"])


def _cancel(client: Client, jobs: list[str]) -> None:
    """Cancel those of the jobs that have not ended; a service that is gone has ended them all."""
    for job in jobs:
        try:
            client.cancel(job)
        except Conflict:
            continue
        except ServiceError:
            return
