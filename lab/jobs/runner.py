"""What a service does for its jobs: checks them, and has their work done where they compute."""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

from lab.bench import Bench
from lab.budget import budget, split_for
from lab.calibration_rows import calibration_rows
from lab.checkpoints import CheckpointFolder
from lab.config import TrainConfig
from lab.continuing import refuse_passed
from lab.datasets import Dataset, load
from lab.datasets.own import FILE, UPLOAD, UPLOADS, find_upload
from lab.errors import ConfigError, DeadlineMissed
from lab.jobs.calibration_in_force import put_in_force
from lab.jobs.configs import CalibrateConfig, CompareConfig, EvaluateConfig
from lab.jobs.desk import Assignment, Elsewhere
from lab.jobs.directory import Directory
from lab.jobs.dry_run import DryRun, JobsAhead, Known, dry_comparison, dry_run
from lab.jobs.evaluated import evaluated_training
from lab.jobs.hosts import KnownSystem
from lab.jobs.job_desk import JobDesk
from lab.jobs.kinds import JobConfig, config_of
from lab.jobs.live_job import LiveJob, Turns
from lab.jobs.parts import some_parts
from lab.jobs.records import FitConfig, JobRecord, TwinRecord
from lab.jobs.state_files import checkpoints_folder
from lab.jobs.store import Store
from lab.jobs.supervision import Patience, supervise
from lab.jobs.trainers import Trainer, Trainers
from lab.jobs.work import do, training_like
from lab.oracle import Simulation, simulation
from lab.provenance import provenance, software_of_process
from lab.recipes import completed, completed_fit, is_possible
from lab.recording.recorder import RowRecorder
from lab.remote import RemoteRun
from lab.rules.choose import refuse_impossible
from lab.scheduling.scheduler import HardwareScheduler
from lab.systems.base import SystemDescription

