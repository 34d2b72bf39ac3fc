"""A job's desk in the service: store, files, scheduler and the turns that jobs wait for."""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Any

from lab.config import TrainConfig, TwinKind
from lab.errors import LabError, QueueFull
from lab.jobs.files import Files
from lab.jobs.going_on import go_back
from lab.jobs.live_job import LiveJob, Turns
from lab.jobs.records import FitConfig, TwinRecord
from lab.jobs.state_files import checkpoints_folder, twin_file
from lab.jobs.store_states import superseded
from lab.measure import Run
from lab.measurement import ForwardPass, Measurement
from lab.recording.known_rows import KnownRows, PartlyKnown
from lab.recording.recorder import RowRecorder
from lab.scheduling.scheduled_run import ScheduledRun
from lab.scheduling.scheduler import HardwareScheduler

# less than the seconds after which the others take a silent host's jobs over (`lab.jobs.hosts`)
_OURS_FOR_S = 5.0


class JobDesk:
    """A `lab.jobs.desk.Desk` for one job, for one thread at a time.

    scheduler: where its passes go, for who measures without `run`. recorder: keeps its rows.
    """

    def __init__(
        self,
        job: LiveJob,
        scheduler: HardwareScheduler,
        turns: Turns,
        bench: str,
        recorder: RowRecorder | None = None,
    ) -> None:
        """Serve `job` on the bench with this digest; `turns` are those of all jobs."""
        self.recorder = recorder
        self.job, self.scheduler = job, scheduler
        self._store, self._turns, self._bench = job.store, turns, bench
        self._turn = ExitStack()
        self._newest = ""
        self._known = KnownRows()
        self._ours_s = time.monotonic()

    @property
    def progress(self) -> tuple[int, str]:
        """Get its newest metric's number and the newest checkpoint's, to see that it got further.

        A checkpoint that is kept again does not count.
        """
        return self.job.told, self._newest

    def start(self) -> None:
        """Begin, or begin again after what did the work has died."""
        self.close()
        self.job.rows.reset()
        self._known = KnownRows()

    def close(self) -> None:
        """Let others have the turn that the job has, if it has one; idempotent."""
        self._turn.close()
        if self.recorder is not None:
            self.recorder.flush()

    def run(self) -> Run:
        """Return what executes rows: passes in the scheduler's queue."""
        return ScheduledRun(
            self.scheduler,
            self.job.config.system,
            priority=self.job.config.priority,
            stopped=self.job.stopped,
            pass_ids=self.job.pass_ids,
            measure=self._measure,
        )

    def own(self, forward_pass: ForwardPass) -> PartlyKnown:
        """Return a pass as one of the job's, with the rows of it that need not be measured.

        Raises Superseded if another process has taken the job over while this one was frozen, say.
        """
        job = self.job
        self._look_whose_it_is()
        return self._known.of(
            replace(
                forward_pass,
                client=job.client,
                job=job.id,
                priority=job.config.priority,
                deadline_s=job.config.deadline_s,
                persistent=True,
            )
        )

    def _look_whose_it_is(self) -> None:
        """Raise Superseded where others may have taken the job over, and one has."""
        now_s = time.monotonic()
        if self.job.is_shared and now_s - self._ours_s > _OURS_FOR_S:
            if not self._store.holds(self.job.id, self.job.attempt):
                raise superseded(self.job.id)
            self._ours_s = now_s

    def record(self, owned: PartlyKnown, ended: Measurement | Exception) -> None:
        """Keep what was measured of a pass, and count a whole one, without waiting for a disk."""
        rest = owned.measured(ended)
        if isinstance(ended, Measurement):
            self.job.rows.count(len(owned.forward_pass.x))
        if rest and self.recorder is not None:
            self.recorder.add(*rest)

    def _measure(self, forward_pass: ForwardPass, stopped: Callable[[], bool]) -> Measurement:
        """Queue a pass and return its measurement; while the queue is full, wait and retry.

        Raises what `HardwareScheduler.submit` raises but QueueFull, and Stopped.
        """
        while True:
            owned = self.own(forward_pass)
            try:
                measured = self.scheduler.measure_blocking(owned.rest, stopped)
            except QueueFull as full:
                self.job.pause(full.retry_after_s)
            except LabError as error:
                self.record(owned, error)
                raise
            else:
                self.record(owned, measured)
                return owned.whole(measured)

    def stopped(self) -> bool:
        """Say whether the job is to end."""
        return self.job.stopped()

    def check(self) -> None:
        """Raise Stopped if the job is to end."""
        self.job.check()

    def metric(self, metric: Mapping[str, Any]) -> None:
        """Keep one metric and tell the job's watchers."""
        self.job.metric(metric)

    def plan_rows(self, rows: int) -> None:
        """Expect so many rows more than planned so far."""
        self.job.rows.plan(rows)

    def count_rows(self, rows: int) -> None:
        """Count rows that were measured elsewhere."""
        self.job.rows.count(rows)

    def when_stopped(self, call: Callable[[], object]) -> AbstractContextManager[None]:
        """Have something called when the job is to end, inside the block."""
        return self.job.when_stopped(call)

    def start_pace(self) -> None:
        """Take the job's pace from here on."""
        self.job.rows.start_pace()

    def go_back(self, step: int, rows: int) -> None:
        """Drop what was told after a checkpoint, count on from there, and measure no row again."""
        go_back(self._store, self.job, step, rows)
        # the rows of what looks at a device are to be of one time
        if self.recorder is not None and isinstance(self.job.config, (TrainConfig, FitConfig)):
            self._known = self.recorder.known(self.job.id, self.job.continued_s)

    def twin(self, twin_id: str) -> TwinRecord:
        """Return a kept twin; raise UnknownName."""
        return self._store.twin(twin_id)

    def own_twin(self) -> TwinRecord | None:
        """Return the twin that this job has fitted, if it has."""
        return self._store.find_twin(job=self.job.id)

    def find_or_begin_twin(
        self, system: str, kind: TwinKind, rows: int, seed: int
    ) -> TwinRecord | None:
        """Return a kept twin like this; None: the turn to fit it is this job's, until `add_twin`.

        Raises Stopped if the job is stopped while it waits for its turn.
        """
        wanted: dict[str, str | int] = {"system": system, "kind": kind, "rows": rows, "seed": seed}
        self._turn.enter_context(self._turns.turn(tuple(wanted.values()), self.job.stopped))
        known = self._store.find_twin(**wanted, bench=self._bench)
        if known is not None:
            self.close()
        return known

    def add_twin(self, record: TwinRecord, state: bytes) -> None:
        """Keep a twin and its parameters; raise Stopped if the job is to end."""
        self.job.check()
        self.write(twin_file(record.id), state)
        self._store.add_twin(record)
        self.close()

    def read(self, name: str) -> bytes:
        """Return a kept file; raise OSError, DataError."""
        return self._files(name).read(name)

    def write(self, name: str, data: bytes) -> None:
        """Keep a file; raise OSError, or Superseded if another process works on the job."""
        if not self._store.holds(self.job.id, self.job.attempt):
            raise superseded(self.job.id)
        if self.recorder is not None:
            self.recorder.flush()  # the rows that this tells of are not measured again
        self._files(name).write(name, data)
        folder, _, file = name.rpartition("/")
        if folder == checkpoints_folder(self.job.id):
            self._newest = max(self._newest, file.partition("-")[0])

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder, without it, sorted."""
        return self._store.files.under(folder).names()

    def delete(self, name: str) -> None:
        """Drop a file; nothing if it is not there."""
        self._files(name).delete(name)

    def _files(self, name: str) -> Files:
        """Return where a file belongs: a training does not wait for its checkpoints."""
        is_checkpoint = name.startswith(f"{checkpoints_folder(self.job.id)}/")
        return self._store.files_without_waiting if is_checkpoint else self._store.files
