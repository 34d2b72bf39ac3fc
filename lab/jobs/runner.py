"""What a job does in its worker thread: fit a twin, train a network. Plain blocking code."""

import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Any

from lab.apparatus import Apparatus, open_apparatus
from lab.auditing import AuditPoint
from lab.bench import Bench
from lab.checkpoints import CheckpointFolder
from lab.config import DIGITAL_METHODS, TrainConfig
from lab.datasets import Dataset, load
from lab.datasets.own import FILE, UPLOAD, UPLOADS, find_upload
from lab.errors import ConfigError, DataError, DeadlineMissed, UnknownName
from lab.jobs.going_on import go_back
from lab.jobs.job_rows import measure_for
from lab.jobs.live_job import LiveJob, Turns
from lab.jobs.records import FitConfig, JobRecord, TwinRecord
from lab.jobs.state_files import (
    CHECKPOINTS,
    checkpoint_file,
    checkpoints_folder,
    load_state,
    save_state,
    twin_file,
)
from lab.jobs.store import Store
from lab.measure import Run
from lab.recipes import completed, completed_fit
from lab.recording.recorder import RowRecorder
from lab.rules.choose import refuse_impossible
from lab.scheduling.scheduled_run import ScheduledRun
from lab.scheduling.scheduler import HardwareScheduler
from lab.train_result import TrainResult
from lab.trainer import rows_to_measure, train
from lab.twins import (
    HELD_OUT_ROWS,
    Drives,
    FittedTwin,
    fit_stream,
    fit_system_twin,
    task_drives,
)
from lab.watching import DriftPoint
from twins.base import frozen
from twins.fitting import TwinError

_EVENTS = {AuditPoint: "audit", DriftPoint: "drift"}