# A service that starts says at its end where it is reached.
_STARTING_S, _LOOK_EVERY_S = 60.0, 0.5


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
        directory: Directory | None = None,
        recorder: RowRecorder | None = None,
        nursery: Trainers | None = None,
        patience: Patience = Patience(),  # noqa: B008 - it is frozen
    ) -> None:
        """Measure through `scheduler`, which must be running while jobs run.

        directory: of the systems on other benches too. recorder: keeps the measured rows.
        nursery: where their processes come from; None: jobs
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
        self.directory = directory or Directory(bench)

    def run(self, job: LiveJob) -> dict[str, Any]:
        """Do the job and return its result as plain data; raise Stopped when it was stopped."""
        job.check()
        result = self._worked(job)
        if isinstance(job.config, CalibrateConfig):
            return put_in_force(job, job.config, result, self.scheduler)
        return result

    def _worked(self, job: LiveJob) -> dict[str, Any]:
        assignment = self._assignment(job)
        desk = JobDesk(job, self.scheduler, self.turns, assignment.bench, self.recorder)
        if self.nursery is None:
            with closing(desk):
                return do(assignment, desk)
        watch = partial(self.trainers.__setitem__, job.id)
        try:
            return supervise(self.nursery, do, assignment, desk, self._patience, watch)
        finally:
            self.trainers.pop(job.id, None)

    def provenance(self, config: JobConfig, started_s: float | None = None) -> dict[str, Any]:
        """Return where the numbers of a job come from that starts now; see `lab.provenance`."""
        name, calibrations = config.system, {}
        if self.directory.is_here(name):
            calibrations[name] = self.scheduler.calibration(name)
        return provenance(
            self.directory.bench_of(name),
            config,
            calibrations=calibrations,
            started_s=started_s,
            software=self.software,
        )

    @cached_property
    def software(self) -> dict[str, Any]:
        """Get what this process is made of, as it was when it was asked first."""
        return software_of_process()

    def recovered(self, record: JobRecord) -> JobConfig:
        """Return the config of a job that is to go on; raise what `check` raises, or ValueError."""
        config = config_of(record)
        self.check(config)
        return config

    def check_length(self, record: JobRecord, config: JobConfig) -> None:
        """Raise ConfigError for a training that has taken more steps than it would now have."""
        before = config_of(record)
        if not isinstance(config, TrainConfig) or not isinstance(before, TrainConfig):
            return
        if (config.epochs, config.rows) == (before.epochs, before.rows):
            return
        known = CheckpointFolder(self.store.files.under(checkpoints_folder(record.id))).newest()
        if known is not None:
            samples = split_for(config, self._load(self.store, config.task))
            refuse_passed(config, known.step, budget(config, samples).steps)

    def completed(self, config: JobConfig) -> JobConfig:
        """Return the config with what it leaves open as it suits the system.

        Raises UnknownName, and of an evaluation what `evaluated_training` raises.
        """
        if isinstance(config, EvaluateConfig):
            like = evaluated_training(config, self.store)
            config = config.model_copy(update={"system": like.system})
        family = self.directory.system(config.system).family
        match config:
            case TrainConfig():
                return completed(config, family)
            case FitConfig():
                return completed_fit(config, family)
        return config

    def dry_run(self, config: JobConfig, ahead: JobsAhead | None = None) -> DryRun:
        """Say what a complete config would cost; raise what `check` and its data raise."""
        self.check(config)
        if isinstance(config, CompareConfig):
            return dry_comparison(config, list(self._dry_parts(config)), ahead)
        known = Known(
            load=partial(self._load, self.store),
            find_twin=partial(self._known_twin, self.store),
            like=lambda fit: training_like(fit, self.directory.system(fit.system).family),
            trained=lambda wanted: evaluated_training(wanted, self.store),
        )
        description = self._description(self.directory.system(config.system))
        return dry_run(config, description, known, ahead)

    def _dry_parts(self, config: CompareConfig) -> Iterator[tuple[int, DryRun]]:
        for part in map(self.completed, some_parts(config)):
            number = 1
            if isinstance(part, TrainConfig):
                if not is_possible(part):
                    continue
                number = config.seeds if part.control is None else config.control_seeds
            yield number, self.dry_run(part)

    def check(self, config: JobConfig) -> None:
        """Raise what can be known not to work before it starts.

        UnknownName, ConfigError, Conflict; DeadlineMissed for a deadline that has passed.
        """
        known = self.directory.system(config.system)
        if config.deadline_s is not None and config.deadline_s <= time.time():
            raise DeadlineMissed("the job's deadline has passed before it was submitted")
        if isinstance(config, EvaluateConfig):
            evaluated_training(config, self.store)
        elif isinstance(config, CompareConfig):
            for part in map(self.completed, some_parts(config)):
                if not isinstance(part, TrainConfig) or is_possible(part):
                    self.check(part)
        elif not isinstance(config, CalibrateConfig):
            self._check_learning(config, known)
        elif self.directory.is_here(known.name):
            calibration_rows(self.bench.system(known.name))

    def _check_learning(self, config: TrainConfig | FitConfig, known: KnownSystem) -> None:
        self._check_task(config.task)
        if isinstance(config, TrainConfig):
            refuse_impossible(config)
            if config.method == "ideal" and not known.simulated:
                raise ConfigError("method: 'ideal' needs a simulated bench")
            if config.twin.id is not None:
                self._check_twin(known, self.store.twin(config.twin.id))
                return
        if not self.directory.is_here(known.name):
            return  # what its kind of twin cannot do is seen where the system is
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

    def _check_twin(self, known: KnownSystem, record: TwinRecord) -> None:
        if record.system != known.name:
            raise ConfigError(
                f"twin.id: twin '{record.id}' belongs to system '{record.system}', "
                f"not '{known.name}'"
            )
        if record.bench != known.bench:
            raise ConfigError(
                f"twin.id: twin '{record.id}' was fitted on another bench, or before the bench "
                "file was changed; fit one on this bench"
            )

    def _known_twin(self, store: Store, config: TrainConfig) -> TwinRecord | None:
        """Return the twin that a training names, or a fitted one as it asks for."""
        t = config.twin
        if t.id is not None:
            return store.twin(t.id)
        bench = self.directory.system(config.system).bench
        return store.find_twin(
            system=config.system, kind=t.kind, rows=t.rows, seed=t.seed, bench=bench
        )

    def _reached(self, job: LiveJob) -> KnownSystem:
        """Return a job's system; wait for its service, which may just be starting anew."""
        until_s = time.monotonic() + _STARTING_S
        while True:
            known = self.directory.system(job.config.system)
            if known.url or self.directory.is_here(known.name):
                return known
            if time.monotonic() >= until_s:
                raise ConfigError(
                    f"{known.name}: its service '{known.host}' has not said for "
                    f"{_STARTING_S:g} s where it is reached"
                )
            job.pause(_LOOK_EVERY_S)

    def _assignment(self, job: LiveJob) -> Assignment:
        config = job.config
        if isinstance(config, CompareConfig):
            raise TypeError("a comparison's work is done by its parts")
        known = self._reached(job)
        trained = None
        if isinstance(config, EvaluateConfig):
            evaluated_training(config, job.store)
            trained = job.store.result(config.job)
        assignment = Assignment(
            job=job.id,
            config=config,
            description=self._description(known),
            family=known.family,
            simulation=Simulation(known.name, None, None, None),
            bench=known.bench,
            trained=trained,
        )
        if not self.directory.is_here(known.name):
            return replace(assignment, elsewhere=Elsewhere(known.url, job.client, job.attempt))
        return replace(assignment, **self._on_this_bench(job, known.name))

    def _on_this_bench(self, job: LiveJob, name: str) -> dict[str, Any]:
        """Return what of an assignment only the service can give that has the instruments."""
        config, system, rig = job.config, self.bench.system(name), self.bench.rig_name(name)
        if isinstance(config, CalibrateConfig):
            # the newest that had ended when this one first started
            before = job.store.last_calibration(name, job.started_s)
            return {"rows": calibration_rows(system), "before": before}
        if isinstance(config, TrainConfig) and config.method == "ideal" and rig is not None:
            return {"simulation": simulation(system, self.bench.config.rigs[rig])}
        return {}

    def _description(self, known: KnownSystem) -> SystemDescription:
        if self.directory.is_here(known.name):
            return self.bench.system(known.name).description
        with RemoteRun(known.url, known.name) as run:
            found = run.describe()
        if found.bench != known.bench:
            raise ConfigError(f"{known.name}: its bench at {known.url} has changed meanwhile")
        return found.description
