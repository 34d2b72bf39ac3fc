"""What a service does for its jobs: checks them, and has their work done where they compute."""

import time
from contextlib import closing, suppress
from functools import partial
from typing import Any

from lab.bench import Bench
from lab.calibration_rows import calibration_rows
from lab.checkpoints import CheckpointFolder
from lab.config import TrainConfig
from lab.datasets import Dataset, load
from lab.datasets.own import FILE, UPLOAD, UPLOADS, find_upload
from lab.errors import ConfigError, DeadlineMissed, UnknownName
from lab.jobs.calibration_in_force import put_in_force
from lab.jobs.configs import CalibrateConfig, EvaluateConfig
from lab.jobs.desk import Assignment
from lab.jobs.dry_run import DryRun, JobsAhead, Known, dry_run
from lab.jobs.evaluated import evaluated_training
from lab.jobs.job_desk import JobDesk
from lab.jobs.kinds import JobConfig, config_of
from lab.jobs.live_job import LiveJob, Turns
from lab.jobs.nursery import Nursery, Trainer
from lab.jobs.records import FitConfig, JobRecord, TwinRecord
from lab.jobs.state_files import CHECKPOINTS, checkpoints_folder
from lab.jobs.store import Store
from lab.jobs.supervision import Patience, supervise
from lab.jobs.work import do, training_like
from lab.oracle import Simulation, simulation
from lab.recipes import completed, completed_fit
from lab.recording.recorder import RowRecorder
from lab.rules.choose import refuse_impossible
from lab.scheduling.scheduler import HardwareScheduler


class JobRunner:
    """Run jobs on one bench through its scheduler; thread-safe, any thread but the loop's.

    trainers: the processes in which jobs compute now, by the job's id.
    """

    def __init__(
        self,
        bench: Bench,
        scheduler: HardwareScheduler,
        store: Store,
        *,
        recorder: RowRecorder | None = None,
        nursery: Nursery | None = None,
        patience: Patience = Patience(),  # noqa: B008 - it is frozen
    ) -> None:
        """Measure through `scheduler`, which must be running while jobs run.

        recorder: keeps the measured rows. nursery: where their processes come from; None: jobs
        compute in the calling thread.
        """
        self.bench = bench
        self.scheduler = scheduler
        self.store = store
        self.recorder = recorder
        self.turns = Turns()
        self.nursery = nursery
        self.trainers: dict[str, Trainer] = {}
        self._patience = patience
        self._bench_digest = bench.config.measurement_digest()

    def run(self, job: LiveJob) -> dict[str, Any]:
        """Do the job and return its result as plain data; raise Stopped when it was stopped."""
        job.check()
        result = self._worked(job)
        if isinstance(job.config, CalibrateConfig):
            return put_in_force(job, job.config, result, self.scheduler)
        return result

    def _worked(self, job: LiveJob) -> dict[str, Any]:
        assignment = self._assignment(job)
        desk = JobDesk(job, self.scheduler, self.turns, self._bench_digest, self.recorder)
        if self.nursery is None:
            with closing(desk):
                return do(assignment, desk)
        watch = partial(self.trainers.__setitem__, job.id)
        try:
            return supervise(self.nursery, do, assignment, desk, self._patience, watch)
        finally:
            self.trainers.pop(job.id, None)

    def recovered(self, record: JobRecord) -> JobConfig:
        """Return the config of a job that is to go on; raise what `check` raises, or ValueError."""
        config = config_of(record)
        self.check(config)
        return config

    def forget_checkpoints(self, job_id: str) -> None:
        """Delete that from which a job could go on."""
        files = self.store.files_without_waiting.under(checkpoints_folder(job_id))
        CheckpointFolder(files).clear()

    def tidy(self) -> None:
        """Delete the checkpoints of jobs that have succeeded."""
        names = self.store.files.under(CHECKPOINTS).names()
        for job_id in {folder for folder, slash, _ in (n.partition("/") for n in names) if slash}:
            with suppress(UnknownName):
                if self.store.job(job_id).state == "succeeded":
                    self.forget_checkpoints(job_id)

    def completed(self, config: JobConfig) -> JobConfig:
        """Return the config with what it leaves open as it suits the system.

        Raises UnknownName, and of an evaluation what `evaluated_training` raises.
        """
        if isinstance(config, EvaluateConfig):
            like = evaluated_training(config, self.store)
            config = config.model_copy(update={"system": like.system})
        self.bench.system(config.system)
        family = self._family(config.system)
        match config:
            case TrainConfig():
                return completed(config, family)
            case FitConfig():
                return completed_fit(config, family)
        return config

    def dry_run(self, config: JobConfig, ahead: JobsAhead | None = None) -> DryRun:
        """Say what a complete config would cost; raise what `check` and its data raise."""
        self.check(config)
        known = Known(
            load=partial(self._load, self.store),
            find_twin=partial(self._known_twin, self.store),
            like=lambda fit: training_like(fit, self._family(fit.system)),
            trained=lambda wanted: evaluated_training(wanted, self.store),
        )
        return dry_run(config, self.bench.system(config.system).description, known, ahead)

    def check(self, config: JobConfig) -> None:
        """Raise what can be known not to work before it starts.

        UnknownName, ConfigError, Conflict; DeadlineMissed for a deadline that has passed.
        """
        system = self.bench.system(config.system)
        if config.deadline_s is not None and config.deadline_s <= time.time():
            raise DeadlineMissed("the job's deadline has passed before it was submitted")
        if isinstance(config, EvaluateConfig):
            evaluated_training(config, self.store)
        elif isinstance(config, CalibrateConfig):
            calibration_rows(system)
        else:
            self._check_learning(config)

    def _check_learning(self, config: TrainConfig | FitConfig) -> None:
        self._check_task(config.task)
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

    def _load(self, store: Store, task: str) -> Dataset:
        return load(task, uploads=store.files.under(UPLOADS))

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

    def _known_twin(self, store: Store, config: TrainConfig) -> TwinRecord | None:
        """Return the twin that a training names, or a fitted one as it asks for."""
        t = config.twin
        if t.id is not None:
            return store.twin(t.id)
        return store.find_twin(
            system=config.system, kind=t.kind, rows=t.rows, seed=t.seed, bench=self._bench_digest
        )

    def _family(self, system: str) -> str:
        return self.bench.config.systems[system].system

    def _assignment(self, job: LiveJob) -> Assignment:
        config, name = job.config, job.config.system
        system, rig = self.bench.system(name), self.bench.rig_name(name)
        physics = Simulation(name, None, None, None)
        if isinstance(config, TrainConfig) and config.method == "ideal" and rig is not None:
            physics = simulation(system, self.bench.config.rigs[rig])
        rows = before = trained = None
        if isinstance(config, CalibrateConfig):
            rows = calibration_rows(system)
            # the newest that had ended when this one first started
            before = job.store.last_calibration(name, job.started_s)
        if isinstance(config, EvaluateConfig):
            evaluated_training(config, job.store)
            trained = job.store.result(config.job)
        return Assignment(
            job=job.id,
            config=config,
            description=system.description,
            family=self._family(name),
            simulation=physics,
            bench=self._bench_digest,
            rows=rows,
            before=before,
            trained=trained,
        )