class JobRunner:
    """Run jobs on one bench through its scheduler; thread-safe, any thread but the loop's."""

    def __init__(
        self,
        bench: Bench,
        scheduler: HardwareScheduler,
        store: Store,
        recorder: RowRecorder | None = None,
    ) -> None:
        """Measure through `scheduler`, which must be running while jobs run.

        recorder: keeps the measured rows.
        """
        self.bench = bench
        self.scheduler = scheduler
        self.store = store
        self.recorder = recorder
        self.turns = Turns()
        self._bench_digest = bench.config.measurement_digest()

    def run(self, job: LiveJob) -> dict[str, Any]:
        """Do the job and return its result as plain data; raise Stopped when it was stopped."""
        job.check()
        try:
            if isinstance(job.config, FitConfig):
                return self._fit_only(job, job.config)
            return self._train(job, job.config)
        finally:
            self._flush_rows()

    def _flush_rows(self) -> None:
        """Have the rows on the disk that are not measured again, should the service die now."""
        if self.recorder is not None:
            self.recorder.flush()

    def recovered(self, record: JobRecord) -> TrainConfig | FitConfig:
        """Return the config of a job that is to go on; raise what `check` raises, or ValueError."""
        kind = TrainConfig if record.kind == "train" else FitConfig
        config = kind.model_validate(record.config)
        self.check(config)
        return config

    def forget_checkpoints(self, job_id: str) -> None:
        """Delete that from which a job could go on."""
        self._checkpoints(job_id, self.store).clear()

    def tidy(self) -> None:
        """Delete the checkpoints of jobs that have succeeded."""
        names = self.store.files.under(CHECKPOINTS).names()
        for job_id in {folder for folder, slash, _ in (n.partition("/") for n in names) if slash}:
            with suppress(UnknownName):
                if self.store.job(job_id).state == "succeeded":
                    self.forget_checkpoints(job_id)

    def _checkpoints(self, job_id: str, store: Store) -> CheckpointFolder:
        folder = store.files_without_waiting.under(checkpoints_folder(job_id))
        return CheckpointFolder(folder, {"bench": self._bench_digest}, self._flush_rows)

    def completed(self, config: TrainConfig | FitConfig) -> TrainConfig | FitConfig:
        """Return the config with what it leaves open as it suits the system; raise UnknownName."""
        self.bench.system(config.system)
        family = self.bench.config.systems[config.system].system
        if isinstance(config, TrainConfig):
            return completed(config, family)
        return completed_fit(config, family)

    def check(self, config: TrainConfig | FitConfig) -> None:
        """Raise what can be known not to work before it starts.

        UnknownName, ConfigError; DeadlineMissed for a deadline that has passed.
        """
        self.bench.system(config.system)
        self._check_task(config.task)
        if config.deadline_s is not None and config.deadline_s <= time.time():
            raise DeadlineMissed("the job's deadline has passed before it was submitted")
        if isinstance(config, TrainConfig):
            refuse_impossible(config)
            if config.method == "ideal" and self.bench.plant(config.system) is None:
                raise ConfigError("method: 'ideal' needs a simulated bench")
            if config.twin.id is not None:
                self._check_twin(config.system, self.store.twin(config.twin.id))
                return
        try:
            self.bench.new_twin(config.system, config.twin.kind)
        except ValueError as error:
            field = "kind" if isinstance(config, FitConfig) else "twin.kind"
            raise ConfigError(f"{field}: {error}") from error

    def _check_task(self, task: str | None) -> None:
        """Raise ConfigError for a path, which a client must not choose here; UnknownName."""
        if task is not None and task.startswith(FILE):
            raise ConfigError(
                f"task: '{task}' would be a file of the service's machine; upload it, and name "
                "the task that the upload answers"
            )
        if task is not None and task.startswith(UPLOAD):
            find_upload(self.store.files.under(UPLOADS), task)

    def _load(self, job: LiveJob, task: str) -> Dataset:
        return load(task, uploads=job.store.files.under(UPLOADS))

    def _check_twin(self, system: str, record: TwinRecord) -> None:
        if record.system != system:
            raise ConfigError(
                f"twin.id: twin '{record.id}' belongs to system '{record.system}', not '{system}'"
            )
        if record.bench != self._bench_digest:
            raise ConfigError(
                f"twin.id: twin '{record.id}' was fitted on another bench, or before the bench "
                "file was changed; fit one on this bench"
            )

    def _train(self, job: LiveJob, config: TrainConfig) -> dict[str, Any]:
        dataset = self._load(job, config.task)
        apparatus = open_apparatus(self.bench, config.system, self._measurer(job, config))
        job.rows.plan(rows_to_measure(config, dataset))
        checkpoints = self._checkpoints(job.id, job.store)
        known = checkpoints.newest()
        go_back(job.store, job, known)
        twin_id = config.twin.id if known is None else known.about["twin_id"]
        record, fitted = self._twin_for(job, config, dataset, apparatus, twin_id)
        checkpoints.about["twin_id"] = record.id
        if config.method not in DIGITAL_METHODS:  # whose time does not go into rows
            job.rows.start_pace()
        result = train(
            config,
            dataset,
            fitted,
            apparatus,
            on_metric=lambda m: job.metric({"kind": "epoch", **asdict(m)}),
            on_event=lambda e: job.metric({"kind": _EVENTS[type(e)], **asdict(e)}),
            stop=job.stopped,
            checkpoints=checkpoints,
        )
        self._save_checkpoint(job, config, record, result)
        return {**result.as_dict(), "twin": record.id}

    def _fit_only(self, job: LiveJob, config: FitConfig) -> dict[str, Any]:
        go_back(job.store, job, None)
        done = job.store.find_twin(job=job.id)
        if done is not None:
            return {"twin": done.id, "report": done.report}
        apparatus = open_apparatus(self.bench, config.system, self._measurer(job, config))
        dataset = None if config.task is None else self._load(job, config.task)
        like = TrainConfig(system=config.system, seed=config.seed)
        if config.task is not None:
            family = self.bench.config.systems[config.system].system
            like = completed(like.model_copy(update={"task": config.task}), family)
        record, _ = self._fit(job, apparatus, dataset, like)
        return {"twin": record.id, "report": record.report}

    def _twin_for(
        self,
        job: LiveJob,
        config: TrainConfig,
        dataset: Dataset,
        apparatus: Apparatus,
        twin_id: str | None,
    ) -> tuple[TwinRecord, FittedTwin]:
        """Return the twin of that id, or the one asked for; jobs that want the same fit it once."""
        t = config.twin
        if twin_id is not None:
            record = job.store.twin(twin_id)
            return record, self._load_twin(job, record, config)
        wanted: dict[str, str | int] = {
            "system": config.system,
            "kind": t.kind,
            "rows": t.rows,
            "seed": t.seed,
        }
        with self.turns.turn(tuple(wanted.values()), job.stopped):
            known = job.store.find_twin(**wanted, bench=self._bench_digest)
            if known is not None:
                return known, self._load_twin(job, known, config)
            return self._fit(job, apparatus, dataset, config)

    def _fit(
        self,
        job: LiveJob,
        apparatus: Apparatus,
        dataset: Dataset | None,
        like: TrainConfig,
    ) -> tuple[TwinRecord, FittedTwin]:
        """Fit the job's twin and keep it; its task error, if any, is on the drives of `like`."""
        config, t = job.config, job.config.twin
        drives: Drives | None = None
        if dataset is not None:
            drives = task_drives(like, dataset, apparatus.description)
        job.rows.plan(t.rows + HELD_OUT_ROWS + (0 if drives is None else len(drives[0])))
        fitted = fit_system_twin(
            t,
            self.bench.new_twin(config.system, t.kind, seed=t.seed),
            apparatus.open_device(fit_stream(t.seed), 0),
            task_drives=drives,
            on_progress=_fit_progress(job),
        )
        job.check()
        record = TwinRecord(
            id=secrets.token_hex(6),
            system=config.system,
            kind=t.kind,
            rows=t.rows,
            seed=t.seed,
            job=job.id,
            bench=self._bench_digest,
            created_s=time.time(),
            report={
                **fitted.report(),
                "task_name": None if dataset is None else config.task,
                "task_split": None if dataset is None else like.split,
            },
        )
        self._flush_rows()
        save_state(job.store.files, twin_file(record.id), fitted.twin.state_dict())
        job.store.add_twin(record)
        return record, fitted

    def _load_twin(self, job: LiveJob, record: TwinRecord, config: TrainConfig) -> FittedTwin:
        """Return a kept twin, with its task error only if that is of the config's task and split.

        The parameters do not depend on the task: they are fitted to random rows.
        """
        twin = self.bench.new_twin(record.system, record.kind)
        twin.load_state_dict(load_state(job.store.files, twin_file(record.id)))
        report = record.report
        if twin.digest() != report["digest"]:
            raise DataError(f"twin {record.id}: its file is not the one that its fit wrote")
        return FittedTwin(
            twin=frozen(twin),
            kind=record.kind,
            system=record.system,
            seed=record.seed,
            rows=record.rows,
            hardware_rows=report["hardware_rows"],
            seconds=report["seconds"],
            random=TwinError(**report["random"]),
            task=TwinError(**report["task"]) if _same_task(report, config) else None,
        )

    def _save_checkpoint(
        self, job: LiveJob, config: TrainConfig, record: TwinRecord, result: TrainResult
    ) -> None:
        save_state(
            job.store.files,
            checkpoint_file(job.id),
            {
                "config": config.model_dump(),
                "classes": list(result.classes),
                "network": result.network_state,
                "twin": result.twin_state,
                "twin_kind": record.kind,
                "twin_id": record.id,
            },
        )

    def _measurer(self, job: LiveJob, config: TrainConfig | FitConfig) -> Run:
        """Return what executes the job's rows: passes in the scheduler's queue."""
        record = None if self.recorder is None else self.recorder.add
        return ScheduledRun(
            self.scheduler,
            config.system,
            priority=config.priority,
            stopped=job.stopped,
            pass_ids=job.pass_ids,
            measure=partial(measure_for, job, self.scheduler, record=record),
        )


def _same_task(report: Mapping[str, Any], config: TrainConfig) -> bool:
    measured = (report.get("task_name"), report.get("task_split"))
    return measured == (config.task, config.split)


def _fit_progress(job: LiveJob) -> Callable[[int, int, float], None]:
    def progress(step: int, steps: int, loss: float) -> None:
        job.check()
        job.metric({"kind": "fit", "done": step, "of": steps, "loss": loss})

    return progress
